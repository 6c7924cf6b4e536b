"""A step of `likelier ppo`: the policy gradient in expectation, a second implementation, and any packing."""

from __future__ import annotations

import itertools
from typing import Any

import pytest
import torch
from torch import Tensor

import likelier
from likelier.engines.sampling import SampledCompletion
from likelier.objectives.moments import Moments
from likelier.scoring.distribution import TokenFigures
from likelier.training import policy_gradient
from likelier.training.credit import Carried, credit
from likelier.training.ppo_config import PpoConfig
from likelier.training.rollouts import Rollout
from likelier.training.surrogate import token_losses
from tests.training.support import model_of, weights_of
from tests.training.test_second_implementation import Sgd

END, LETTERS, LONGEST = 0, (1, 2), 2
SEQUENCES = [(END,)] + [(a, b) for a in LETTERS for b in (END, *LETTERS)]
"""Every answer of a small world: it ends by itself, or is cut after two tokens."""
PREFIXES = [(), (1,), (2,)]


class Table:
    """A policy with one logit per prefix and token; the reference and a reward beside it."""

    def __init__(self, seed: int) -> None:
        generator = torch.Generator().manual_seed(seed)

        def numbers(*shape: int) -> Tensor:
            return torch.randn(*shape, generator=generator, dtype=torch.float64)

        self.logits = numbers(len(PREFIXES), 3).requires_grad_()
        self.reference = numbers(len(PREFIXES), 3)
        self.rewards = dict(zip(SEQUENCES, numbers(len(SEQUENCES)).tolist(), strict=True))
        self.values = numbers(len(PREFIXES))

    @staticmethod
    def prefixes(answer: tuple[int, ...]) -> list[int]:
        return [PREFIXES.index(answer[:place]) for place in range(len(answer))]

    def tokens(self, logits: Tensor, answer: tuple[int, ...]) -> Tensor:
        return logits.log_softmax(-1)[self.prefixes(answer), list(answer)]

    def objective(self, beta: float) -> Tensor:
        """math.md (4) by enumeration."""
        total = torch.zeros((), dtype=torch.float64)
        for answer in SEQUENCES:
            logp, held = self.tokens(self.logits, answer).sum(), self.tokens(self.reference, answer).sum()
            total = total + logp.exp() * (self.rewards[answer] - beta * (logp - held).detach())
        return total

    def rollout(self, answers: tuple[tuple[int, ...], ...], *, values: bool) -> Rollout:
        logps = torch.cat([self.tokens(self.logits, answer) for answer in answers]).detach()
        states = [state for answer in answers for state in self.prefixes(answer)]
        return Rollout(
            prompts=["x"] * len(answers),
            answers=[
                SampledCompletion(text="", tokens=list(answer), logp=0.0, finish="stop") for answer in answers
            ],
            rewards=torch.tensor([self.rewards[answer] for answer in answers], dtype=torch.float64),
            parts=[],
            logps=logps,
            reference_logps=torch.cat([self.tokens(self.reference, answer) for answer in answers]),
            entropies=torch.zeros_like(logps),
            values=self.values[states] if values else None,
        )

    def estimate(self, answers: tuple[tuple[int, ...], ...], config: PpoConfig) -> Tensor:
        """The gradient of J as these answers show it: the step's, per answer instead of per token."""
        rollout = self.rollout(answers, values=config.advantage == "gae")
        found = credit(rollout, config, Carried(config.beta, Moments()))
        now = TokenFigures(
            torch.cat([self.tokens(self.logits, answer) for answer in answers]),
            torch.zeros_like(rollout.logps),
            rollout.values,
        )
        losses = token_losses(now, rollout, found, [slice(0, len(rollout.logps))], config)
        (gradient,) = torch.autograd.grad(losses.total / len(answers), self.logits)
        return -gradient


def config_of(**settings: Any) -> PpoConfig:
    """Advantages as they are, unless told."""
    return PpoConfig.build(
        {"prompts": "-", "reward": "length", "normalize_advantages": False, "beta": 0.3, **settings}
    )


@pytest.mark.parametrize(
    "settings",
    [
        {"advantage": "rloo", "n": 2},
        {"advantage": "gae", "n": 1, "gae_lambda": 1.0},
        {"advantage": "gae", "n": 2, "gae_lambda": 1.0},
    ],
)
@pytest.mark.parametrize("seed", [0, 1])
def test_over_all_answers_the_estimate_is_the_gradient_of_math_4(settings: dict[str, Any], seed: int) -> None:
    """Whatever the value says: a baseline that does not see the token moves no mean."""
    table, config = Table(seed), config_of(**settings)
    (wanted,) = torch.autograd.grad(table.objective(config.beta), table.logits)
    mean = torch.zeros_like(wanted)
    for answers in itertools.product(SEQUENCES, repeat=config.n):
        chance = torch.cat([table.tokens(table.logits, answer) for answer in answers]).sum().exp().detach()
        mean += chance * table.estimate(answers, config)
    torch.testing.assert_close(mean, wanted, rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("advantage", ["rloo", "grpo"])
def test_at_the_optimum_nothing_moves(advantage: str) -> None:
    """Where π ∝ π_ref exp(r/β) all totals are β log Z: every group's estimate is 0, not only their mean."""
    table, config = Table(0), config_of(advantage=advantage, n=3)
    held = torch.stack([table.tokens(table.reference, answer).sum() for answer in SEQUENCES])
    rewards = torch.tensor([table.rewards[answer] for answer in SEQUENCES], dtype=torch.float64)
    optimum = (held + rewards / config.beta).softmax(0)
    with torch.no_grad():
        for number, prefix in enumerate(PREFIXES):
            for token in (END, *LETTERS):
                start = (*prefix, token)
                below = [place for place, a in enumerate(SEQUENCES) if a[: len(start)] == start]
                table.logits[number, token] = optimum[below].sum().log()
    for answers in itertools.product(SEQUENCES[:4], repeat=3):
        assert float(table.estimate(answers, config).abs().max()) < 1e-8


def letters(_: Any, completion: str) -> float:
    """A reward that tells answers apart."""
    return len(completion) % 5 - 0.3 * completion.count("e")


PROMPTS = [{"id": f"p{n}", "prompt": text} for n, text in enumerate(["the cat", "rain", "a good", "what is"])]
SETTINGS: dict[str, Any] = {
    "precision": "float64",
    "learning_rate": 3e-3,
    "warmup_steps": 0,
    "batch_size": 6,
    "n": 3,
    "max_new_tokens": 5,
    "rollout_epochs": 2,
    "beta": 0.2,
    "clip": 0.5,
}


class Plain:
    """The same run by plain transformers: unpadded rows, loops over tokens, and nothing of the package's."""

    def __init__(self, model: Any, start: Any, settings: dict[str, Any]) -> None:
        self.model, self.start, self.settings = model, start, settings
        self.learned = settings["advantage"] == "gae"
        self.value = torch.zeros(model.config.hidden_size + 1, dtype=torch.float64, requires_grad=True)
        extra = [self.value] if self.learned else []
        self.parameters = [*model.parameters(), *extra]
        # The last entry is the head's bias: an optimiser of AdamW's kind works entry by entry.
        self.updates = Sgd("adamw", list(model.parameters()))
        self.value_updates = Sgd("adamw", extra)

    def read(self, model: Any, prompt: list[int], answer: list[int]) -> tuple[Tensor, Tensor, Tensor]:
        """Log-probs, entropies and values of an answer's tokens."""
        out = model(input_ids=torch.tensor([prompt + answer]), use_cache=False, output_hidden_states=True)
        places = slice(len(prompt) - 1, len(prompt) + len(answer) - 1)
        logps = out.logits[0, places].log_softmax(-1)
        states = out.hidden_states[-1][0, places]
        values = states @ self.value[:-1] + self.value[-1]
        return logps[range(len(answer)), answer], -(logps.exp() * logps).sum(1), values

    def step(self, drawn: list[tuple[str, list[int], list[int], float]]) -> None:
        """`drawn`: (prompt's id, prompt, answer, reward), three answers to a prompt, in order."""
        settings = self.settings
        with torch.no_grad():
            old = [self.read(self.model, prompt, answer) for _, prompt, answer, _ in drawn]
            held = [self.read(self.start, prompt, answer)[0] for _, prompt, answer, _ in drawn]
        advantages, returns = [], []
        for number, (_, _, answer, reward) in enumerate(drawn):
            ratios = (old[number][0] - held[number]).tolist()
            if not self.learned:
                group = range(number // 3 * 3, number // 3 * 3 + 3)
                totals = {
                    i: drawn[i][3] - settings["beta"] * float((old[i][0] - held[i]).sum()) for i in group
                }
                others = [total for i, total in totals.items() if i != number]
                advantages.append([totals[number] - sum(others) / 2] * len(answer))
                continue
            values = [*old[number][2].tolist(), 0.0]
            rewards = [-settings["beta"] * ratio for ratio in ratios]
            rewards[-1] += reward
            found, later = [], 0.0
            for place in reversed(range(len(answer))):
                later = rewards[place] + values[place + 1] - values[place] + 0.95 * later
                found.insert(0, later)
            advantages.append(found)
            returns.append([a + v for a, v in zip(found, values, strict=False)])
        flat = torch.tensor([a for own in advantages for a in own], dtype=torch.float64)
        mean, deviation = flat.mean(), flat.std(correction=0)
        for _ in range(settings["rollout_epochs"]):
            loss = torch.zeros((), dtype=torch.float64)
            for number, (_, prompt, answer, _) in enumerate(drawn):
                logps, entropies, values = self.read(self.model, prompt, answer)
                for place in range(len(answer)):
                    a = (advantages[number][place] - mean) / deviation
                    ratio = (logps[place] - old[number][0][place]).exp()
                    loss = loss - torch.minimum(ratio * a, ratio.clamp(0.8, 1.2) * a)
                    loss = loss - settings.get("entropy_weight", 0.0) * entropies[place]
                    if self.learned:
                        before, target = old[number][2][place], returns[number][place]
                        near = before + (values[place] - before).clamp(-0.2, 0.2)
                        worse = torch.maximum((values[place] - target) ** 2, (near - target) ** 2)
                        loss = loss + 0.1 * 0.5 * worse
            loss = loss / sum(len(answer) for _, _, answer, _ in drawn)
            gradients = list(torch.autograd.grad(loss, self.parameters, allow_unused=True))
            gradients = [
                torch.zeros_like(p) if g is None else g
                for g, p in zip(gradients, self.parameters, strict=True)
            ]
            norm = float(sum(g.square().sum() for g in gradients)) ** 0.5
            clipped = [g * min(1.0, settings["clip"] / norm) for g in gradients]
            of_policy = len(self.updates.parameters)
            self.updates.update(clipped[:of_policy], SETTINGS["learning_rate"])
            if self.learned:
                self.value_updates.update(clipped[of_policy:], settings["value_learning_rate"])


def drawn_by(monkeypatch: pytest.MonkeyPatch) -> list[list[tuple[str, list[int], list[int], float]]]:
    """What each rollout of a run holds."""
    found: list[list[tuple[str, list[int], list[int], float]]] = []
    draw = policy_gradient.draw_rollout

    def noting(*args: Any, **kwargs: Any) -> Rollout:
        rollout = draw(*args, **kwargs)
        rows = []
        for part in rollout.parts:
            trunk = part.nodes[0].tokens.tolist()
            rows += [(part.id, trunk, part.nodes[node].tokens.tolist()) for node in part.branches]
        found.append([(*row, reward) for row, reward in zip(rows, rollout.rewards.tolist(), strict=True)])
        return rollout

    monkeypatch.setattr(policy_gradient, "draw_rollout", noting)
    return found


@pytest.mark.parametrize(
    "more",
    [
        {"advantage": "gae", "value_learning_rate": 0.02},
        {"advantage": "rloo"},
        {"advantage": "gae", "value_learning_rate": 1e-4, "entropy_weight": 0.05},
    ],
)
def test_a_run_is_a_plain_loop(more: dict[str, Any], tokenizer: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    drawn = drawn_by(monkeypatch)
    model = model_of(tokenizer, "gpt2")
    run = likelier.ppo(model, PROMPTS, letters, tokenizer=tokenizer, max_steps=2, **SETTINGS, **more)
    assert [len(rollout) for rollout in drawn] == [6, 6]
    other, start = model_of(tokenizer, "gpt2"), model_of(tokenizer, "gpt2")
    plain = Plain(other, start, {**SETTINGS, **more})
    for rollout in drawn:
        assert all(
            reward == letters("", tokenizer.decode(strip(a, tokenizer))) for _, _, a, reward in rollout
        )
        plain.step(rollout)
    moved = difference = 0.0
    for ours, theirs, before in zip(model.parameters(), other.parameters(), start.parameters(), strict=True):
        moved += float((theirs - before).detach().square().sum())
        difference += float((ours - theirs).detach().square().sum())
    assert (difference / moved) ** 0.5 < 1e-7
    assert run.metrics[0]["kl"] == 0.0
    assert run.metrics[1]["kl"] != 0.0


def strip(answer: list[int], tokenizer: Any) -> list[int]:
    """Without the end of turn."""
    return answer[:-1] if answer[-1] == tokenizer.eos_token_id else answer


def test_a_step_does_not_depend_on_its_packs(tokenizer: Any) -> None:
    """One forward for all, one for each answer with its prompt, and minibatches of parts."""
    runs = []
    for max_tokens in (4096, 20, 11):
        model = model_of(tokenizer, "gpt2")
        run = likelier.ppo(
            *(model, PROMPTS, letters),
            tokenizer=tokenizer,
            max_tokens=max_tokens,
            minibatches=2,
            stop_kl=10.0,
            **SETTINGS,
        )
        runs.append((run, weights_of(model)))
    (first, weights), *others = runs
    for run, own in others:
        for line, expected in zip(run.metrics, first.metrics, strict=True):
            for name in (
                "loss",
                "reward/mean",
                "kl",
                "approx_kl",
                "entropy",
                "explained_variance",
                "grad_norm",
            ):
                assert line[name] == pytest.approx(expected[name], rel=1e-9, abs=1e-12), name
        for name, weight in own.items():
            # Updates of AdamW divide noise by noise where a true gradient is 0 (the bias of GPT-2's keys).
            if "c_attn.bias" not in name:
                torch.testing.assert_close(weight, weights[name], rtol=1e-6, atol=1e-8)


def test_a_rollout_that_went_far_is_left(tokenizer: Any) -> None:
    settings = {**SETTINGS, "rollout_epochs": 8, "learning_rate": 2e-2}
    whole = likelier.ppo(model_of(tokenizer), PROMPTS, letters, tokenizer=tokenizer, max_steps=1, **settings)
    left = likelier.ppo(
        *(model_of(tokenizer), PROMPTS, letters), tokenizer=tokenizer, max_steps=1, stop_kl=1e-3, **settings
    )
    assert whole.metrics[0]["updates"] == 8
    assert 1 <= left.metrics[0]["updates"] < 8


def test_the_same_step_draws_the_same_answers(tokenizer: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Noise belongs to (seed, step, prompt, answer): another step, other noise; the same run again, the same."""
    drawn = drawn_by(monkeypatch)
    for seed in (0, 0, 1):
        # A rate of almost nothing: the policy stays, so that only the noise moves answers.
        settings = {**SETTINGS, "learning_rate": 1e-12, "seed": seed, "batch_size": 12, "epochs": 2}
        likelier.ppo(model_of(tokenizer), PROMPTS, letters, tokenizer=tokenizer, **settings)
    first, again, other = ([sorted(rollout) for rollout in drawn[start : start + 2]] for start in (0, 2, 4))
    assert first == again
    assert first[0] != first[1]
    assert first[0] != other[0]
