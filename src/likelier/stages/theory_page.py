"""The pictures of `likelier theory`, computed and in their order on the page."""

from __future__ import annotations

from collections.abc import Callable

from likelier.report.theory import Section, Shown
from likelier.report.theory_pictures import cost_picture, outline_picture, runaway_picture
from likelier.report.theory_pictures_algorithms import (
    WITHOUT_BETA,
    distance_picture,
    frontier_picture,
    stability_picture,
)
from likelier.report.theory_pictures_scenarios import (
    circle_picture,
    displacement_picture,
    length_picture,
    noise_picture,
    sharpening_picture,
    undetermined_picture,
)
from likelier.report.theory_pictures_sequences import (
    dial_frontier_picture,
    dial_loss_picture,
    variance_picture,
)
from likelier.report.theory_pictures_sequences import noise_picture as gradient_noise_picture
from likelier.theory.dial_statements import dial_curves
from likelier.theory.displacement import displaced
from likelier.theory.frontiers import Plan, distances, frontiers
from likelier.theory.misspecified import circle, length_bias
from likelier.theory.outline import cost, outline, runaway
from likelier.theory.scenarios import label_noise, sharpening
from likelier.theory.stability import stability
from likelier.theory.undetermined import undetermined
from likelier.theory.variance_path import variance_curves
from likelier.theory.world import World

Say = Callable[[str], None]


def sections(world: World, beta: float, say: Say) -> list[Section]:
    """All pictures; the first and the value-function view are of `world`, the others of worlds of their own."""
    made = []
    for what, part in _PARTS.items():
        say(f"pictures: {what}")
        made.append(part(world, beta))
    return made


def _of_the_world(world: World, beta: float) -> Section:
    stands, costs, fits = outline(world, beta), cost(world), runaway()
    return Section(
        title="The optimum",
        words="Every β has its optimal policy, (5); together they are the frontier above which there is no policy.",
        pictures=[
            Shown(title="Reward against KL.", words=stands.words, svg=outline_picture(stands)),
            Shown(title="What best-of-N costs.", words=costs.words, svg=cost_picture(costs)),
            Shown(title="Certain labels have no finite reward.", words=fits.words, svg=runaway_picture(fits)),
        ],
    )


def _value_view(world: World, beta: float) -> Section:
    curves = variance_curves(world, beta)
    return Section(
        title="Why actor–critic is noisy",
        words="Equation (13): the soft value of the reference, β log Z, moves no optimum, but near π* it takes the"
        " noise out of the policy gradient. RLHF has to learn it, or to sample a baseline that is noisy itself; DPO has"
        " no such term.",
        pictures=[
            Shown(
                title="Answers until the noise equals the signal.",
                words="Lower is better. Free of the gradient's scale, so that DPO may stand beside the others; but"
                " it learns from drawn labels, where they are told the exact reward.",
                svg=gradient_noise_picture(curves),
            ),
            Shown(
                title="Variance of the policy gradient.",
                words="Times the answers that one estimate takes; lower is better.",
                svg=variance_picture(curves),
            ),
        ],
    )


def _the_dial(world: World, beta: float) -> Section:
    curves = dial_curves()
    worst = max(curves, key=lambda curve: max(curve.lost_share))
    return Section(
        title="The β dial",
        words="Equation (14): one trained policy holds every β. For whole answers this is exact; mixing the logits of"
        " next tokens is cheaper, and these worlds say what it loses.",
        pictures=[
            Shown(
                title="What mixing next-token logits loses.",
                words="Of the reward gained at equal KL, world by world; 0 where the form is exact.",
                svg=dial_loss_picture(curves),
            ),
            Shown(
                title=f"The world that loses most: {worst.name}.",
                words="Points of equal λ on both curves.",
                svg=dial_frontier_picture(worst),
            ),
        ],
    )


def _what_breaks(world: World, beta: float) -> Section:
    certain, noise, length, around = sharpening(), label_noise(), length_bias(), circle()
    left_open, moved = undetermined(), displaced()
    return Section(
        title="What breaks",
        words="Each in a world whose answer is known.",
        pictures=[
            Shown(title="Deterministic preferences.", words=certain.words, svg=sharpening_picture(certain)),
            Shown(title="Noisy labels.", words=noise.words, svg=noise_picture(noise)),
            Shown(title="Labels that like length.", words=length.words, svg=length_picture(length)),
            Shown(title="Preferences without a reward.", words=around.words, svg=circle_picture(around)),
            Shown(
                title="Comparisons in islands.", words=left_open.words, svg=undetermined_picture(left_open)
            ),
            Shown(title="The chosen answer falls.", words=moved.words, svg=displacement_picture(moved)),
        ],
    )


def _algorithms(world: World, beta: float) -> Section:
    found = frontiers(Plan.quick())
    away = distances(Plan.quick().world, beta=0.3)
    steady = stability(Plan.quick().world)
    return Section(
        title="Algorithms against the frontier",
        words="All from the same finite samples of preferences; bars are 95 % intervals over samples.",
        pictures=[
            Shown(title="With a β.", words=found.words, svg=frontier_picture(found)),
            Shown(
                title="Without one.",
                words="Nothing but an early end holds imitation near the reference.",
                svg=frontier_picture(found, WITHOUT_BETA, name="frontiers-without"),
            ),
            Shown(title="More comparisons.", words=away.words, svg=distance_picture(away)),
            Shown(title="Is DPO the stabler one?", words=steady.words, svg=stability_picture(steady)),
        ],
    )


_PARTS: dict[str, Callable[[World, float], Section]] = {
    "the optimum": _of_the_world,
    "the value-function view": _value_view,
    "the dial": _the_dial,
    "what breaks": _what_breaks,
    "algorithms": _algorithms,
}
