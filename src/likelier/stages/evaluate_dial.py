"""The β dial in an evaluation: a run's policy at other strengths than the one it was trained to, without training.

By math.md (14) the optimum at β/λ is `π_λ ∝ π_ref (π_θ/π_ref)^λ` over whole answers. Three ways to it, none exact:

- `mixed`: next-token logits `(1−λ) ℓ_ref + λ ℓ_θ` (`engines/mixing.py`), sampled and measured as any policy;
- `interpolated`: weights `θ_ref + λ (θ − θ_ref)`, of an adapter its scale, sampled and measured as any policy;
- `reweighted`: the policy's own answers, each counted by `(π_θ/π_ref)^(λ−1)` normalised over its prompt's (`π_λ` is a
  distribution for each prompt): consistent in the number of answers, biased in few. Left out where the effective number
  of answers falls below a fifth.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
import numpy.typing as npt
import torch

from likelier.data.canonical import digest
from likelier.engines.kept_answers import Speaker, identified
from likelier.engines.mixing import at_strength, plain_name
from likelier.engines.sampling import SampledPrompt
from likelier.report.frontier import Point

Floats = npt.NDArray[np.float64]
MIXED, INTERPOLATED, REWEIGHTED = "mixed", "interpolated", "reweighted"
LEAST_EFFECTIVE = 0.2
"""Share of the answers: with fewer the figure hangs on a handful of them."""


def dialled(
    policy: Speaker, reference: Speaker, strengths: Sequence[float]
) -> Iterator[tuple[str, float, Speaker]]:
    """`(way, strength, who answers)` of the two ways that sample; the strengths 0 and 1 are reference and policy.

    The policy's weights are others while an interpolated speaker is in use, and its own again at the end.

    Raises:
        UsageError: a reference over other tokens.
    """
    between = [strength for strength in strengths if strength not in (0.0, 1.0)]
    for strength in between:
        model = at_strength(policy.model, reference.model, strength)
        identity = digest([MIXED, policy.identity, reference.identity, strength], size=32).hex()
        yield MIXED, strength, Speaker(model, policy.tokenizer, identity)
    own = {name: parameter.detach().clone() for name, parameter in policy.model.named_parameters()}
    try:
        for strength in between:
            interpolate(policy.model, own, reference.model, strength)
            yield INTERPOLATED, strength, identified(policy.model, policy.tokenizer)
    finally:
        with torch.no_grad():
            for name, parameter in policy.model.named_parameters():
                parameter.copy_(own[name])


@torch.no_grad()
def interpolate(
    model: torch.nn.Module, own: dict[str, torch.Tensor], reference: torch.nn.Module, strength: float
) -> None:
    """Sets `model` to `θ_ref + λ (θ − θ_ref)` in float32, rounded once; an adapter's output is scaled by λ.

    Args:
        model: changed in place.
        own: its trained weights θ, by name.
        reference: with the weights θ_ref; an adapter's have no counterpart there.
        strength: λ.
    """
    theirs = dict(reference.named_parameters())
    for name, parameter in model.named_parameters():
        base = theirs.get(plain_name(name))
        if base is not None:
            start = base.float()
            parameter.copy_(start + strength * (own[name].float() - start))
        elif "lora_B" in name:
            parameter.copy_(strength * own[name].float())


def reweighted(
    log_ratios: Sequence[Sequence[float]],
    rewards: Sequence[Sequence[float]],
    lengths: Sequence[Sequence[float]],
    strength: float,
) -> tuple[list[list[float]], list[list[float]], list[list[float]], float]:
    """Rewards, KL to the reference and lengths of `π_λ`, `[prompts][1]`, and the effective share of the answers.

    With `ℓ = log π_θ/π_ref` of answers drawn from π_θ and `w ∝ e^{(λ−1)ℓ}` summing to 1 over a prompt's answers, the
    reward is `Σ w r` and the KL `λ Σ w ℓ − log mean e^{(λ−1)ℓ}`, since `log π_λ/π_ref = λ ℓ − log Z`. The effective
    number of a prompt's answers is `1/Σ w²`.

    Args:
        log_ratios, rewards, lengths: `[prompts][answers]`.
        strength: λ.

    >>> rewards, kl, _, effective = reweighted([[0.5, 1.5]], [[1.0, 3.0]], [[4, 4]], 1.0)
    >>> rewards, kl, effective
    ([[2.0]], [[1.0]], 1.0)
    """
    found: tuple[list[list[float]], ...] = ([], [], [])
    effective = 0.0
    for ratios, own, tokens in zip(log_ratios, rewards, lengths, strict=True):
        exponents = (strength - 1.0) * np.asarray(ratios, np.float64)
        top = exponents.max()
        raw = np.exp(exponents - top)
        weights: Floats = raw / raw.sum()
        found[0].append([float(weights @ own)])
        found[1].append([float(strength * (weights @ ratios) - top - np.log(raw.mean()))])
        found[2].append([float(weights @ tokens)])
        effective += float(1.0 / (weights**2).sum())
    return *found, effective / sum(map(len, log_ratios))  # type: ignore[return-value]


def reweighted_points(
    run: str,
    sampled: Sequence[SampledPrompt],
    *,
    log_ratios: Sequence[Sequence[float]],
    rewards: Sequence[Sequence[float]],
    strengths: Sequence[float],
) -> tuple[list[Point], list[str]]:
    """A point for each strength from the policy's one set of answers, and which were left out."""
    lengths = [[len(answer.tokens) for answer in prompt.completions] for prompt in sampled]
    cut = [[float(answer.finish == "length") for answer in prompt.completions] for prompt in sampled]
    points, left_out = [], []
    for strength in strengths:
        if strength == 0.0:
            continue
        own, kl, tokens, effective = reweighted(log_ratios, rewards, lengths, strength)
        if effective < LEAST_EFFECTIVE:
            left_out.append(
                f"{run}, {REWEIGHTED}, λ = {strength:g}: left out, {effective:.0%} of the answers are effective"
            )
            continue
        ended = reweighted(log_ratios, cut, lengths, strength)[0]
        points.append(
            Point(
                run=f"{run}, {REWEIGHTED}",
                setting=f"λ = {strength:g}, {effective:.0%} effective",
                step=None,
                rewards=own,
                kl=kl,
                lengths=tokens,
                cut=sum(one[0] for one in ended) * len(cut[0]),
                compute={},
            )
        )
    return points, left_out
