"""The theory, executable: what math.md states, computed in worlds in which everything is known exactly.

    likelier theory --out runs/theory
    likelier theory --world examples/worlds/rain.yaml --out runs/mine
    likelier theory --loss ipo --out runs/ipo

Prints every statement with its equation, its measured error and whether it holds; writes `page.html`, one file with
the pictures, and `theory.json`. Exit code 1 if a statement fails. `--loss` adds a verdict on a loss: does it recover
π*, and what do deterministic and noisy labels do to it?
"""

from __future__ import annotations

import contextlib
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from typing import Any, NamedTuple

import torch
from rich.console import Console
from rich.table import Table

from likelier.config import read_yaml
from likelier.errors import DataError, UsageError
from likelier.manifest import as_json, manifest_path, write_manifest, write_whole
from likelier.objectives.lookup import UnknownLossError, resolve
from likelier.report.theory import TheoryPage, error, render_theory
from likelier.stages.theory_config import TheoryConfig
from likelier.stages.theory_page import sections
from likelier.theory.all_statements import narrowed, statements, trials, worst
from likelier.theory.reading import WorldFileError, world_from
from likelier.theory.statement import Statement
from likelier.theory.verdict import Trial, Verdict, verdict
from likelier.theory.world import World

_BETA = 0.5
_FARTHEST = 1e8
"""r/β beyond which differences of log-probabilities are lost in rounding."""
_SPREAD = 10.0
"""Rewards of a loss's trial: descents cannot tell certain labels from nearly certain ones."""


def main(config: TheoryConfig) -> int:
    """The command; 1 where a statement fails."""
    with _one_thread():
        page = _computed(config)
    _write(config, page)
    if config.json_:
        print(as_json(_result(page.statements, page.verdict)))
    else:
        _show(config, page)
    return int(bool(page.failed))


@contextlib.contextmanager
def _one_thread() -> Iterator[None]:
    """Tables of a few numbers: a second thread only waits, and does so at full speed (docs/log.md)."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def _computed(config: TheoryConfig) -> TheoryPage:
    start = time.monotonic()
    _free_folder(config)
    where = _where(config)
    shown = where[0]
    found_verdict = _verdict(config, shown)
    say = _say if sys.stderr.isatty() else _silent
    say("statements")
    found = worst([statements(place.world, beta=place.beta) for place in where])
    made = sections(shown.world, shown.beta, say)
    return TheoryPage(
        statements=found,
        worlds=_in_words(config, where),
        world=shown.world,
        beta=shown.beta,
        sections=made,
        verdict=found_verdict,
        seconds=time.monotonic() - start,
    )


class _Place(NamedTuple):
    world: World
    beta: float


def _where(config: TheoryConfig) -> list[_Place]:
    """The worlds to check in, the one that is shown first."""
    if config.world is None:
        return [_Place(world, config.beta or beta) for world, beta in trials()]
    try:
        given = world_from(read_yaml(config.world), source=str(config.world))
    except WorldFileError as fault:
        raise DataError(str(fault)) from None
    beta = config.beta or given.beta or _BETA
    largest = float(given.world.reward.abs().max())
    if largest / beta > _FARTHEST:
        raise UsageError(
            f"{config.world}: a reward of {largest:g} at β = {beta:g} leaves nothing to compute with in float64;"
            " give a larger --beta, or smaller rewards"
        )
    return [_Place(given.world, beta)]


def _in_words(config: TheoryConfig, where: Sequence[_Place]) -> str:
    betas = ", ".join(f"{place.beta:g}" for place in where)
    if config.world is not None:
        return f"the world of {config.world}, β = {betas}"
    ours = f"{len(where)} worlds of our own, two random ones and one of corner cases"
    return f"{ours}, with β = {betas}; the largest error is shown"


def _verdict(config: TheoryConfig, place: _Place) -> Verdict | None:
    """On the loss that was asked about, in the user's world or in its own."""
    if config.loss is None:
        return None
    try:
        objective = resolve(config.loss)
    except UnknownLossError as fault:
        raise UsageError(f"--loss: {fault}") from fault.__cause__
    trial = None
    if config.world is not None:
        inside = narrowed(place.world.on_support(), _SPREAD)
        if inside.reward.shape[1] < 2:
            raise DataError(f"{config.world}: every prompt has one completion; a loss needs two to compare")
        trial = Trial.of(inside, beta=place.beta)
    try:
        return verdict(objective, trial)
    except (
        ValueError,
        TypeError,
        RuntimeError,
        AttributeError,
        IndexError,
        KeyError,
        ArithmeticError,
    ) as fault:
        # The user's own code: whatever it raises is about it.
        text = " ".join(str(fault).split())
        raise UsageError(
            f"--loss {config.loss}: {type(fault).__name__}: {text} (--debug shows where)"
        ) from fault


def _free_folder(config: TheoryConfig) -> None:
    """A folder of our own is written anew; one that holds something else is left alone."""
    out = config.out
    if out.exists() and not out.is_dir():
        raise UsageError(f"--out {out} is a file; choose a folder")
    ours = manifest_path(out / "theory.json")
    if out.is_dir() and any(out.iterdir()) and not ours.exists():
        raise UsageError(f"--out {out} holds other files; choose another folder")


def _result(found: Sequence[Statement], loss: Verdict | None) -> dict[str, Any]:
    """The interface of `--json`."""
    rows = [{"name": s.name, "equation": s.equation, "error": s.error, "holds": s.holds} for s in found]
    return {"statements": rows} if loss is None else {"statements": rows, "loss": asdict(loss)}


def _write(config: TheoryConfig, page: TheoryPage) -> None:
    """The page, the numbers, and the manifest last."""
    write_whole(config.out / "page.html", render_theory(page))
    rows = [asdict(one) | {"holds": one.holds} for one in page.statements]
    loss = None if page.verdict is None else asdict(page.verdict)
    result = {
        "statements": rows,
        "beta": page.beta,
        "worlds": page.worlds,
        "loss": loss,
        "seconds": page.seconds,
    }
    write_whole(config.out / "theory.json", as_json(result, indent=2) + "\n")
    inputs = {} if config.world is None else {"world": config.world}
    write_manifest(
        config.out / "theory.json", stage="theory", config=config.model_dump(mode="json"), inputs=inputs
    )


def _show(config: TheoryConfig, page: TheoryPage) -> None:
    # Piped, there is no terminal to fit: a line is as long as it is.
    console = Console() if sys.stdout.isatty() else Console(width=180)
    table = Table(box=None, pad_edge=False, header_style="bold")
    for name, right in (("statement", False), ("equation", False), ("error", True), ("holds", False)):
        table.add_column(name, justify="right" if right else "left", overflow="fold")
    for one in page.statements:
        holds = "yes" if one.holds else "[bold red]NO[/]"
        table.add_row(*map(_plain, (one.name, one.equation, error(one.error))), holds)
    console.print(table)
    if page.verdict is not None:
        console.print()
        console.print(_plain(f"{page.verdict.loss} at β = {page.verdict.beta:g}: {page.verdict.words}"))
        for finding in page.verdict.findings:
            console.print(
                _plain(f"  {'yes' if finding.holds else 'no ':<3} {finding.question} {finding.words}")
            )
    held = len(page.statements) - len(page.failed)
    console.print(_plain(f"\n{held} of {len(page.statements)} statements hold, in {page.worlds}"))
    console.print(_plain(f"written to {config.out / 'page.html'}"))


def _plain(text: str) -> str:
    """Text in which brackets are brackets, not the table's markup."""
    return text.replace("[", r"\[")


def _say(text: str) -> None:
    print(text, file=sys.stderr)


def _silent(text: str) -> None:
    """No progress where nobody watches."""
