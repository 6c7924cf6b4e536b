"""Runs the commands of one of the paper's experiments, each with `--dry-run`, against the hub that HF_ENDPOINT names.

    python -m tests.paper_driver commands.jsonl     (in the folder in which runs/ is to lie)

After a dry run that wrote nothing, what the command would have made is put in its place: answers, labels and prompts by
running it, a trained model by its start. So a file that no earlier command makes is missing for a later one.
"""

from __future__ import annotations

import json
import runpy
import shutil
import sys
from pathlib import Path
from typing import Any
from unittest import mock

import yaml

from likelier import cli
from likelier.models.sources import find_source

MAKES_FILES = ("sample", "label", "check")
FEW = ("--n", "4", "--max-new-tokens", "8")
"""Answers of a random model are no use, and take time."""
TRAINS = ("sft", "dpo", "reward", "ppo")


def tree() -> dict[str, int]:
    """Every file below the current folder, with its time."""
    return {str(path): path.stat().st_mtime_ns for path in Path().rglob("*") if path.is_file()}


def expanded(words: list[str]) -> list[str]:
    """Patterns as the shell would read them now that the folders are there."""
    return [
        found for word in words for found in (sorted(map(str, Path().glob(word))) if "*" in word else [word])
    ]


def stand_in(stage: str, config: Any) -> None:
    """A run folder with the model that it began with, as a reward model where it makes one."""
    start = find_source(config.model).path
    shutil.copytree(start, config.out / "model", symlinks=False, dirs_exist_ok=True)
    settings = {name.rstrip("_"): value for name, value in config.model_dump(mode="json").items()}
    (config.out / "config.yaml").write_text(yaml.safe_dump(settings))
    if stage == "reward":
        from transformers import AutoConfig, AutoModelForSequenceClassification

        from likelier.models.reward_model import READ_AT

        shape = AutoConfig.from_pretrained(start, num_labels=1)
        shape.update({READ_AT: "end of turn", "reward_mean": 0.0})
        AutoModelForSequenceClassification.from_config(shape).save_pretrained(config.out / "model")


def step(program: str, words: list[str], made: set[str]) -> None:
    """One command; raises `SystemExit` where it fails."""
    if program == "python":
        with mock.patch.object(sys, "argv", words):
            runpy.run_path(words[0], run_name="__main__")
        return
    stage = words[0]
    config = cli.parse(stage, words[1:])
    if stage == "report":
        missing = set(config.runs) - made  # type: ignore[attr-defined]
        if missing:
            raise SystemExit(f"no earlier command makes {sorted(missing)}")
        return
    if stage != "check":
        before = tree()
        _main([*words, "--dry-run"])
        if tree() != before:
            raise SystemExit("a dry run wrote something")
    if stage in MAKES_FILES:
        _main([*words, *FEW] if stage == "sample" else words)
    elif stage in TRAINS:
        stand_in(stage, config)
    made.add(str(getattr(config, "out", "")))


def _main(words: list[str]) -> None:
    if code := cli.main(words):
        raise SystemExit(f"exit code {code}")


def main() -> None:
    """All commands, or the first that fails."""
    made: set[str] = set()
    # How fast products are here is no part of what is checked, and takes half a second a run.
    with mock.patch("likelier.training.opening.product_rate", return_value=1e12):
        for line in Path(sys.argv[1]).read_text().splitlines():
            program, *words = json.loads(line)
            words = expanded(words)
            print("$", program, *words, file=sys.stderr, flush=True)
            try:
                step(program, words, made)
            except SystemExit as end:
                if end.code:
                    raise SystemExit(f"{program} {' '.join(words)}: {end.code}") from None
    print(json.dumps(sorted(made)))


if __name__ == "__main__":
    main()
