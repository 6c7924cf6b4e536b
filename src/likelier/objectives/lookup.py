"""From what a user writes as `loss` to an `Objective`, with errors that name the nearest word."""

from __future__ import annotations

import difflib
import importlib
import inspect
import sys
from collections.abc import Callable, Iterable
from pathlib import Path

from torch import Tensor

from likelier.objectives.objective import LossFunction, Objective
from likelier.objectives.table import OBJECTIVES

_ARGUMENTS = ("policy", "reference", "lengths", "beta")


class UnknownLossError(ValueError):
    """A loss that is neither in the table nor importable, or no loss; the message names the remedy."""


class UnknownOptionError(ValueError):
    """An option that the chosen loss does not read; the message names the losses that do."""


def kway(function: LossFunction) -> LossFunction:
    """Declare a loss K-way: it gets `[trees, K]` with keywords `mask` and `ranks`, and returns `[trees]`.

    >>> @kway
    ... def mine(policy, reference, lengths, beta, *, mask, ranks): ...
    >>> resolve(mine).kind
    'ranking'
    """
    function.kway = True  # type: ignore[attr-defined]
    return function


def stepwise(function: LossFunction) -> LossFunction:
    """Declare a loss step-wide: it gets all pairs (or trees) of a step at once, in order.

    >>> @stepwise
    ... def mine(policy, reference, lengths, beta): ...
    >>> resolve(mine).stepwise
    True
    """
    function.stepwise = True  # type: ignore[attr-defined]
    return function


def resolve(loss: str | Objective | Callable[..., Tensor]) -> Objective:
    """The objective meant by a name in the table, `module:function`, a callable, or an `Objective` itself.

    A callable is `f(policy, reference, lengths, beta) -> loss per pair`; `@kway` and `@stepwise` declare
    others. Its logged rewards are β × log-ratio; give an `Objective` where the loss compares something else.
    Modules are looked for where Python looks, then in the current folder.

    Raises:
        UnknownLossError: no such loss.

    >>> resolve("sigmoid").at_reference(0.1)
    0.6931471805599453
    """
    if isinstance(loss, Objective):
        return loss
    if not isinstance(loss, str):
        return _from_callable(loss, getattr(loss, "__name__", type(loss).__name__))
    if loss in OBJECTIVES:
        return OBJECTIVES[loss]
    if ":" not in loss:
        known = ", ".join(OBJECTIVES)
        raise UnknownLossError(
            f"unknown loss `{loss}`{nearest(loss, OBJECTIVES)}; known are {known}, or `module:function`"
        )
    found = _import(loss)
    return found if isinstance(found, Objective) else _from_callable(found, loss)


def unknown_option(objective: Objective, option: str) -> UnknownOptionError:
    """The error for an option that `objective` does not read.

    >>> unknown_option(resolve("hinge"), "gamma")
    UnknownOptionError('loss `hinge` does not read `gamma`; simpo does')
    """
    readers = [entry.name for entry in OBJECTIVES.values() if option in entry.options]
    if readers:
        hint = f"; {' and '.join(readers)} {'do' if len(readers) > 1 else 'does'}"
    else:
        hint = nearest(option, objective.options)
    return UnknownOptionError(f"loss `{objective.name}` does not read `{option}`{hint}")


def check_options(objective: Objective, options: Iterable[str]) -> None:
    """Refuse options that the loss would not read.

    Raises:
        UnknownOptionError: for the first of them.

    >>> check_options(resolve("sigmoid"), ["margin", "label_smoothing"])
    """
    for option in options:
        if option not in objective.options:
            raise unknown_option(objective, option)


def _from_callable(function: object, name: str) -> Objective:
    if not callable(function):
        raise UnknownLossError(f"loss `{name}` is a {type(function).__name__}, not a function")
    kind = "ranking" if getattr(function, "kway", False) else "pair"
    _require_arguments(function, name, labels=("mask", "ranks") if kind == "ranking" else ())
    stepwise = bool(getattr(function, "stepwise", False))
    return Objective(
        name=name,
        function=function,
        kind=kind,  # type: ignore[arg-type]
        stepwise=stepwise,
        formula=(function.__doc__ or "").strip().partition("\n")[0],
        source="the user's own",
    )


def _require_arguments(function: Callable[..., object], name: str, *, labels: tuple[str, ...]) -> None:
    """Raises `UnknownLossError` where `function` cannot be called as a loss: otherwise the first step would show it."""
    try:
        signature = inspect.signature(function)
    except (ValueError, TypeError):
        # Some functions written in C do not say what they take.
        return
    try:
        signature.bind(*_ARGUMENTS, **dict.fromkeys(labels))
    except TypeError as error:
        called = ", ".join([*_ARGUMENTS, *(f"{label}=…" for label in labels)])
        raise UnknownLossError(f"loss `{name}` cannot be called as f({called}): {error}") from None


def _import(address: str) -> object:
    """The object at `module:name`."""
    module_name, _, function_name = address.partition(":")
    here = str(Path.cwd())
    # Console scripts do not search the current folder, where a user's own loss usually lies.
    sys.path.append(here)
    try:
        module = importlib.import_module(module_name)
    except (Exception, SystemExit) as error:
        named = module_name and not module_name.startswith(".")
        absent = isinstance(error, ModuleNotFoundError) and error.name in _parents(module_name)
        if named and not absent:
            raise UnknownLossError(
                f"loss `{address}`: `import {module_name}` failed with {type(error).__name__}: {error}"
                " (--debug shows where)"
            ) from error
        raise UnknownLossError(
            f"loss `{address}`: no module `{module_name}` in {here} or installed; write `module:function`"
        ) from None
    finally:
        sys.path.remove(here)
    if not hasattr(module, function_name):
        close = nearest(function_name, vars(module))
        raise UnknownLossError(f"loss `{address}`: module `{module_name}` has no `{function_name}`{close}")
    return getattr(module, function_name)


def _parents(module_name: str) -> list[str]:
    """`a.b.c` and what holds it: the names whose absence means the user's address is wrong."""
    parts = module_name.split(".")
    return [".".join(parts[: count + 1]) for count in range(len(parts))]


def nearest(word: str, known: Iterable[str]) -> str:
    """A hint that names the closest known word, or nothing.

    >>> nearest("ipoo", OBJECTIVES)
    '; did you mean `ipo`?'
    """
    close = difflib.get_close_matches(word.lower(), list(known), n=1)
    return f"; did you mean `{close[0]}`?" if close else ""
