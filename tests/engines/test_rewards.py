"""Rewards by name."""

from __future__ import annotations

from pathlib import Path

import pytest

from likelier.engines.rewards import resolve_reward
from likelier.errors import UsageError, WorkError


def test_vader_scores_sentiment() -> None:
    reward = resolve_reward("vader")
    good, bad, flat = reward([""] * 3, ["What a wonderful, lovely film!", "A horrible waste.", "A chair."])
    assert 0.5 < good <= 1
    assert -1 <= bad < -0.4
    assert flat == 0.0


def test_length_counts_words() -> None:
    assert resolve_reward("length")(["", ""], ["one  two\nthree", ""]) == [3.0, 0.0]


def test_a_regular_expression_matches_or_not() -> None:
    assert resolve_reward("regex:^a:b$")(["", ""], ["a:b", "ab"]) == [1.0, 0.0]


def test_a_function_of_the_users(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "my_reward_of_words.py").write_text(
        "def shouts(prompt, completion):\n    return completion.isupper() and prompt == 'x'\n"
        "def breaks(prompt, completion):\n    return float('nan')\n"
    )
    monkeypatch.chdir(tmp_path)
    assert resolve_reward("my_reward_of_words:shouts")(["x", "x"], ["HEY", "hey"]) == [1.0, 0.0]
    with pytest.raises(WorkError, match="my_reward_of_words:breaks` gave nan for answer 0, not a finite"):
        resolve_reward("my_reward_of_words:breaks")(["x"], ["y"])
    with pytest.raises(UsageError, match="has no function `shout`; did you mean `shouts`"):
        resolve_reward("my_reward_of_words:shout")


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("vadr", "unknown reward `vadr`; did you mean `vader`"),
        ("", "unknown reward"),
        ("regex:", "unknown reward"),
        ("regex:(", "not a regular expression"),
        ("no_such_module_here:f", "no module `no_such_module_here`"),
        ("math:pi", "has no function `pi`"),
    ],
)
def test_names_that_mean_nothing(name: str, message: str) -> None:
    with pytest.raises(UsageError, match=message.replace("(", r"\(")):
        resolve_reward(name)
