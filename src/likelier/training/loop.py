"""The training loop: plain PyTorch, from top to bottom.

describe → score the reference → (resume) → step, log, evaluate, checkpoint, … → save
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from statistics import fmean
from typing import Any

from likelier.data.showing import plain_examples
from likelier.engines.prompts import Prompt
from likelier.scoring.reference import in_tenths
from likelier.training.checkpoint import Position
from likelier.training.config import SamplingConfig, TrainingConfig
from likelier.training.estimate import flops
from likelier.training.folder import RunFolder
from likelier.training.journal import Journal
from likelier.training.keeping import Keeper, due
from likelier.training.method import Method
from likelier.training.on_step import OnStep, asks_to_stop
from likelier.training.opening import open_run
from likelier.training.optimizer import reserve_state
from likelier.training.outcome import resolved, write_result
from likelier.training.plan import Clock, Plan, advance, identity
from likelier.training.policy import Policy
from likelier.training.preparation import Data
from likelier.training.processes import StopRequest
from likelier.training.progress import Progress
from likelier.training.reference import VisitedReference, visited_reference
from likelier.training.run import Run
from likelier.training.samples import PromptSamples, prompt_samples
from likelier.training.updates import Updates


class Training:
    """One run of the loop.

    Args:
        method: what the stage has of its own: the gradient of a step, and evaluation.
        folder: None keeps everything in memory.
        prompts: for `--sample-every`.
        say: where sentences for the user go.
        quiet: no progress bar.
    """

    def __init__(
        self,
        config: TrainingConfig,
        method: Method,
        policy: Policy,
        data: Data,
        plan: Plan,
        folder: RunFolder | None,
        *,
        prompts: Sequence[Prompt] = (),
        on_step: OnStep | None,
        say: Callable[[str], None],
        quiet: bool,
    ) -> None:
        self.config, self.method, self.policy = config, method, policy
        self.data, self.plan, self.folder = data, plan, folder
        self.prompts, self.on_step, self.quiet = prompts, on_step, quiet
        self.position = Position()
        self.clock = Clock()
        self.stop = StopRequest()
        self.reference: VisitedReference | None = None
        self.samples: PromptSamples | None = None
        self.sample_every = config.sample_every if isinstance(config, SamplingConfig) else None
        self.flops_per_token = self.product_rate = 0.0
        self.result = Run(
            *(policy.model, policy.tokenizer),
            folder=folder.path if folder is not None else None,
            notes=list(data.notes),
            unit=method.unit,
            found=method.report,
        )
        self.journal = Journal(
            self.result,
            folder,
            say=say,
            clip=config.clip,
            likelihoods=method.likelihoods,
            descends=method.descends,
        )
        self.updates = Updates(config, method, policy, plan, say=lambda text: self.journal.say(text))
        self.keeper = Keeper(*(config, folder, policy, self.updates.optimizer, self.journal))

    def run(self) -> Run:
        """Step after step until the plan is done, or somebody asks to stop."""
        resumed = self._begin()
        # A signal while the model is written waits until that is done: it is the work's result.
        with self.stop.listening():
            self._steps(resumed)
            reason = self.stop.reason
            if not self.stop.by_signal:
                return self._save(reason)
        if self.folder is not None:
            said = f"stopped by {reason} after step {self.position.step}; --resume goes on from there"
            self.journal.say(said)
        return self.finished(reason)

    def _steps(self, resumed: bool) -> None:
        start = self.position.step
        progress = Progress(self.plan.total, start, quiet=self.quiet)
        with self.journal.watched(progress, track=self.config.track, settings=self._resolved(), start=start):
            if not resumed:
                self._look_at_start()
            while self.position.step < self.plan.total and not self.stop.requested():
                line = self._step()
                self._log(line)
                progress.step(line)
                ended = self.position.step == self.plan.total
                # The last evaluation comes before the last checkpoint, which then knows the best step.
                if due(self.config.eval_every, self.position.step) or (ended and self.data.evaluation):
                    self._evaluate()
                if due(self.sample_every, self.position.step):
                    self._sample()
                self.keeper.checkpoint(self.position, self.identity, ended=ended, stop=self.stop)

    def describe(self) -> None:
        """Before step 0: what will be done, in a paragraph, and examples with the trained tokens marked."""
        opening = open_run(
            *(self.config, self.policy, self.data, self.plan, self.method),
            parameters=self.updates.parameters,
            before=self.folder.config.get("max_tokens") if self.folder and self.config.resume else None,
        )
        self.flops_per_token, self.product_rate = opening.flops_per_token, opening.product_rate
        opening.tell(self.journal)
        if self.folder is not None:
            self.folder.write("examples.txt", plain_examples(self.plan.trees, self.policy.tokenizer))
            self.folder.write_config(self._resolved())

    def score_reference(self) -> None:
        """The reference's log-probs of every tree that the run will visit, from the cache or by one forward."""
        reserve_state(self.updates.optimizer)
        if self.method.held_to is None or not self.method.scored_first:
            return
        told = in_tenths(self.journal.say, "reference")
        again = "the same command" if self.folder is None else "--resume"
        with self.stop.listening():
            self.reference = visited_reference(
                *(self.config, self.method.reference, self.policy, self.plan, self.data),
                on_progress=self.stop.during("the reference pass", told, again=again),
            )
        self.position.flop = self.reference.flop

    def finished(self, reason: str | None = None) -> Run:
        """The run as it stands; the scorer gives the model back its own forwards when the stage ends."""
        self.result.stopped = reason
        return self.result

    def _begin(self) -> bool:
        """Go on from the last complete checkpoint, or start at step 0 (False)."""
        if self.prompts:
            self.samples = prompt_samples(
                *(self.policy, self.prompts),
                own_reference=self.method.reference is None,
                write=self.journal.sample,
                seed=self.config.seed,
            )
        content, held = self._reference_content, self.method.held()
        self.identity = identity(self.config, self.data, self.policy, content, held=held)
        found = self.keeper.resume(self.identity)
        self.position = found or self.position
        return found is not None

    def _look_at_start(self) -> None:
        """What everything later is measured against."""
        if self.config.eval_every is not None:
            self._evaluate()
        if self.samples is not None:
            self._sample()

    def _step(self) -> dict[str, Any]:
        """One step: its work, update after update."""
        step = self.position.step
        indices = self.plan.order.step(step)
        trees = [self.plan.trees[i] for i in indices]
        reference = None if self.reference is None else [self.reference.sums[i] for i in indices]
        self.clock.start()
        work = self.method.work(self.policy, trees, reference, self.position)
        figures, norms = self.updates.make(work, step=step)
        seconds = self.clock.stop()
        cost = self.method.passes * flops(self.policy.model, work.trees, training=True)
        seen = advance(self.position, work.trees, flop=cost)
        unit = self.method.unit
        return {
            "step": self.position.step,
            "epoch": self.plan.epoch(step),
            f"{unit}_seen": self.position.pairs_seen,
            **figures.metrics(),
            "flop": self.position.flop,
            "learning_rate": self.plan.rate(step),
            "grad_norm": fmean(norms),
            "tokens_per_second": seen.tokens / seconds,
            "mfu": seen.tokens / seconds * self.flops_per_token / self.product_rate,
            f"{unit}_per_second": seen.pairs / seconds,
        }

    def _log(self, line: dict[str, Any]) -> None:
        if self.on_step is not None and asks_to_stop(self.on_step, line):
            self.stop.reason = "asked by on_step"
        self.journal.record(line)

    def _sample(self) -> None:
        """Have the policy answer the fixed prompts; KL, length, repetition and stop rate come from these alone."""
        assert self.samples is not None
        self.journal.record({"step": self.position.step, **self.samples.take(step=self.position.step)})

    def _evaluate(self) -> None:
        held = None if self.reference is None else self.reference.evaluation
        metrics = self.method.evaluate(self.policy.scorer, self.data.evaluation, held)
        line = {"step": self.position.step, **metrics}
        self.journal.record(line)
        if reason := self.keeper.look(line, self.position, rows=self.data.hashes.get("eval", "")):
            self.stop.reason = reason

    def _save(self, reason: str | None) -> Run:
        """Evaluate once more, write the model, and last of all the manifest."""
        if self.data.evaluation and not self._evaluated_now():
            self._evaluate()
        self.keeper.load_best(self.position)
        touches = self.method.finish(self.policy, self.plan.trees)
        for touch in touches:
            self.journal.note(touch)
        run = self.finished(reason)
        if self.folder is None:
            return run
        write_result(
            *(run, self.folder, self._resolved()),
            policy=self.policy,
            data=self.data,
            method=self.method,
            notes=[self.method.usage, *touches] if self.method.usage else touches,
            reference=self._reference_content,
            steps=self.position.step,
        )
        return run

    def _evaluated_now(self) -> bool:
        at = self.position.step
        return any("eval/loss" in line and line["step"] == at for line in self.result.metrics)

    @property
    def _reference_content(self) -> bytes:
        return b"" if self.reference is None else self.reference.content

    def _resolved(self) -> dict[str, Any]:
        return resolved(self.config, self.policy, self.plan)
