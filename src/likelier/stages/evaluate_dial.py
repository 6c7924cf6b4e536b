"""The β dial in an evaluation: a run's policy at other strengths than the one it was trained to, without training.

By math.md (14) the optimum at β/λ is `π_λ ∝ π_ref (π_θ/π_ref)^λ` over whole answers. Three ways to it, none exact:

- `mixed`: next-token logits `(1−λ) ℓ_ref + λ ℓ_θ` (`engines/mixing.py`), sampled and measured as any policy;
- `interpolated`: weights `θ_ref + λ (θ − θ_ref)`, of an adapter its scale, sampled and measured as any policy;
- `reweighted`: the policy's own answers, each counted by `(π_θ/π_ref)^(λ−1)` normalised over its prompt's (`π_λ` is a
  distribution for each prompt), by the jackknife: its bias falls with the cube of the number of answers. Left out where
  the effective share of the answers falls below a fifth, and without an interval of KL where they are too few for one.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
import numpy.typing as npt
import torch

from likelier.engines.kept_answers import Speaker, identified, speaker_at
from likelier.engines.mixing import plain_name, same_bits
from likelier.engines.sampling import SampledPrompt
from likelier.report.frontier import Point

Floats = npt.NDArray[np.float64]
MIXED, INTERPOLATED, REWEIGHTED = "mixed", "interpolated", "reweighted"
LEAST_EFFECTIVE = 0.2
"""Share of the answers: with fewer the figure hangs on a handful of them."""
MANY = 64
"""Answers to a prompt: of more, leaving out all pairs costs much and what is left of the bias is nothing."""
MOST_UNCERTAIN = 0.25
"""Relative standard error of a prompt's mean weight: with more, intervals of KL cover less than 93 % (docs/log.md)."""


def sampled_at(strengths: Sequence[float]) -> list[float]:
    """Those that have answers of their own: at 0 and 1 they are the reference's and the policy's."""
    return [strength for strength in strengths if strength not in (0.0, 1.0)]


def dialled(
    policy: Speaker, reference: Speaker, strengths: Sequence[float]
) -> Iterator[tuple[str, float, Speaker]]:
    """`(way, strength, who answers)` of the two ways that sample; the strengths 0 and 1 are reference and policy.

    The policy's weights are others while an interpolated speaker is in use, and its own again at the end.

    Raises:
        UsageError: a reference over other tokens.
    """
    between = sampled_at(strengths)
    for strength in between:
        yield MIXED, strength, speaker_at(policy, reference, strength)
    own = moved(policy.model, reference.model)
    try:
        for strength in between:
            interpolate(policy.model, own, reference.model, strength)
            yield INTERPOLATED, strength, identified(policy.model, policy.tokenizer)
    finally:
        with torch.no_grad():
            parameters = dict(policy.model.named_parameters())
            for name, trained in own.items():
                parameters[name].copy_(trained)


def moved(model: torch.nn.Module, reference: torch.nn.Module) -> dict[str, torch.Tensor]:
    """Copies of the weights that training moved away from the reference's; of an adapter's policy its adapter alone."""
    theirs = dict(reference.named_parameters())
    return {
        name: parameter.detach().clone()
        for name, parameter in model.named_parameters()
        if (base := theirs.get(plain_name(name))) is None or not same_bits(parameter, base)
    }


@torch.no_grad()
def interpolate(
    model: torch.nn.Module, own: dict[str, torch.Tensor], reference: torch.nn.Module, strength: float
) -> None:
    """Sets `model` to `θ_ref + λ (θ − θ_ref)` in float32, rounded once; an adapter's output is scaled by λ.

    Args:
        model: changed in place.
        own: its trained weights θ, by name, where they differ from the reference's (`moved`).
        reference: with the weights θ_ref; an adapter's have no counterpart there.
        strength: λ.
    """
    theirs, parameters = dict(reference.named_parameters()), dict(model.named_parameters())
    for name, trained in own.items():
        base = theirs.get(plain_name(name))
        if base is not None:
            start = base.float()
            parameters[name].copy_(start + strength * (trained.float() - start))
        elif "lora_B" in name:
            parameters[name].copy_(strength * trained.float())


def reweighted(
    log_ratios: Sequence[Sequence[float]],
    rewards: Sequence[Sequence[float]],
    lengths: Sequence[Sequence[float]],
    strength: float,
) -> tuple[list[list[float]], list[list[float]], list[list[float]], float]:
    """Rewards, KL to the reference and lengths of `π_λ`, `[prompts][1]`, and the effective share of the answers.

    With `ℓ = log π_θ/π_ref` of answers drawn from π_θ and `w ∝ e^{(λ−1)ℓ}` summing to 1 over a prompt's answers, the
    reward is `Σ w r` and the KL `λ Σ w ℓ − log mean e^{(λ−1)ℓ}`, since `log π_λ/π_ref = λ ℓ − log Z`; both by the
    jackknife over a prompt's answers, since ratios of few are biased. The effective
    number of a prompt's n answers is `1/Σ w²`, and their effective share `(1/Σ w² − 1)/(n − 1)`, over all prompts: one
    answer is always effective, so of four a quarter would be where one has all the weight, and of one everything. One
    answer to a prompt says nothing of other strengths: its share is 0.

    Args:
        log_ratios, rewards, lengths: `[prompts][answers]`.
        strength: λ.

    >>> rewards, kl, _, effective = reweighted([[0.5, 1.5]], [[1.0, 3.0]], [[4, 4]], 1.0)
    >>> rewards, kl, effective
    ([[2.0]], [[1.0]], 1.0)
    """
    found: tuple[list[list[float]], ...] = ([], [], [])
    effective = others = 0.0
    for ratios, own, tokens in zip(log_ratios, rewards, lengths, strict=True):
        table = np.array([ratios, own], np.float64)
        reward, kl = _without_bias(table, strength)
        weights, _ = _weights(table, strength)
        found[0].append([reward])
        found[1].append([kl])
        found[2].append([float(weights @ tokens)])
        effective += float(1.0 / (weights**2).sum()) - 1.0
        others += len(ratios) - 1.0
    share = 1.0 if strength == 1.0 else effective / others if others else 0.0
    return *found, share  # type: ignore[return-value]


def uncertainty(effective: float, answers: int) -> float:
    """About the relative standard error of a prompt's mean weight, `√((1/s − 1)/n)`.

    Args:
        effective: s, as `reweighted` gives it.
        answers: n, to a prompt.

    >>> uncertainty(0.5, 4), uncertainty(0.5, 16)
    (0.5, 0.25)
    """
    return float(np.sqrt((1.0 / effective - 1.0) / answers))


def _weights(table: Floats, strength: float) -> tuple[Floats, float]:
    """Of a prompt's answers, and `log mean e^{(λ−1)ℓ}`; `table` is `[2, answers]`, log-ratios and rewards."""
    exponents = (strength - 1.0) * table[0]
    top = float(exponents.max())
    raw = np.exp(exponents - top)
    return raw / raw.sum(), top + float(np.log(raw.mean()))


def _figures(table: Floats, strength: float) -> Floats:
    """Reward and KL of a prompt, by all of its answers."""
    weights, log_mean = _weights(table, strength)
    return np.array([weights @ table[1], strength * (weights @ table[0]) - log_mean])


def _without_bias(table: Floats, strength: float) -> list[float]:
    """Reward and KL of a prompt by the jackknife of second order: the parts of the bias in 1/n and 1/n² are gone.

    `(n² θ − 2 (n−1)² θ₁ + (n−2)² θ₂) / 2`, with θ₁ and θ₂ the means over all answers but one, and all but two. Two
    answers allow the first order alone, `n θ − (n−1) θ₁`, and one none; more than `MANY` need no more than the first.
    """
    whole, n = _figures(table, strength), table.shape[1]
    if n == 1:
        return [float(value) for value in whole]
    without_one = _without_one(table, strength).mean(axis=1)
    if n == 2 or n > MANY:
        return [float(value) for value in n * whole - (n - 1) * without_one]
    without_two = _without_two(table, strength)
    found = (n**2 * whole - 2.0 * (n - 1) ** 2 * without_one + (n - 2) ** 2 * without_two) / 2.0
    return [float(value) for value in found]


def _without_one(table: Floats, strength: float) -> Floats:
    """Reward and KL without each answer in turn, `[2, answers]`."""
    weights, log_mean = _weights(table, strength)
    largest, n = int(weights.argmax()), len(weights)
    rest = 1.0 - weights
    rest[largest] = 1.0  # without it what is left may be nothing but rounding: it is taken anew below
    ratios, rewards = ((values @ weights - values * weights) / rest for values in table)
    found = np.array([rewards, strength * ratios - log_mean - np.log(rest * n / (n - 1))])
    found[:, largest] = _figures(np.delete(table, largest, axis=1), strength)
    return found


def _without_two(table: Floats, strength: float) -> Floats:
    """Reward and KL, means over all pairs that are left out, `[2]`; pairs with the largest weight are taken anew."""
    weights, log_mean = _weights(table, strength)
    largest, n = int(weights.argmax()), len(weights)
    one, other = (np.delete(np.arange(n), largest)[index] for index in np.triu_indices(n - 1, 1))
    rest = 1.0 - weights[one] - weights[other]
    parts = table * weights
    ratios, rewards = (parts.sum(axis=1)[:, None] - parts[:, one] - parts[:, other]) / rest
    found = np.array([rewards, strength * ratios - log_mean - np.log(rest * n / (n - 2))])
    with_largest = _without_one(np.delete(table, largest, axis=1), strength)
    means: Floats = np.concatenate([found, with_largest], axis=1).mean(axis=1)
    return means


def reweighted_points(
    run: str,
    sampled: Sequence[SampledPrompt],
    *,
    log_ratios: Sequence[Sequence[float]],
    kl: Sequence[Sequence[float]],
    rewards: Sequence[Sequence[float]],
    strengths: Sequence[float],
) -> tuple[list[Point], list[str]]:
    """A point for each strength from the policy's one set of answers, and what was left out.

    A shift of a prompt's log-ratios by c moves the KL at every strength by c, `λc − (λ−1)c`: so by how much their mean
    lies beside the policy's KL as the evaluation estimates it, with less noise, the KL at all strengths is put right.

    Args:
        sampled: the policy's answers.
        log_ratios, kl, rewards: `[prompts][answers]`; `kl` as the evaluation estimates the policy's.
        strengths: λ; 0 is the reference.
    """
    beside = [float(np.mean(better) - np.mean(ratios)) for better, ratios in zip(kl, log_ratios, strict=True)]
    lengths = [[len(answer.tokens) for answer in prompt.completions] for prompt in sampled]
    cut = [[float(answer.finish == "length") for answer in prompt.completions] for prompt in sampled]
    points, left_out = [], []
    for strength in strengths:
        if strength == 0.0:
            continue
        own, distances, tokens, effective = reweighted(log_ratios, rewards, lengths, strength)
        if effective < LEAST_EFFECTIVE:
            left_out.append(
                f"{run}, {REWEIGHTED}, λ = {strength:g}: left out, {effective:.0%} of the answers are effective"
            )
            continue
        ended = reweighted(log_ratios, rewards, cut, strength)[2]
        rough = uncertainty(effective, len(cut[0])) > MOST_UNCERTAIN
        if rough:
            left_out.append(
                f"{run}, {REWEIGHTED}, λ = {strength:g}: KL without an interval, {len(cut[0])} answers to a prompt of"
                f" which {effective:.0%} are effective are too few for one; give a larger --n"
            )
        points.append(
            Point(
                run=f"{run}, {REWEIGHTED}",
                setting=f"λ = {strength:g}, {effective:.0%} effective",
                step=None,
                rewards=own,
                kl=[[one[0] + shift] for one, shift in zip(distances, beside, strict=True)],
                kl_is="rough estimate" if rough else "estimate",
                lengths=tokens,
                cut=sum(one[0] for one in ended) * len(cut[0]),
                compute={},
            )
        )
    return points, left_out
