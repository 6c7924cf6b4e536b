"""The held-out prompts of an evaluation, and the answers that stand beside them in their file."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from likelier.data.faults import Fault
from likelier.data.files import raw_rows
from likelier.data.prompts import read_prompt_records
from likelier.data.reading import split_share
from likelier.data.records import Record
from likelier.engines.prompts import Prompt
from likelier.errors import DataError
from likelier.stages.evaluate_config import EvaluateConfig


def read_prompts(config: EvaluateConfig, data: Any, *, say: Callable[[str], None]) -> list[Record]:
    """Each prompt once, in the order of the rows.

    Raises:
        DataError: rows that cannot be used, unless skipped; ids that repeat; no prompt at all.
    """
    return read_prompt_records(
        data,
        format=config.format or "prompts",
        as_messages=config.as_ == "messages",
        skip_bad_rows=config.skip_bad_rows,
        say=say,
    )


def answers_each(config: EvaluateConfig) -> int:
    """Of everybody to each prompt, unless more are drawn to choose from."""
    return config.n or (4 if config.what == "frontier" else 1)


def asked(records: Sequence[Record]) -> list[Prompt]:
    """As they are sampled for."""
    return [Prompt(id=record.id, content=record.prompt) for record in records]


def baseline_texts(data: Any, column: str, records: Sequence[Record]) -> list[str]:
    """The text in a column of each prompt's row.

    Raises:
        DataError: a row without it, or with something else than text there.

    >>> rows = [{"prompt": "2 + 2 =", "human": " 4"}]
    >>> record = Record(file="<rows>", row=1, id="1", prompt="2 + 2 =", completions=[])
    >>> baseline_texts(rows, "human", [record])
    [' 4']
    >>> baseline_texts([{"prompt": "2 + 2 =", "human": {"text": " 4", "finish": "stop"}}], "human", [record])
    [' 4']
    """
    rows = _rows(data)
    texts = []
    for record in records:
        value = rows.get(record.row, {}).get(column)
        if isinstance(value, list) and len(value) == 1 and isinstance(value[0], Mapping):
            value = value[0].get("content")  # one turn
        elif isinstance(value, Mapping):
            value = value.get("text")  # with its tokens, as `label` writes what was sampled
        if not isinstance(value, str) or not value.strip():
            what = "is empty" if isinstance(value, str) else "is missing" if value is None else "is no text"
            known = ", ".join(sorted(map(str, rows.get(record.row, {}))))
            raise DataError(
                f"{record.where}: `{column}` {what}, and it is the answer to compare with (--baseline); the row has"
                f" {known or 'no columns'}"
            )
        texts.append(value)
    return texts


def _rows(data: Any) -> dict[int, Mapping[str, Any]]:
    """The rows as they are, by number."""
    if isinstance(data, (str, Path)):
        if Path(data).suffix == ".txt":
            raise DataError(
                f"{data} holds prompts alone; --baseline needs rows with a column, as in a .jsonl file"
            )
        source = split_share(str(data))[0]
        numbered = [item for item in raw_rows(source) if not isinstance(item, Fault)]
    else:
        numbered = list(enumerate(data, start=1))
    return {number: value for number, value in numbered if isinstance(value, Mapping)}
