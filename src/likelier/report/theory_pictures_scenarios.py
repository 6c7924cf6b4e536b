"""Pictures of what breaks: certain labels, flipped labels, labels that like length, circles, mass that escapes."""

from __future__ import annotations

from typing import Any

from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from likelier.report.pictures import AFTER, BEFORE, DOWN, FAINT, INK, STYLE, as_svg
from likelier.theory.displacement import Displacement
from likelier.theory.misspecified import Circle, LengthBias
from likelier.theory.scenarios import Noise, Sharpening
from likelier.theory.undetermined import Undetermined

_SIZE = (4.4, 3.4)
_DASHES = ("-", "--", ":", "-.")
_NOISE_LINES = {"DPO": (AFTER, "-", "o"), "cDPO": (DOWN, "--", "^"), "robust DPO": (INK, ":", "s")}


def sharpening_picture(found: Sharpening) -> str:
    """How far optimal policies go from the reference as labels become certain: DPO without end, IPO to its limit."""
    with rc_context(STYLE):
        figure, axes = _figure()
        for (beta, spread), dashes in zip(found.dpo.items(), _DASHES, strict=False):
            style: dict[str, Any] = {"linestyle": dashes, "markersize": 4}
            axes.plot(found.odds, spread, color=AFTER, marker="o", label=f"DPO, β = {beta:g}", **style)
            axes.plot(
                found.odds, found.ipo[beta], color=DOWN, marker="s", label=f"IPO, β = {beta:g}", **style
            )
            axes.axhline(found.ipo_limit[beta], color=FAINT, linewidth=0.8, linestyle=dashes)
        axes.set(
            xscale="log",
            yscale="log",
            xlabel="odds of the best answer against the worst",
            ylabel="spread of log-ratios, nats",
        )
        _legend(figure, 2)
        return as_svg(
            figure,
            "sharpening",
            "Spread of the optimal log-ratios as preferences become certain, DPO and IPO",
        )


def noise_picture(found: Noise) -> str:
    """Distance of each loss's optimum from π* as more labels are turned round."""
    with rc_context(STYLE):
        figure, axes = _figure()
        shares = [100 * rate for rate in found.rates]
        for name, distances in found.distances.items():
            color, dashes, mark = _NOISE_LINES[name]
            told = "" if name == "DPO" else ", told the rate"
            axes.plot(shares, distances, color=color, linestyle=dashes, marker=mark, label=f"{name}{told}")
        axes.set(xlabel="labels turned round, %", ylabel="total variation to π*")
        _legend(figure, 1)
        return as_svg(
            figure, "label-noise", "Distance from the optimal policy under label noise, three losses"
        )


def length_picture(found: LengthBias) -> str:
    """Length and true reward of DPO's answers as labels like length more."""
    with rc_context(STYLE):
        figure = Figure(figsize=_SIZE, layout="constrained")
        above, below = figure.subplots(2, 1, sharex=True)
        above.plot(found.slopes, found.lengths, color=DOWN, marker="^")
        above.axhline(found.reference_length, color=FAINT, linestyle=":")
        above.set_ylabel("length, tokens")
        rewards = [point.reward for point in found.places]
        below.plot(found.slopes, rewards, color=AFTER, marker="o", label="true reward")
        below.plot(
            found.slopes,
            found.reachable,
            color=INK,
            linestyle="--",
            marker="s",
            label="the most at the same KL",
        )
        below.axhline(found.reference.reward, color=FAINT, linestyle=":", label="the reference")
        below.set(xlabel="reward that labels add for each token", ylabel="mean reward")
        _legend(figure, 2)
        figure.align_ylabels()
        return as_svg(
            figure, "length-bias", "Length and true reward of DPO's answers when labels like length"
        )


def circle_picture(found: Circle) -> str:
    """What DPO cannot fit, and how far it ends from π*, as preferences go more in a circle."""
    with rc_context(STYLE):
        figure, axes = _figure()
        axes.plot(
            found.strengths,
            found.misfit,
            color=DOWN,
            marker="^",
            linestyle="--",
            label="largest error of a preference",
        )
        axes.plot(found.strengths, found.distances, color=AFTER, marker="o", label="total variation to π*")
        axes.set(xlabel="circle's log-odds beside the reward's", ylabel="error of a probability")
        _legend(figure, 1)
        return as_svg(figure, "circle", "What DPO cannot fit of preferences that go in a circle")


def displacement_picture(found: Displacement) -> str:
    """The loss and the three probabilities, step by step."""
    with rc_context(STYLE):
        figure = Figure(figsize=_SIZE, layout="constrained")
        above, below = figure.subplots(2, 1, sharex=True, height_ratios=(1, 2))
        steps = range(len(found.losses))
        above.plot(steps, found.losses, color=INK)
        above.set_ylabel("loss, nats")
        below.plot(steps, found.elsewhere, color=BEFORE, linestyle=":", label="never compared")
        below.plot(steps, found.chosen, color=AFTER, label="chosen")
        below.plot(steps, found.rejected, color=DOWN, linestyle="--", label="rejected")
        below.set(xlabel="step of gradient descent", ylabel="probability", ylim=(0, 1))
        _legend(figure, 3)
        figure.align_ylabels()
        return as_svg(figure, "displacement", "The loss falls, and the chosen answer's probability with it")


def undetermined_picture(found: Undetermined) -> str:
    """Each completion's probability under π*, where DPO ends, and all that has the same loss."""
    with rc_context(STYLE):
        figure, axes = _figure()
        places = range(1, len(found.island) + 1)
        axes.bar(places, found.highest, width=0.5, color=FAINT, alpha=0.5, label="the same loss")
        axes.plot(places, found.optimum, color=AFTER, linestyle="", marker="o", label="π*")
        axes.plot(places, found.reached, color=DOWN, linestyle="", marker="^", label="DPO from the reference")
        for place in places[1:]:
            if found.island[place - 1] != found.island[place - 2]:
                axes.axvline(place - 0.5, color=INK, linewidth=0.8, linestyle=":")
        axes.set(xlabel="completions, in two islands", ylabel="probability", ylim=(0, 1), xticks=list(places))
        axes.set_xticklabels([f"y{place}" for place in places])
        _legend(figure, 3)
        return as_svg(figure, "undetermined", "Probabilities that comparisons in two islands leave open")


def _figure() -> tuple[Figure, Axes]:
    figure = Figure(figsize=_SIZE, layout="constrained")
    return figure, figure.subplots()


def _legend(figure: Figure, columns: int) -> None:
    figure.legend(loc="outside upper center", ncols=columns, fontsize=9)
