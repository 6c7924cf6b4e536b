"""The folder of a demo: what is in it is not lost unless that was said."""

from __future__ import annotations

import shutil

from likelier.errors import UsageError
from likelier.stages.demo_config import DemoConfig


def check_folder(config: DemoConfig) -> None:
    """Raises `UsageError` where `out` holds something that would be lost."""
    if not config.out.exists() or (config.out.is_dir() and not any(config.out.iterdir())):
        return
    if not (config.out / "prompts-train.jsonl").is_file():
        raise UsageError(f"{config.out} holds something else than a demo: choose another --out")
    if not config.overwrite:
        raise UsageError(f"{config.out} is not empty: pass --overwrite, or choose another --out")


def make_folder(config: DemoConfig) -> None:
    """An empty folder, without what an earlier demo left."""
    if config.out.exists():
        shutil.rmtree(config.out)
    config.out.mkdir(parents=True)
