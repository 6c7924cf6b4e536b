"""A bar on a terminal, few plain lines elsewhere, nothing when quiet, and nothing on stdout."""

from __future__ import annotations

import io

import pytest
from rich.console import Console

from likelier.training import progress
from likelier.training.progress import Progress, figures

LINE = {
    "loss": 0.5,
    "rewards/margins": 0.25,
    "rewards/accuracies": 0.75,
    "tokens_per_second": 1200.0,
    "mfu": 0.4,
}


def run(total: int, start: int = 0, *, quiet: bool = False, terminal: bool = False) -> list[str]:
    out = io.StringIO()
    console = Console(file=out, force_terminal=terminal, width=160, soft_wrap=True, highlight=False)
    with Progress(total, start, quiet, console=console) as progress:
        for number in range(start, total):
            progress.step({"step": number + 1, **LINE})
        progress.say("something [bold]else[/bold]: /path/[x]")
    return out.getvalue().splitlines()


def test_elsewhere_at_most_twenty_plain_lines_and_always_the_last_step() -> None:
    lines = run(1000)
    assert len(lines) == 21
    assert lines[0].startswith(
        "step 50/1000  loss 0.500  margin +0.250  accuracy 0.75  1,200 tokens/s  MFU 40%"
    )
    assert lines[-2].startswith("step 1000/1000")
    assert not any("\x1b" in line for line in lines)
    assert [line.split()[1] for line in run(3)[:-1]] == ["1/3", "2/3", "3/3"]


def test_the_time_left_is_that_of_the_steps_left(monkeypatch: pytest.MonkeyPatch) -> None:
    """Ten seconds a step, by a clock of our own."""
    clock = iter(range(0, 1000, 10))
    monkeypatch.setattr(progress.time, "perf_counter", lambda: float(next(clock)))
    left = [" ".join(line.split()[-3:]) for line in run(10, 6)[:-1]]
    assert left == ["30 s left", "20 s left", "10 s left", "1 s left"]


def test_text_is_not_markup() -> None:
    assert run(1)[-1] == "something [bold]else[/bold]: /path/[x]"


def test_a_resumed_run_goes_on_counting() -> None:
    assert [line.split()[1] for line in run(10, 8)[:-1]] == ["9/10", "10/10"]


def test_quiet_says_only_what_is_said() -> None:
    assert run(100, quiet=True) == ["something [bold]else[/bold]: /path/[x]"]


def test_a_terminal_gets_a_bar_and_no_lines() -> None:
    text = "\n".join(run(40, terminal=True))
    assert "step 2/40" not in text
    assert "40/40" in text
    assert "loss 0.500" in text
    assert "something [bold]else[/bold]" in text


def test_stdout_stays_free(capsys: pytest.CaptureFixture[str]) -> None:
    with Progress(1) as progress:
        progress.step(LINE)
    captured = capsys.readouterr()
    assert captured.out == ""
    assert "step 1/1" in captured.err


def test_a_line_shows_what_it_has() -> None:
    assert figures({"loss": 0.25, "mfu": None}, left=10) == "loss 0.250  10 s left"
