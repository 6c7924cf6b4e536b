"""Early signs of trouble, in words: what a practised eye reads off the curves of a run.

Each rule looks at windows, never at one step: a change counts when it is far outside the noise of its curve
and large enough to matter, in both of the last two windows. What was said is said again only once it is
materially worse.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from math import log
from statistics import fmean, median
from typing import Any

from likelier.training.curves import LEAST_WINDOW, Curves, Sign, change, twice
from likelier.training.rollout_signs import dear_reference, far_from_target

_STUCK = 10
"""Steps after the first without any margin."""
_CLIPPED = 50
"""Updates in a row that were clipped."""
_FALL = 0.05
"""Of a reward, from which on a fall is spoken of: half a nat at β = 0.1."""


class Signs:
    """Reads metrics lines and says once, in a sentence, what is going wrong.

    Args:
        clip: the gradient norm that updates are clipped at; 0 is no clipping.
        likelihoods: whether rewards are of log-probs, so that one that falls means an answer that grows less likely.
        descends: whether the loss of a step can be held against that of the first.

    A resumed run hands the lines before its checkpoint through `look` and drops the answers.

    >>> signs = Signs()
    >>> still = {"loss": 0.693, "rewards/margins": 0.0, "rewards/accuracies": 0.5}
    >>> sum((signs.look({"step": step, **still}) for step in range(30)), [])[0].split(":")[0]
    'the policy has not moved in 10 steps'
    """

    def __init__(self, *, clip: float = 0.0, likelihoods: bool = True, descends: bool = True) -> None:
        self.clip = clip
        left_out = ([] if likelihoods else [_displacement]) + ([] if descends else [_rising_loss])
        self._rules = [rule for rule in _RULES if rule not in left_out]
        self._curves = Curves()
        self._said: dict[str, int] = {}

    def look(self, metrics: Mapping[str, Any]) -> list[str]:
        """New warnings, given a line of a step, an evaluation (`eval/…`) or samples (`samples/…`)."""
        self._curves.add(metrics)
        new = []
        for rule in self._rules:
            sign = rule(self._curves, self.clip)
            if sign is not None and sign.level > self._said.get(sign.kind, 0):
                self._said[sign.kind] = sign.level
                new.append(sign.text)
        return new


def _displacement(curves: Curves, _: float) -> Sign | None:
    """Chosen answers less likely than at the start; rewards are log-ratios, so the data's mixture cancels."""
    held_out = [curves["eval/rewards/chosen"], curves["eval/rewards/rejected"]]
    fell = twice(held_out[0], lambda value, first: value - first, below=-_FALL)
    if fell is not None and held_out[1]:
        return _displaced(*(curve[-1] - curve[0] for curve in held_out), where="held-out ")
    chosen, rejected, margins = (curves[f"rewards/{name}"] for name in ("chosen", "rejected", "margins"))
    at_start = 0.0 if chosen and rejected and chosen[0] == rejected[0] == 0.0 else None
    moved, others, margin = (change(curve, start=at_start) for curve in (chosen, rejected, margins))
    if moved is None or others is None or margin is None:
        return None
    # While the margin's noise is as large as the fall, nothing can be said of the two together.
    if moved.certain and moved.by < -_FALL and 2 * margin.noise < -moved.by:
        return _displaced(moved.by, others.by)
    return None


def _displaced(chosen: float, rejected: float, *, where: str = "") -> Sign | None:
    """What a fall of the chosen answers' reward means beside the change of the rejected ones'."""
    gained = chosen - rejected
    moved = f"rewards moved by {chosen:+.3g} (chosen) and {rejected:+.3g} (rejected)"
    if gained <= -0.1 * chosen:
        text = (
            f"the {where}chosen answers become less likely and the rejected ones hardly faster: {moved}; "
            "this is not learning the preference: look at the labels, or lower --learning-rate"
        )
        return Sign("displacement", 3, text)
    if gained < -chosen:
        text = (
            f"the {where}chosen answers lose more than the margin gains: {moved}; that the rejected ones "
            "fall faster is the aim, but most of this probability goes to answers that nobody preferred; "
            "lower --learning-rate, raise --beta, or add --sft-weight"
        )
        return Sign("displacement", 2, text)
    if gained < -10 * chosen:
        text = (
            f"the {where}chosen answers become less likely, the rejected ones faster: {moved}; common with "
            "DPO and no harm by itself while held-out accuracy rises and samples read well "
            "(--sample-prompts); --sft-weight holds the chosen ones up"
        )
        return Sign("displacement", 1, text)
    return None


def _overfitting(curves: Curves, _: float) -> Sign | None:
    """Held-out accuracy down from its best in the last two evaluations, training's up since then."""
    name = "eval/rewards/accuracies"
    values = curves[name]
    if len(values) < 3:
        return None
    best = max(range(len(values) - 2), key=values.__getitem__)
    now = max(values[-2:])
    pairs = curves["eval/pairs"]
    # The rows are the same each time; two standard deviations of one accuracy are a cautious bound on chance.
    chance = 2 * (values[best] * (1 - values[best]) / pairs[-1]) ** 0.5 if pairs else 0.05
    if values[best] - now <= max(0.02, chance):
        return None
    then, since = _around(curves, "rewards/accuracies", curves.steps(name)[best])
    if not then or fmean(since) <= fmean(then):
        return None
    text = (
        f"held-out accuracy fell from {values[best]:.3f} (step {curves.steps(name)[best]:.0f}) to "
        f"{values[-1]:.3f} while training's rose from {fmean(then):.3f} to {fmean(since):.3f}: the pairs are "
        "being memorised; keep the better model (--keep-best eval/loss, --patience), or train fewer epochs"
    )
    return Sign("overfitting", int((values[best] - now) / 0.05) + 1, text)


def _memorising(curves: Curves, _: float) -> Sign | None:
    """Held-out loss per token up from its best in the last two evaluations, training's down since then."""
    values = curves["eval/loss"]
    if len(values) < 3 or not curves["eval/perplexity"]:
        return None
    best = min(range(len(values) - 2), key=values.__getitem__)
    now = min(values[-2:])
    # The rows are the same each time: what moves is the model, not chance.
    if now - values[best] <= max(0.02, 0.02 * values[best]):
        return None
    then, since = _around(curves, "loss", curves.steps("eval/loss")[best])
    if not then or fmean(since) >= fmean(then):
        return None
    text = (
        f"held-out loss rose from {values[best]:.3f} (step {curves.steps('eval/loss')[best]:.0f}) to {values[-1]:.3f} "
        f"while training's fell from {fmean(then):.3f} to {fmean(since):.3f}: the answers are being memorised; keep "
        "the better model (--keep-best eval/loss, --patience), or train fewer epochs"
    )
    return Sign("memorising", int((now - values[best]) / (0.1 * values[best])) + 1, text)


def _around(curves: Curves, name: str, step: float) -> tuple[Sequence[float], Sequence[float]]:
    """A curve's window before `step`, and its last one, of one size; the first is empty where nothing is there."""
    values, until = curves[name], curves.before(name, step)
    size = max(1, min(LEAST_WINDOW, len(until), len(values) - len(until)))
    return until[-size:], values[-size:]


def _stuck(curves: Curves, _: float) -> Sign | None:
    """Every margin exactly 0 after the first step: the policy is still the reference."""
    margins, accuracies = curves["rewards/margins"][1:], curves["rewards/accuracies"][1:]
    recent = (*margins[-_STUCK:], *(value - 0.5 for value in accuracies[-_STUCK:]))
    if len(margins) < _STUCK or any(recent):
        return None
    text = (
        f"the policy has not moved in {_STUCK} steps: every margin is exactly 0 and accuracy 0.5; raise "
        "--learning-rate, shorten --warmup-steps, or see whether any weight is trained"
    )
    return Sign("stuck", 1, text)


def _rising_loss(curves: Curves, _: float) -> Sign | None:
    found = change(curves["loss"])
    if found is None or not found.certain or found.by <= 0.05 * abs(found.start):
        return None
    text = (
        f"training loss rises: from {found.start:.3g} to {found.now:.3g}; the learning rate is too high for "
        "this data: lower --learning-rate or lengthen --warmup-steps"
    )
    return Sign("loss", 1 if found.now < 2 * abs(found.start) else 2, text)


def _gradients(curves: Curves, clip: float) -> Sign | None:
    norms = curves["grad_norm"]
    if len(norms) < _CLIPPED:
        return None
    early, late = median(norms[: _CLIPPED // 2]), median(norms[-_CLIPPED // 2 :])
    if late > 10 * early > 0:
        text = (
            f"gradient norms grew from about {early:.3g} to {late:.3g}: training is becoming unstable; lower "
            "--learning-rate" + ("" if clip else " or set --clip")
        )
        return Sign("gradients", 2, text)
    if 0 < clip < min(norms[-_CLIPPED:]):
        typical = median(norms[-_CLIPPED:])
        text = (
            f"all of the last {_CLIPPED} updates were clipped: gradient norms are about {typical:.3g}, "
            f"--clip is {clip:g}; a step then says only in which direction, which is no harm with AdamW, "
            f"but if clipping was meant for outliers set --clip near {2 * typical:.2g}"
        )
        return Sign("gradients", 1, text)
    return None


def _longer(curves: Curves, _: float) -> Sign | None:
    lengths = curves["samples/length"]
    ratio = twice(lengths, lambda value, first: value / max(first, 1.0), above=1.5)
    if ratio is None or lengths[-1] - lengths[0] < 8:
        return None
    text = (
        f"answers grow: {lengths[-1]:.0f} tokens where they had {lengths[0]:.0f}; if the data's longer "
        "answers are the chosen ones (`likelier check` counts it) the policy may be learning length alone"
    )
    return Sign("length", int(log(ratio, 1.5)), text)


def _repeating(curves: Curves, _: float) -> Sign | None:
    values = curves["samples/repetition"]
    more = twice(values, lambda value, first: value - first, above=0.15)
    if more is None:
        return None
    text = (
        f"answers repeat themselves: {values[-1]:.0%} of their 3-grams came before, {values[0]:.0%} at the "
        "start; the policy has gone too far: lower --learning-rate, raise --beta, or stop earlier"
    )
    return Sign("repetition", int(more / 0.15), text)


def _endless(curves: Curves, _: float) -> Sign | None:
    values = curves["samples/stop_rate"]
    fewer = twice(values, lambda value, first: value - first, below=-0.25)
    if fewer is None:
        return None
    text = (
        f"answers no longer end: {values[-1]:.0%} stop by themselves, {values[0]:.0%} did at the start; see "
        "that the training answers carry an end of turn (`likelier check`) and were not cut"
    )
    return Sign("stop", int(-fewer / 0.25), text)


_RULES: tuple[Callable[[Curves, float], Sign | None], ...] = (
    _stuck,
    _rising_loss,
    _displacement,
    _overfitting,
    _memorising,
    _gradients,
    _longer,
    _repeating,
    _endless,
    dear_reference,
    far_from_target,
)
