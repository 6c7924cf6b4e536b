"""Preferences between answers, whoever prefers: a reward, a language model as judge, or people.

    likelier label samples.jsonl --with reward --reward vader --out preferences.jsonl

Each labeller stands in a file of its own (`label_reward.py`, …); all write the design's preference rows with
`labeller`, `time` and `reason`.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from likelier.config import named
from likelier.data.output import check_out
from likelier.errors import UsageError
from likelier.manifest import as_json
from likelier.stages.label_config import LabelConfig
from likelier.stages.label_outcome import Labelled

Say = Callable[[str], None]


def label(samples: Any, *, out: str | Path | None = None, **config: Any) -> Labelled:
    """Preferences between the answers of `samples`.

    Args:
        samples: a path, rows, or a `datasets.Dataset`; rows with two answers or more each.
        out: a JSON Lines file to write as well.
        config: every other setting of `likelier label`, by name; `with_` says who prefers.

    Raises:
        UsageError, DataError, ModelError: settings, rows or models that cannot be used as given.
        WorkError: a reward that fails or is no finite number.

    >>> label([{"prompt": "Go on:", "completions": ["and so", "and so on"]}], with_="reward", reward="length").pairs
    1
    """
    values = {"samples": Path(samples if isinstance(samples, str | Path) else str(named(samples)))}
    settings = LabelConfig.build(values | ({} if out is None else {"out": Path(out)}) | config)
    if settings.with_ == "human":
        raise UsageError("--with human is a page to be opened: run `likelier label … --with human`")
    return _by_machine(settings, samples, say=lambda text: None)


def label_file(config: LabelConfig) -> Labelled:
    """The same for a file, as a step of a longer way."""
    return _by_machine(config, config.samples, say=lambda text: None)


def main(config: LabelConfig) -> int:
    """The command; its exit code is 1 where a judge failed to answer."""
    if config.with_ == "human":
        from likelier.stages.label_human import label_human

        return label_human(config)
    labelled = _by_machine(config, config.samples, say=lambda text: print(text, file=sys.stderr))
    if config.json_:
        print(as_json(labelled.result))
    elif config.out is None:
        for row in labelled.rows:
            print(json.dumps(row))
    return 1 if labelled.figures.get("failures") else 0


def _by_machine(config: LabelConfig, samples: Any, *, say: Say) -> Labelled:
    check_out(config.out, [str(config.samples)])
    # A labeller is imported where it works: a judge on a server needs no torch.
    if config.with_ == "judge":
        from likelier.stages.label_judge import label_by_judge

        return label_by_judge(config, samples, say=say)
    from likelier.stages.label_reward import label_by_reward

    return label_by_reward(config, samples, say=say)
