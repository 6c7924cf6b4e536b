"""The model card: what was trained on what, how, and what was measured."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path

import yaml


def model_card(
    base: str,
    *,
    method: str,
    data: Mapping[str, str],
    settings: Mapping[str, object],
    results: Sequence[Mapping[str, object]] = (),
    adapter: bool = False,
    task: str = "text-generation",
    notes: Sequence[str] = (),
) -> str:
    """The text of a model's README.md, with the front matter that the hub reads.

    Args:
        base: name or path of the model that training began from.
        method: what was done (`"DPO"`).
        data: content hash by name of each data file.
        settings: the resolved configuration.
        results: rows of one table; their keys are its columns, a missing cell stands empty.
        adapter: True when the folder holds an adapter alone.
        task: as the hub names it.
        notes: paragraphs that follow the first.

    >>> card = model_card("base", method="DPO", data={"a.jsonl": "ff"}, settings={"beta": 0.1})
    >>> print(card.split("---")[1])
    <BLANKLINE>
    library_name: transformers
    pipeline_tag: text-generation
    tags:
    - likelier
    - dpo
    base_model: base
    <BLANKLINE>
    """
    parts = [
        f"# {Path(base).stem if _is_path(base) else base}, after {method}",
        f"Trained from `{base}` with {method}, by likelier.",
        *notes,
        "## Results\n\n" + (_table(results) if results else "Nothing was measured."),
        "## Data\n\n" + _table([{"file": name, "content hash": digest} for name, digest in data.items()]),
        "## Settings\n\n```yaml\n"
        + _yaml({name: _simple(value) for name, value in settings.items()})
        + "```",
    ]
    return f"---\n{_front_matter(base, method, adapter, task)}---\n\n" + "\n\n".join(parts) + "\n"


def _front_matter(base: str, method: str, adapter: bool, task: str) -> str:
    matter: dict[str, object] = {
        "library_name": "peft" if adapter else "transformers",
        "pipeline_tag": task,
        "tags": ["likelier", method.lower()],
    }
    # The hub refuses a base that is no name of its own.
    return _yaml(matter if _is_path(base) else {**matter, "base_model": base})


def _is_path(base: str) -> bool:
    return not re.fullmatch(r"[\w-][\w.-]*(/[\w-][\w.-]*)?", base, re.ASCII) or base.endswith(".gguf")


def _table(rows: Sequence[Mapping[str, object]]) -> str:
    columns = list(dict.fromkeys(column for row in rows for column in row))
    lines = [
        columns,
        ["---"] * len(columns),
        *([_cell(row.get(column)) for column in columns] for row in rows),
    ]
    return "\n".join("| " + " | ".join(cells) + " |" for cells in lines)


def _cell(value: object) -> str:
    if value is None:
        return ""
    text = f"{value:.4g}" if isinstance(value, float) else str(value)
    return " ".join(text.replace("|", "\\|").split())


def _simple(value: object) -> object:
    """What plain YAML can hold; anything else as its text."""
    if isinstance(value, Mapping):
        return {str(key): _simple(inner) for key, inner in value.items()}
    if isinstance(value, (list, tuple)):
        return [_simple(inner) for inner in value]
    return value if value is None or isinstance(value, (bool, int, float, str)) else str(value)


def _yaml(values: Mapping[str, object]) -> str:
    return yaml.safe_dump(dict(values), sort_keys=False, allow_unicode=True)
