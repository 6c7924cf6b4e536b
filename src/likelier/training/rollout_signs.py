"""Early signs of trouble in PPO: a reference that is too dear to leave, a target that the controller cannot reach."""

from __future__ import annotations

from itertools import pairwise
from statistics import median

from likelier.training.curves import LEAST_WINDOW, Curves, Sign


def dear_reference(curves: Curves, _: float) -> Sign | None:
    """A nat costs more than a deviation of the rewards: hardly any better answer is worth its distance."""
    price = curves["beta/deviations"][-LEAST_WINDOW:]
    if len(price) < LEAST_WINDOW or median(price) < 1.0:
        return None
    text = (
        f"a nat of KL costs {median(price):.2g} standard deviations of the rewards: the policy gains nothing by "
        "leaving the reference; lower --beta, or give --normalize-rewards, with which beta is in deviations"
    )
    return Sign("dear", 1, text)


def far_from_target(curves: Curves, _: float) -> Sign | None:
    """Half of the target or less and hardly growing, while beta has fallen at every step."""
    distances, betas, targets = (curves[name] for name in ("kl", "beta", "kl/target"))
    if not targets or len(distances) < 2 * LEAST_WINDOW:
        return None
    before, now = median(distances[-2 * LEAST_WINDOW : -LEAST_WINDOW]), median(distances[-LEAST_WINDOW:])
    falling = all(later < earlier for earlier, later in pairwise(betas))
    if not falling or now > targets[-1] / 2 or now > 1.5 * before > 0:
        return None
    text = (
        f"--target-kl {targets[-1]:g} is far: {now:.2g} nats after {len(betas)} steps in which beta fell from "
        f"{betas[0]:.3g} to {betas[-1]:.3g}; raise --kl-gain, begin with a smaller --beta, or take more steps"
    )
    return Sign("target", 1, text)
