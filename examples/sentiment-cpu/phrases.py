"""How the experiment's figures are said: with their intervals, how surely, and how they compare with the paper's."""

from __future__ import annotations

from typing import Literal

from findings import Both
from seeds import BEFORE, BEST_OF

from likelier.report.page import interval, number
from likelier.report.page import signed as signed_number
from likelier.stats import Estimate

NAMES = {
    "dpo": "DPO",
    "ppo": "PPO",
    "ppo-gt": "PPO-GT",
    "unlikelihood": "unlikelihood",
    "preferred-ft": "Preferred-FT",
    BEST_OF: "best-of-N",
    BEFORE: "the model before training",
}
Sign = Literal[-1, 0, 1, None]


def sign(one: Estimate) -> Sign:
    """On which side of 0 an interval lies: 0 where it holds 0, None where there is none.

    >>> sign(Estimate(value=0.2, low=0.1, high=0.3, n=9, clusters=9)), sign(Estimate(value=0.2, n=1, clusters=1))
    (1, None)
    """
    if one.interval is None:
        return None
    return 0 if not one.excludes(0.0) else (1 if one.value > 0 else -1)


def sureness(figure: Both) -> str:
    """What the two intervals allow to be said of a difference."""
    prompts, seeds = sign(figure.over_prompts), sign(figure.over_seeds)
    if seeds is None:
        return ("significant over prompts" if prompts else "not significant over prompts") + (
            "; one seed says nothing of others"
        )
    if prompts and seeds:
        return "significant over prompts and over seeds"
    if prompts:
        return "significant over prompts, not significant over seeds"
    return "not significant over prompts, significant over seeds" if seeds else "not significant"


def beside_the_paper(figure: Both, claim: str) -> str:
    """How a difference, positive in the paper, compares with it."""
    prompts, seeds = sign(figure.over_prompts), sign(figure.over_seeds)
    if prompts == 1:
        settled = "" if seeds == 1 else ", which these seeds do not settle"
        return f"The same direction as in the paper ({claim}){settled}."
    if prompts == -1:
        settled = "" if seeds == -1 else ", though these seeds do not settle it"
        return f"**This differs from the paper** ({claim}): here it is the other way round{settled}."
    return f"The paper's difference ({claim}) is not shown here."


def told(one: Estimate, *, scale: float = 1.0, digits: int = 2, signed: bool = False) -> str:
    """A figure and its interval, without its n: `+0.20 [0.10, 0.30]`."""
    if scale != 1.0:
        one = one.scaled(scale)
    value = (signed_number if signed else number)(one.value, digits)
    return f"{value} {interval(one, digits)}" if one.interval else f"{value} (no interval)"


def told_both(figure: Both, *, scale: float = 1.0, digits: int = 2) -> str:
    """A difference with both intervals, and what they allow to be said."""
    over_seeds = figure.over_seeds.scaled(scale)
    seeds = f", over seeds {interval(over_seeds, digits)}" if over_seeds.interval else ""
    over_prompts = told(figure.over_prompts, scale=scale, digits=digits, signed=True)
    return f"{over_prompts} over prompts{seeds}: {sureness(figure)}"
