"""The updates of a step: each a gradient, clipped, then new weights at the rate of the plan."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from likelier.data.trees import Tree
from likelier.training.config import TrainingConfig
from likelier.training.method import Method, StepFigures, Work
from likelier.training.optimizer import clip_gradients, gradient_norm, make_optimizer, set_rate
from likelier.training.plan import Plan
from likelier.training.policy import Policy
from likelier.training.step import require_finite


class Updates:
    """The optimiser over what trains of a policy, a value head included.

    Args:
        say: told what the method sees in the run's first update.
    """

    def __init__(
        self,
        config: TrainingConfig,
        method: Method,
        policy: Policy,
        plan: Plan,
        *,
        say: Callable[[str], None],
    ) -> None:
        self._clip, self._method, self._policy, self._plan, self._say = config.clip, method, policy, plan, say
        self.parameters = [p for p in policy.trained.parameters() if p.requires_grad]
        self.optimizer = make_optimizer(
            *(config.optimizer, self.parameters),
            learning_rate=plan.rate(0),
            beside=[] if policy.value_head is None else list(policy.value_head.parameters()),
            times=1.0 if method.value_rate is None else method.value_rate / plan.peak,
        )

    def make(self, work: Work, *, step: int) -> tuple[StepFigures, list[float]]:
        """Every update of the step after `step`; returns the last figures and the norms of all gradients."""
        figures: StepFigures | None = None
        norms: list[float] = []
        for update in work.updates:
            with self._policy.scorer.kernels.summing(self.parameters):
                found = update()
            if found is None:
                break
            figures = found
            if step == 0 and not norms and (said := self._method.look(found, self._policy)):
                self._say(said)
            norms.append(self._update(work.trees, step=step))
        assert figures is not None
        return figures, norms

    def _update(self, trees: Sequence[Tree], *, step: int) -> float:
        """New weights from the gradient that is there; returns its norm."""
        norm = gradient_norm(self.parameters)
        require_finite(norm, "gradient norm", trees)
        clip_gradients(self.parameters, norm=norm, limit=self._clip)
        set_rate(self.optimizer, self._plan.rate(step))
        self.optimizer.step()
        self._policy.scorer.kernels.refresh()
        return float(norm)
