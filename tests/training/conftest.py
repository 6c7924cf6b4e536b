"""Every test has a cache of reference log-probs of its own: none is right because another came first."""

from __future__ import annotations

from pathlib import Path

import pytest


@pytest.fixture(autouse=True)
def own_cache(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path_factory.mktemp("logps")
    monkeypatch.setenv("LIKELIER_CACHE", str(folder))
    return folder


@pytest.fixture(autouse=True)
def no_timing(monkeypatch: pytest.MonkeyPatch) -> None:
    """The machine's rate, timed for half a second before every run, is tested beside its function."""
    from likelier.training import opening

    monkeypatch.setattr(opening, "product_rate", lambda *_, **__: 1e9)
