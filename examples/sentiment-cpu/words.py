"""The experiment's questions, answered in sentences: what was found, how surely, and how it differs from the paper."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from experiment import DIALLED, SWEEP
from findings import FAR, PRIMARY, Both
from phrases import NAMES, beside_the_paper, sign, sureness, told, told_both
from seeds import BEST_OF

from likelier.report.page import plural

HELD = {
    "dpo": "one: the policy, whose reference is its adapter switched off",
    "ppo": "two: the policy with a value head, its reference as DPO's, and the reward model",
    "ppo-gt": "one: the policy with a value head, its reference as DPO's; the true reward is no model",
    "unlikelihood": "one: the policy; its loss reads no reference",
    "preferred-ft": "one: the policy",
    BEST_OF: "two, whenever it answers: the model before training and the reward model",
}
"""Sets of weights in memory while training; an adapter shares its base."""


def _opening(method: str) -> str:
    """A method's name as a sentence begins."""
    name = NAMES[method]
    return name[0].upper() + name[1:]


def in_short(found: Mapping[str, Any]) -> str:
    """The first answer to each question, in a line."""
    parts = []
    for method in ("ppo", "ppo-gt"):
        gap = found["areas"][method]["dpo_less_this"]["mean_height"]
        whom = f"{NAMES[method]}'s"
        parts.append(f"DPO's frontier is {_place(gap, 'above', 'below', whom)}")
    more = found["temperatures"].get("ppo", {}).get("lost_more_than_dpo")
    if more is not None:
        whom = "what DPO loses"
        parts.append(
            f"what PPO loses at higher temperatures is {_place(more, 'more than', 'less than', whom)}"
        )
    lost = found["collapsed"].values()
    parts.append(f"{sum(one['runs'] for one in lost)} of {sum(one['of'] for one in lost)} runs collapsed")
    if found["dial"] is not None:
        gap = found["dial"]["ways"][PRIMARY]["less_the_sweep"]["mean_height"]
        parts.append(f"the dial of one run is {_place(gap, 'above', 'below', 'a sweep of β')}")
    return f"In short: {'; '.join(parts)}."


def _place(figure: Both, above: str, below: str, whom: str) -> str:
    """Where a difference lies, if that can be said over prompts, and whether it can over seeds too."""
    prompts, seeds = sign(figure.over_prompts), sign(figure.over_seeds)
    if not prompts:
        return f"not shown to be {above} or {below} {whom}"
    sure = "" if seeds else " (over prompts; not significant over seeds)" if seeds == 0 else " (over prompts)"
    return f"{above if prompts > 0 else below} {whom}{sure}"


def frontiers(found: Mapping[str, Any]) -> list[str]:
    """Is DPO's frontier above the others', and by how much."""
    areas, to = found["areas"], found["to"]
    lines = [
        f"Area between the envelope and the reward before training, up to {to:g} nats: "
        + ", ".join(f"{NAMES[m]} {told(own['area'].over_prompts)}" for m, own in areas.items())
        + ".",
    ]
    for method, count in found["different"].items():
        if count["policies"] < count["settings"]:
            ends = plural(count["policies"], "different end")
            lines.append(
                f"**{_opening(method)}'s {count['settings']} settings gave {ends}** in one seed at least: their answers"
                " are the same, so what was varied made no difference there."
            )
    for method, own in areas.items():
        if method == "dpo":
            continue
        gap = own["dpo_less_this"]
        line = (
            f"DPO's reward less that of {NAMES[method]}, at equal KL, on average over {to:g} nats:"
            f" {told_both(gap['mean_height'], digits=3)}."
        )
        if method in ("ppo", "ppo-gt"):
            bands = [
                f"{told(one.over_prompts, digits=3, signed=True)} from {band} nats"
                for band, one in gap["by_band"].items()
            ]
            line += f" {', '.join(bands).capitalize()}. {_strict(gap['by_band'])} "
            line += beside_the_paper(gap["mean_height"], f"DPO's frontier strictly above {NAMES[method]}'s")
        lines.append(line)
    return lines


def _strict(bands: Mapping[str, Both]) -> str:
    """Whether one frontier is above the other everywhere, over prompts."""
    signs = {band: sign(one.over_prompts) for band, one in bands.items()}
    parts = []
    for side, where in ((1, "above"), (-1, "below")):
        here = [band for band, own in signs.items() if own == side]
        if len(here) == len(signs):
            return f"DPO's is surely {where} in every band."
        if here:
            parts.append(f"surely {where} from {' and '.join(here)} nats")
    return f"DPO's is {', '.join(parts)}." if parts else "In no band is one surely above the other."


def temperatures(found: Mapping[str, Any]) -> list[str]:
    """What happens to each at a higher sampling temperature."""
    lines = []
    for method, own in found["temperatures"].items():
        best, (_, high) = own["best"], own["ends"]
        rates = {
            at: told(own["win_rates"][at].over_prompts, scale=100, digits=1) + " %" for at in (best, high)
        }
        drop = told(own["below_the_best"][high], scale=100, digits=1)
        at_high = f"at {high} {rates[high]}, " if high != best else ""
        lines.append(
            f"{_opening(method)}: most wins at temperature {best}, {rates[best]}; {at_high}{drop} points below that."
        )
    for method in ("ppo", "ppo-gt"):
        more = found["temperatures"].get(method, {}).get("lost_more_than_dpo")
        if more is not None:
            low, high = found["temperatures"][method]["ends"]
            line = (
                f"What {NAMES[method]} loses from temperature {low} to {high}, less what DPO loses, in points:"
                f" {told_both(more, scale=100, digits=1)}."
            )
            claim = "PPO loses more than DPO at higher temperatures"
            lines.append(f"{line} {beside_the_paper(more, claim)}" if method == "ppo" else line)
    return lines


def costs(found: Mapping[str, Any]) -> list[str]:
    """What a run of each method takes, beside DPO's."""
    own, dpo = found["costs"]["ppo"], found["costs"]["dpo"]
    true = found["costs"]["ppo-gt"]
    return [
        f"A run of PPO with its reward model takes {own['flop'] / dpo['flop']:.1f} times the FLOP of one of DPO and"
        f" {own['seconds'] / dpo['seconds']:.1f} times its seconds; PPO-GT, which needs no reward model,"
        f" {true['flop'] / dpo['flop']:.1f} and {true['seconds'] / dpo['seconds']:.1f} times.",
        f"PPO draws {own['drawn']:.0f} answers while it trains, besides the {own['drawn_before']:.0f} of which the"
        f" preferences are made; DPO draws those {dpo['drawn_before']:.0f} alone. Best-of-N trains no policy, and pays"
        " whenever it answers: N answers drawn and read by the reward model for each that it gives.",
    ]


def spread(found: Mapping[str, Any]) -> list[str]:
    """How far seeds differ, and how many runs were lost."""
    lines = []
    for method, own in found["spread"].items():
        lost = found["collapsed"][method]
        differ = (
            "one seed has no spread"
            if own is None
            else f"standard deviation over seeds of a run's last reward {own['rewards']:.3f}, of its last KL"
            f" {own['kl']:.2f} nats, of the area {own['area']:.2f}"
        )
        lines.append(
            f"{_opening(method)}: {differ}; collapsed {lost['runs']} of {lost['of']} runs"
            f" ({told(lost['share'], scale=100, digits=0)} %), in {lost['seeds']} of {len(found['seeds'])} seeds."
        )
    return lines


def dial(found: Mapping[str, Any]) -> list[str]:
    """Whether a sweep of β is needed, or one run and its dial do as well."""
    own = found["dial"]
    if own is None:
        return ["The dial was not drawn: no seed has a folder `dial` yet."]
    lines = [
        f"Area up to {found['to']:g} nats (seeds with a dial: {len(own['seeds'])}): the sweep's ends"
        f" ({', '.join(SWEEP['dpo'])}) {told(own['sweep'].over_prompts)}; {DIALLED} alone, mixed by lot with the model"
        f" before training, {told(own['one_run'].over_prompts)}; "
        + "; ".join(f"its dial {way} {told(one['area'].over_prompts)}" for way, one in own["ways"].items())
        + "."
    ]
    for way, one in own["ways"].items():
        gap = one["less_the_sweep"]["mean_height"]
        lines.append(
            f"Reward of the dial ({way}) less the sweep's at equal KL, on average: {told_both(gap, digits=3)}."
            f" Less that of the one run alone: {told_both(one['less_the_one_run']['mean_height'], digits=3)}."
        )
    return [*lines, _needed(own["ways"][PRIMARY]["less_the_sweep"]["mean_height"])]


def _needed(gap: Both) -> str:
    """The verdict, by the way that was chosen beforehand."""
    signs = (sign(gap.over_prompts), sign(gap.over_seeds))
    if -1 in signs:
        return (
            f"**A sweep is worth its runs here**: at equal KL the dial ({PRIMARY}) of one run has less reward than"
            f" three trained runs, {sureness(gap)}."
        )
    lows = [one.low for one in (gap.over_prompts, gap.over_seeds) if one.low is not None]
    bound = ""
    if lows and min(lows) < 0.0:
        bound = f" It may be worse by up to {-min(lows):.3f} (the lower end of the wider interval)."
    place = "even above" if 1 in signs else "not surely below"
    return f"**No need of a sweep is shown here**: the dial ({PRIMARY}) of one run is {place} the trained sweep.{bound}"


def verdict(found: Mapping[str, Any]) -> str:
    """All answers, question by question, in Markdown."""
    one_seed = " One seed is done: nothing here can be said of others." if len(found["seeds"]) == 1 else ""
    asked: dict[str, Callable[[Mapping[str, Any]], list[str]]] = {
        "Is DPO's frontier above PPO's and PPO-GT's?": frontiers,
        "What happens at higher temperatures?": temperatures,
        "What does each cost?": costs,
        "How far do seeds differ, and how many runs collapsed?": spread,
        "Is a sweep of β needed, or does the dial give it?": dial,
    }
    parts = [
        f"{', '.join(found['seeds'])}; {found['prompts']} held-out prompts; reward before training"
        f" {told(found['start'].over_prompts, digits=3)}. Intervals are 95 %: over prompts, clustered by prompt, with"
        f" the trained models as they are; over seeds, by Student's t of their means.{one_seed} A run counts as"
        f" collapsed if it ends with surely less reward than it began with, or beyond {FAR:g} nats from its start."
    ]
    parts.insert(0, in_short(found))
    for question, answer in asked.items():
        parts.append(f"## {question}\n\n" + "\n".join(f"- {line}" for line in answer(found)))
    return "\n\n".join(parts)
