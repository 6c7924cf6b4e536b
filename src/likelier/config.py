"""What every stage's configuration shares: one pydantic model per stage, frozen, unknown keys refused.

The command line, the YAML file and the Python function all fill the same model, so there is no second
configuration. A field's name is its flag (`max_tokens` is `--max-tokens`), its description is its help.
"""

from __future__ import annotations

import difflib
from collections.abc import Sequence
from pathlib import Path
from typing import Any, ClassVar, Self

from pydantic import BaseModel, ConfigDict, ValidationError

from likelier.errors import UsageError
from likelier.flags import flag


class StageConfig(BaseModel):
    """Base of all stage configurations."""

    model_config = ConfigDict(extra="forbid", frozen=True, protected_namespaces=(), allow_inf_nan=False)
    positional: ClassVar[tuple[str, ...]] = ()
    """Fields that the command line takes from words without a flag, in this order; a list takes all that follow."""

    heading: ClassVar[str] = ""
    """Of a base that several stages share: over its settings in their help."""

    @classmethod
    def fields_for(cls, words: Sequence[str]) -> list[str]:
        """The settings that help shows after these words; all, unless a word settles what is read."""
        return list(cls.model_fields)

    @classmethod
    def build(cls, values: dict[str, Any]) -> Self:
        """The configuration with `values` filled in, or a one-line `UsageError` that names the key and the remedy."""
        for key in values:
            if key not in cls.model_fields:
                raise UsageError(f"unknown setting `{key}`{nearest(key, cls.model_fields)}")
            # pydantic reads true as 1: `lora_rank: true` would train an adapter of rank 1.
            if isinstance(values[key], bool) and cls.model_fields[key].annotation is not bool:
                raise UsageError(f"{flag(key)} takes a value, not {str(values[key]).lower()}")
        # A list of nothing is as good as missing: `data: []` in a file.
        given = {key: value for key, value in values.items() if value != [] or not cls._needs(key)}
        try:
            return cls(**given)
        except ValidationError as error:
            raise UsageError(_one_line(error, cls)) from None

    @classmethod
    def _needs(cls, key: str) -> bool:
        return cls.model_fields[key].is_required()


def named(value: Any) -> Any:
    """A model, reference or loss as a configuration names it: one in memory by its type.

    >>> named(None), named(Path("a")), named({})
    (None, 'a', '<dict>')
    """
    if value is None or isinstance(value, str):
        return value
    return str(value) if isinstance(value, Path) else f"<{type(value).__name__}>"


def reward_name(function: Any) -> str:
    """A function in memory as a configuration names it; with no way back where it has no name of its own.

    >>> import math
    >>> reward_name(math.sqrt)
    'math:sqrt'
    """
    name = getattr(function, "__qualname__", type(function).__name__)
    return f"{getattr(function, '__module__', '')}:{name}"


def named_data(data: Any) -> list[str]:
    """Data as a configuration names it: paths and hub names as they are, rows in memory as `<rows>`.

    >>> named_data("a.jsonl"), named_data([{"prompt": "a"}]), named_data(None)
    (['a.jsonl'], ['<rows>'], [])
    """
    if data is None:
        return []
    paths = isinstance(data, list) and data and all(isinstance(item, (str, Path)) for item in data)
    return [str(item) if isinstance(item, (str, Path)) else "<rows>" for item in (data if paths else [data])]


def nearest(word: str, known: Any) -> str:
    """A hint that names the closest known word, or nothing.

    >>> nearest("betta", ["beta", "loss"])
    '; did you mean `beta`?'
    """
    close = difflib.get_close_matches(word, list(known), n=1)
    return f"; did you mean `{close[0]}`?" if close else ""


def read_yaml(path: Path) -> dict[str, Any]:
    """The settings in a YAML file; hyphens in keys are read as underscores."""
    import yaml

    try:
        text = path.read_text(encoding="utf-8")
        loaded = yaml.safe_load(text)
        tree = yaml.compose(text, yaml.SafeLoader)
    except OSError as error:
        raise UsageError(f"cannot read the configuration {path}: {error.strerror}") from None
    except (yaml.YAMLError, UnicodeDecodeError, RecursionError) as error:
        raise UsageError(f"{path} is not valid YAML: {' '.join(str(error).split())}") from None
    if loaded is None:
        return {}
    if not isinstance(loaded, dict):
        raise UsageError(
            f"{path} must hold `key: value` lines at its top level, not a {type(loaded).__name__}"
        )
    if twice := _set_twice(tree):
        raise UsageError(f"{path} sets `{twice}` twice; leave one")
    # YAML reads the word `on` as true, in place of a key too.
    return {"on" if key is True else str(key).replace("-", "_"): value for key, value in loaded.items()}


def _set_twice(node: Any) -> str | None:
    """A key that a mapping has twice, at any depth: YAML takes the last of two in silence."""
    if not isinstance(node.value, list):
        return None
    inner = [part for entry in node.value for part in (entry if isinstance(entry, tuple) else (entry,))]
    if node.tag.endswith(":map"):
        keys = [str(key.value).replace("-", "_") for key, _ in node.value]
        if twice := [key for index, key in enumerate(keys) if key in keys[:index]]:
            return twice[0]
    return next((found for part in inner if (found := _set_twice(part))), None)


def _one_line(error: ValidationError, config: type[StageConfig]) -> str:
    """The first fault of a pydantic error in our words, naming the flag."""
    fault = error.errors()[0]
    name = ".".join(str(part) for part in fault["loc"][:1])
    message = fault["msg"].removeprefix("Value error, ")
    if not name:
        return message
    if fault["type"] == "missing":
        key, meaning = name.rstrip("_"), config.model_fields[name].description
        return f"{flag(name)} is missing; give {flag(name)} VALUE, or `{key}:` in a --config file ({meaning})"
    return f"{flag(name)}: {message[0].lower()}{message[1:]} (given {fault['input']!r})"
