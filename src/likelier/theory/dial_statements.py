"""What math.md (14) states, computed: the dial on whole answers, and the per-token form where it is exact and not."""

from __future__ import annotations

from collections.abc import Sequence

from likelier.theory.dial import DialCurve, dial, dial_curve, per_token_dial
from likelier.theory.dial_worlds import SMALL, NamedWorld, dial_worlds, first_token_world, independent_world
from likelier.theory.optimum import optimal_policy
from likelier.theory.sequences import Sequences, next_token_policy, sequence_policy
from likelier.theory.statement import IDENTITY, Statement, largest, largest_gap, scale
from likelier.theory.world import World

STRENGTHS = (0.25, 0.5, 0.75, 1.0, 1.25, 1.5, 2.0)
"""λ at which the dial is tried."""
CURVE = tuple(step / 10 for step in range(1, 21))
"""λ of the picture, to twice the policy; at 0 there is no gain to lose a share of."""


def statements(world: World, beta: float) -> list[Statement]:
    """(14) for whole answers, in any world.

    >>> statements(World.random(0), 0.5)[0].holds
    True
    """
    policy = optimal_policy(world.log_reference, world.reward, beta)
    errors = [
        largest_gap(
            dial(world.log_reference, policy, strength),
            optimal_policy(world.log_reference, world.reward, beta / strength),
        )
        / scale(world, beta / strength)
        for strength in STRENGTHS
    ]
    name = "π_ref^(1−λ) π^λ, normalised, is the optimum at β/λ"
    return [Statement(name=name, equation="(14)", error=largest(errors), bound=IDENTITY)]


def sequence_statements(beta: float) -> list[Statement]:
    """Tables of next tokens and of answers are one; the per-token dial: exact where it should be, and never above.

    >>> all(statement.holds for statement in sequence_statements(0.5))
    True
    """
    worlds = dial_worlds()
    return [
        Statement(
            name="next-token conditionals of π* multiply to π*",
            equation="notation",
            error=largest(_round_trip(named, beta) for named in worlds),
            bound=IDENTITY,
        ),
        _exact("one token", worlds[0].sequences, worlds[0].world, beta),
        _exact("the first token decides the reward", SMALL, first_token_world(), beta),
        _exact("independent tokens, additive reward, no early end", SMALL, independent_world(), beta),
        _never_above([dial_curve_of(named, beta, STRENGTHS) for named in worlds]),
    ]


def dial_curves(beta: float = 1.0) -> list[DialCurve]:
    """The picture: every world of `dial_worlds`, λ from 0.1 to 2.

    >>> [curve.name for curve in dial_curves()][0]
    'one token'
    """
    return [dial_curve_of(named, beta, CURVE) for named in dial_worlds()]


def dial_curve_of(named: NamedWorld, beta: float, strengths: Sequence[float]) -> DialCurve:
    """The curve of a named world."""
    return dial_curve(named.sequences, named.world, beta=beta, strengths=strengths, name=named.name)


def _exact(where: str, sequences: Sequences, world: World, beta: float) -> Statement:
    """The per-token form against (14)."""
    policy = optimal_policy(world.log_reference, world.reward, beta)
    errors = [
        largest_gap(
            per_token_dial(sequences, world.log_reference, policy, strength),
            dial(world.log_reference, policy, strength),
        )
        / scale(world, beta / strength)
        for strength in STRENGTHS
    ]
    name = f"mixing next-token logits is exact: {where}"
    return Statement(name=name, equation="(14)", error=largest(errors), bound=IDENTITY)


def _never_above(curves: Sequence[DialCurve]) -> Statement:
    """No per-token mixture has more reward than the frontier at its KL; the note says what it loses."""
    worst = max(curves, key=lambda curve: max(curve.lost_share))
    share, strength = max(zip(worst.lost_share, worst.strengths, strict=True))
    return Statement(
        name="mixing next-token logits stays on or below the frontier",
        equation="(14)",
        error=largest([0.0, *(-loss for curve in curves for loss in curve.loss)]),
        bound=1e-8,  # of reward; the frontier's height at a given KL is found by bisection
        note=f"it loses {100 * share:.0f} % of the gain at λ = {strength:g} in the world `{worst.name}`",
    )


def _round_trip(named: NamedWorld, beta: float) -> float:
    policy = optimal_policy(named.world.log_reference, named.world.reward, beta)
    again = sequence_policy(named.sequences, next_token_policy(named.sequences, policy))
    return largest_gap(again, policy) / scale(named.world, beta)
