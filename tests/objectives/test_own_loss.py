"""A user's own loss from end to end: `--loss module:function` in the current folder, against the table's own."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

import likelier
from likelier import cli
from likelier.errors import UsageError
from likelier.objectives import kway, stepwise
from tests.training.conftest import no_timing, own_cache
from tests.training.support import pairs, rankings, write_rows

__all__ = ["no_timing", "own_cache"]

MODULE = '''
import torch
from likelier.objectives import kway, stepwise
from torch.nn.functional import softplus

def pair(policy, reference, lengths, beta):
    """The sigmoid loss, by softplus."""
    ratio = policy - reference
    return softplus(-beta * (ratio[:, 0] - ratio[:, 1]))

def per_token(policy, reference, lengths, beta):
    """ipo, which reads the lengths."""
    ratio = (policy - reference) / lengths
    return (ratio[:, 0] - ratio[:, 1] - 1 / (2 * beta)) ** 2

@kway
def ranking(policy, reference, lengths, beta, *, mask, ranks):
    """Plackett-Luce of strict rankings: answers sorted, the log-sum-exp of what is left from the back."""
    rewards = (beta * (policy - reference)).masked_fill(~mask, -torch.inf)
    order = ranks.masked_fill(~mask, 99).argsort(dim=1)
    left = rewards.gather(1, order).flip(1).logcumsumexp(1).flip(1)
    return (left - rewards.gather(1, order)).masked_fill(~mask.gather(1, order), 0.0).sum(1)

@stepwise
def step(policy, reference, lengths, beta):
    """The hinge of all pairs but for a shift that the step has to see whole: it must know its 4 pairs."""
    assert len(policy) == 4, len(policy)
    ratio = policy - reference
    return (1 - beta * (ratio[:, 0] - ratio[:, 1])).clamp(min=0)
'''


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """The current folder, with a user's module and data in it."""
    (tmp_path / "losses_of_mine.py").write_text(MODULE, encoding="utf-8")
    write_rows(tmp_path / "pairs.jsonl", pairs(8))
    write_rows(tmp_path / "rankings.jsonl", rankings(3))
    monkeypatch.chdir(tmp_path)
    yield tmp_path
    sys.modules.pop("losses_of_mine", None)


def logged(model: Path, data: str, loss: str, *more: str) -> list[dict[str, Any]]:
    """What `likelier dpo --loss …` logs of a run of two epochs."""
    words = f"dpo --model {model} --data {data} --loss {loss} --out run-{loss.replace(':', '-')} --epochs 2"
    settings = "--learning-rate 1e-3 --precision float64 --warmup-steps 0"
    assert cli.main([*words.split(), *settings.split(), *more]) == 0
    lines = Path(f"run-{loss.replace(':', '-')}", "metrics.jsonl").read_text(encoding="utf-8").splitlines()
    return [json.loads(line) for line in lines]


@pytest.mark.parametrize(
    ("own", "ours", "data", "batch"),
    [
        ("pair", "sigmoid", "pairs.jsonl", 3),
        ("per_token", "ipo", "pairs.jsonl", 3),
        ("ranking", "plackett_luce", "rankings.jsonl", 12),
        ("step", "hinge", "pairs.jsonl", 4),
    ],
)
def test_a_module_and_function_trains_as_the_tables_loss_of_that_formula(
    own: str, ours: str, data: str, batch: int, folder: Path, tiny_llama: Path
) -> None:
    size = ("--batch-size", str(batch), "--max-tokens", "80")
    mine = logged(tiny_llama, data, f"losses_of_mine:{own}", *size)
    tables = logged(tiny_llama, data, ours, *size)
    for name in ("loss", "grad_norm", "logps/chosen"):
        assert [line[name] for line in mine] == pytest.approx([line[name] for line in tables], rel=1e-6)
    assert mine[-1]["loss"] != pytest.approx(mine[0]["loss"], rel=1e-3)


def test_a_step_wide_loss_without_its_declaration_sees_packs(folder: Path, tiny_llama: Path) -> None:
    """That the assertion in `step` can fail: undeclared, it is handed one pack at a time."""
    undeclared = MODULE.replace("@stepwise\n", "")
    (folder / "losses_of_mine.py").write_text(undeclared, encoding="utf-8")
    with pytest.raises(
        UsageError, match=r"--loss losses_of_mine:step failed with AssertionError: [123] \(--debug"
    ):
        logged(
            *(tiny_llama, "pairs.jsonl", "losses_of_mine:step", "--batch-size", "4", "--max-tokens", "80"),
            "--debug",
        )


NO_LOSSES = """
import torch
def total(policy, reference, lengths, beta):
    return policy.sum()
def number(policy, reference, lengths, beta):
    return 3
def nothing(policy, reference, lengths, beta):
    pass
def failing(policy, reference, lengths, beta):
    return {}["a"]
def silent(policy, reference, lengths, beta):
    raise NotImplementedError
def flat(policy, reference, lengths, beta):
    return policy.detach()[:, 0]
def counted(policy, reference, lengths, beta):
    return lengths[:, 0]
def unlimited(policy, reference, lengths, beta):
    return policy[:, 0] / 0
from likelier.objectives import stepwise
@stepwise
def unlimited_step(policy, reference, lengths, beta):
    return policy[:, 0] / 0
def extra(policy, reference, lengths, beta, *, tau):
    return policy[:, 0]
"""


@pytest.mark.parametrize(
    ("loss", "code", "said"),
    [
        ("total", 2, "returned (); it must return shape (3,)"),
        ("number", 2, "returned int; it must return shape (3,)"),
        ("nothing", 2, "returned NoneType; it must return shape (3,)"),
        ("failing", 2, "failed with KeyError: 'a' (--debug shows where)"),
        ("silent", 2, "failed with NotImplementedError (--debug shows where)"),
        ("flat", 2, "does not depend on the policy's log-probs"),
        ("counted", 2, "does not depend on the policy's log-probs"),
        ("unlimited", 1, "the loss is -inf in the rows"),
        ("unlimited_step", 1, "the loss is -inf in the rows"),
        ("extra", 2, "cannot be called as f(policy, reference, lengths, beta): missing a required"),
        ("extras", 2, "has no `extras`; did you mean `extra`"),
    ],
)
def test_what_is_no_loss_is_named_in_one_line(
    loss: str, code: int, said: str, folder: Path, tiny_llama: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (folder / "losses_of_mine.py").write_text(NO_LOSSES, encoding="utf-8")
    words = f"dpo --model {tiny_llama} --data pairs.jsonl --batch-size 3 --precision float32"
    assert cli.main([*words.split(), "--loss", f"losses_of_mine:{loss}"]) == code
    errors = capsys.readouterr().err
    assert said in errors.splitlines()[-1]
    assert errors.splitlines()[-1].startswith("likelier: ")
    assert "Traceback" not in errors


def test_rewards_of_a_users_loss_are_beta_times_the_log_ratio(folder: Path, tiny_llama: Path) -> None:
    mine = logged(tiny_llama, "pairs.jsonl", "losses_of_mine:pair", "--beta", "0.4")
    tables = logged(tiny_llama, "pairs.jsonl", "sigmoid", "--beta", "0.4")
    for name in ("rewards/chosen", "rewards/rejected", "rewards/accuracies"):
        assert [line[name] for line in mine] == pytest.approx([line[name] for line in tables], rel=1e-6)
    assert abs(mine[-1]["rewards/chosen"]) > 1e-4


def test_callables_of_every_kind_from_python(tiny_llama: Path) -> None:
    seen: list[tuple[str, tuple[int, ...]]] = []

    def pair(policy: Tensor, reference: Tensor, lengths: Tensor, beta: float) -> Tensor:
        seen.append(("pair", tuple(policy.shape)))
        return (reference - policy)[:, 0] * beta

    @kway
    def ranking(
        policy: Tensor, reference: Tensor, lengths: Tensor, beta: float, *, mask: Tensor, ranks: Tensor
    ) -> Tensor:
        seen.append(("kway", tuple(policy.shape)))
        assert ranks.sort(dim=1).values.tolist() == [[0, 1, 2, 3]] * len(ranks)
        assert mask.dtype == torch.bool
        return -(policy * (ranks == 0)).sum(1)

    @stepwise
    def step(policy: Tensor, reference: Tensor, lengths: Tensor, beta: float) -> Tensor:
        seen.append(("step", tuple(policy.shape)))
        return (reference - policy)[:, 0] + (lengths > 0)[:, 0].sum()

    settings: dict[str, Any] = {"precision": "float32", "max_steps": 1, "max_tokens": 80}
    likelier.dpo(tiny_llama, pairs(5), loss=pair, batch_size=5, **settings)
    likelier.dpo(tiny_llama, rankings(2), loss=ranking, batch_size=12, **settings)
    likelier.dpo(tiny_llama, pairs(5), loss=step, batch_size=5, **settings)
    assert sum(shape[0] for kind, shape in seen if kind == "pair") == 5
    assert sum(shape[0] for kind, shape in seen if kind == "kway") == 2
    assert {shape[1] for kind, shape in seen if kind == "kway"} == {4}
    assert [shape for kind, shape in seen if kind == "step"] == [(5, 2)]
