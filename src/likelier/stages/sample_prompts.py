"""The prompts of `likelier sample`: rows of any format, each prompt once, or a text file of one a line."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from likelier.data.prompts import read_prompt_records
from likelier.engines.prompts import Prompt
from likelier.stages.sample_config import SampleConfig


def read_prompts(config: SampleConfig, data: Any, say: Callable[[str], None]) -> list[Prompt]:
    """The prompts of `data`, a path or rows.

    Raises:
        DataError: rows that cannot be used, unless skipped; ids that repeat; no prompt at all.
    """
    records = read_prompt_records(
        data,
        format=config.format,
        as_messages=config.as_ == "messages",
        skip_bad_rows=config.skip_bad_rows,
        say=say,
    )
    return [Prompt(id=record.id, content=record.prompt) for record in records]
