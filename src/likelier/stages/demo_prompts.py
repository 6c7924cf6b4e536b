"""The demo's prompts: rows with a subject and a split, and files of each split for `sample`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import Any

from likelier.data.faults import Fault
from likelier.data.files import raw_rows
from likelier.data.output import JsonLines
from likelier.data.records import Content
from likelier.errors import DataError

SPLITS = ("train", "held-out")


@dataclass(frozen=True, slots=True)
class DemoPrompt:
    """A row of a prompts file."""

    id: str
    subject: str
    split: str
    prompt: Content


def read_demo_prompts(path: Path | None) -> dict[str, list[DemoPrompt]]:
    """The prompts of each split, from `path` or those that the project ships.

    Raises:
        DataError: a row without prompt or split, a split without prompts, a subject in both splits.
    """
    if path is not None:
        return _by_split(_rows(path), str(path))
    with resources.as_file(resources.files("likelier.stages") / "demo_prompts.jsonl") as shipped:
        return _by_split(_rows(shipped), shipped.name)


def write_demo_prompts(path: Path, prompts: Sequence[DemoPrompt]) -> None:
    """Writes prompts as `sample` reads them."""
    with JsonLines(path) as file:
        for prompt in prompts:
            file.write({"id": prompt.id, "prompt": prompt.prompt, "subject": prompt.subject})


def last_turn(prompt: Content) -> str:
    """What a prompt asks, as one text.

    >>> last_turn([{"role": "system", "content": "Be kind."}, {"role": "user", "content": "Hi"}])
    'Hi'
    """
    return prompt if isinstance(prompt, str) else str(prompt[-1]["content"])


def _rows(path: Path) -> list[DemoPrompt]:
    rows = []
    for raw in raw_rows(str(path)):
        if isinstance(raw, Fault):
            raise DataError(str(raw))
        rows.append(_row(*raw, str(path)))
    return rows


def _row(number: int, row: Any, file: str) -> DemoPrompt:
    if not isinstance(row, dict):
        raise DataError(f"{file}, row {number}: not a JSON object")
    prompt, split = row.get("prompt"), row.get("split")
    if not prompt or not isinstance(prompt, str | list):
        raise DataError(f"{file}, row {number}: `prompt` must be text or a list of messages")
    if split not in SPLITS:
        raise DataError(f'{file}, row {number}: `split` must be "train" or "held-out", not {split!r}')
    return DemoPrompt(str(row.get("id", number)), str(row.get("subject", "")), split, prompt)


def _by_split(rows: list[DemoPrompt], file: str) -> dict[str, list[DemoPrompt]]:
    found = {split: [row for row in rows if row.split == split] for split in SPLITS}
    for split, prompts in found.items():
        if not prompts:
            raise DataError(f'{file}: no row has `split` "{split}"; the demo needs prompts of both')
    shared = {row.subject for row in found["train"]} & {row.subject for row in found["held-out"]} - {""}
    if shared:
        raise DataError(
            f"{file}: subject {min(shared)!r} is in both splits; the gain counts on new subjects only"
        )
    return found
