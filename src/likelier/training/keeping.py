"""What a run keeps of its weights on the way: checkpoints to go on from, and the best weights so far."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch

from likelier.errors import WorkError
from likelier.training import checkpoint as checkpoints
from likelier.training.best import drop_others, improved, load_best, save_best
from likelier.training.checkpoint import Identity, Position
from likelier.training.config import TrainingConfig
from likelier.training.folder import RunFolder
from likelier.training.journal import Journal
from likelier.training.policy import Policy
from likelier.training.processes import StopRequest


def due(every: int | None, step: int) -> bool:
    """Whether something that is done every so many steps is to be done after `step`.

    >>> due(2, 4), due(2, 5), due(None, 4)
    (True, False, False)
    """
    return every is not None and step % every == 0


class Keeper:
    """Weights, optimiser state and position, in a run's folder; without a folder nothing is kept."""

    def __init__(
        self,
        config: TrainingConfig,
        folder: RunFolder | None,
        policy: Policy,
        optimizer: torch.optim.Optimizer,
        journal: Journal,
    ) -> None:
        self.config, self._folder = config, folder
        self._policy, self._optimizer, self._journal = policy, optimizer, journal

    def resume(self, identity: Identity) -> Position | None:
        """Put everything back to the last complete checkpoint, with `--resume`; None where there is none.

        Raises:
            UsageError: a checkpoint that is damaged, or of another run than `identity`.
        """
        if self._folder is None:
            return None
        latest = checkpoints.latest_checkpoint(self._folder.checkpoints) if self.config.resume else None
        if latest is None:
            self._journal.cut_after(-1)
            return None
        position, before = checkpoints.read_state(latest)
        identity.require(before)
        checkpoints.load_checkpoint(latest, self._policy.trained, self._optimizer)
        self._policy.scorer.kernels.refresh()
        self._journal.say(f"going on after step {position.step}")
        if before.machine != identity.machine:
            self._journal.warn(
                "this run began on another processor, with another number of threads, or with other versions of"
                " torch or likelier: it goes on as it would have there but for rounding, not bit for bit"
            )
        self._journal.cut_after(position.step)
        return position

    def checkpoint(self, position: Position, identity: Identity, *, ended: bool, stop: StopRequest) -> None:
        """Where one is due. After the last step it only guards the model that is written next, and may fail.

        Raises:
            WorkError: it could not be written, and the run goes on.
        """
        every = self.config.checkpoint_every
        is_due = due(every, position.step) or (every is not None and ended) or stop.requested()
        if self._folder is None or not is_due:
            return
        self._folder.sync()
        try:
            checkpoints.save_checkpoint(
                *(self._folder.checkpoints, self._policy.trained, self._optimizer, position, identity),
                keep=self.config.keep_checkpoints,
            )
        except WorkError as error:
            if stop.by_signal or not (ended or stop.requested()):
                raise
            self._journal.warn(f"there is no checkpoint of the last step: {error}")
            return
        drop_others(self._folder.checkpoints, position)

    def look(self, line: Mapping[str, Any], position: Position, *, rows: str) -> str | None:
        """At an evaluation: the best weights so far are kept. Returns why the run is to stop, or None.

        Args:
            rows: hash of the held-out rows.
        """
        patience, best = self.config.patience, self.config.keep_best
        figure = best or ("eval/loss" if patience else None)
        if figure is None:
            return None
        if improved(position, line, figure, rows=rows):
            if best is not None and self._folder is not None:
                save_best(self._folder.checkpoints, self._policy.trained, position)
        elif patience is not None and position.evaluations_since_best >= patience:
            return f"{figure} has not improved in {patience} evaluations"
        return None

    def load_best(self, position: Position) -> None:
        """The best weights back into the policy, with `--keep-best`."""
        best = self.config.keep_best
        if best is None or self._folder is None or position.best_step is None:
            return
        load_best(self._folder.checkpoints, self._policy.trained, position)
        self._journal.say(f"the model is that of step {position.best_step}, the best by {best}")
