"""The training loop: plain PyTorch, from top to bottom.

describe → score the reference → (resume) → step, log, evaluate, checkpoint, … → save
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from statistics import fmean
from typing import Any

from torch import Tensor

from likelier.data.showing import plain_examples
from likelier.data.trees import Tree
from likelier.engines.prompts import Prompt
from likelier.errors import UsageError, WorkError
from likelier.scoring.reference import in_tenths
from likelier.training import checkpoint as checkpoints
from likelier.training.best import drop_others, improved, load_best, save_best
from likelier.training.checkpoint import Position
from likelier.training.config import SamplingConfig, TrainingConfig
from likelier.training.estimate import flops
from likelier.training.folder import RunFolder
from likelier.training.journal import Journal
from likelier.training.method import Method, StepFigures, Work
from likelier.training.opening import open_run
from likelier.training.optimizer import clip_gradients, gradient_norm, make_optimizer, reserve_state, set_rate
from likelier.training.outcome import resolved, write_result
from likelier.training.plan import Clock, Plan, advance, identity
from likelier.training.policy import Policy
from likelier.training.preparation import Data
from likelier.training.processes import StopRequest
from likelier.training.progress import Progress
from likelier.training.reference import load_reference
from likelier.training.run import Run
from likelier.training.samples import PromptSamples, prompt_samples
from likelier.training.step import require_finite

OnStep = Callable[[dict[str, Any]], Mapping[str, float] | bool | None]
"""Called with each line of metrics; may return metrics to add, or True to ask to stop."""


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
        self.parameters = [p for p in policy.trained.parameters() if p.requires_grad]
        self.optimizer = make_optimizer(
            *(config.optimizer, self.parameters),
            learning_rate=plan.rate(0),
            beside=[] if policy.value_head is None else list(policy.value_head.parameters()),
            times=1.0 if method.value_rate is None else method.value_rate / plan.peak,
        )
        self.position = Position()
        self.clock = Clock()
        self.stop = StopRequest()
        self.reference: dict[int, Tensor] | None = None
        self.eval_reference: list[Tensor] | None = None
        self.reference_content = b""
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
            self.journal.say(
                f"stopped by {reason} after step {self.position.step}; --resume goes on from there"
            )
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
                # The last evaluation comes before the last checkpoint, which then knows the best step.
                if self._due(self.config.eval_every) or self._ended():
                    self._evaluate()
                if self._due(self.sample_every):
                    self._sample()
                if self.folder is not None:
                    self._checkpoint(self.folder)

    def describe(self) -> None:
        """Before step 0: what will be done, in a paragraph, and examples with the trained tokens marked."""
        opening = open_run(
            *(self.config, self.policy, self.data, self.plan, self.method),
            parameters=self.parameters,
            before=self.folder.config.get("max_tokens") if self.folder and self.config.resume else None,
        )
        self.flops_per_token, self.product_rate = opening.flops_per_token, opening.product_rate
        for text in (opening.paragraph, *opening.notes):
            self.journal.say(text)
        for text in opening.warnings:
            self.journal.warn(text)
        if self.folder is not None:
            self.folder.write("examples.txt", plain_examples(self.plan.trees, self.policy.tokenizer))
            self.folder.write_config(self._resolved())

    def score_reference(self) -> None:
        """The reference's log-probs of every tree that the run will visit, from the cache or by one forward."""
        reserve_state(self.optimizer)
        if self.method.held_to is None or not self.method.scored_first:
            return
        visited = self.plan.visited()
        trees = [self.plan.trees[i] for i in visited] + self.data.evaluation
        self.position.flop = flops(self.policy.model, trees[: len(visited)], training=False)
        told = in_tenths(self.journal.say, "reference")
        again = "the same command" if self.folder is None else "--resume"
        with self.stop.listening():
            found = load_reference(
                *(self.config, self.method.reference, self.policy, trees),
                on_progress=self.stop.during("the reference pass", told, again=again),
            )
        self.reference_content = found.content
        self.reference = dict(zip(visited, found.sums, strict=False))
        self.eval_reference = found.sums[len(visited) :]

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
        self.identity = identity(
            *(self.config, self.data, self.policy, self.reference_content), held=self.method.held()
        )
        return self.folder is not None and self._resume()

    def _look_at_start(self) -> None:
        """What everything later is measured against."""
        if self.config.eval_every is not None:
            self._evaluate()
        if self.samples is not None:
            self._sample()

    def _resume(self) -> bool:
        """Put everything back to the last complete checkpoint; False where there is none."""
        assert self.folder is not None
        latest = checkpoints.latest_checkpoint(self.folder.checkpoints) if self.config.resume else None
        if latest is not None:
            self.position, before = checkpoints.read_state(latest)
            self.identity.require(before)
            checkpoints.load_checkpoint(latest, self.policy.trained, self.optimizer)
            self.policy.scorer.kernels.refresh()
            self.journal.say(f"going on after step {self.position.step}")
            if before.machine != self.identity.machine:
                self.journal.warn(
                    "this run began on another processor, with another number of threads, or with other versions of"
                    " torch or likelier: it goes on as it would have there but for rounding, not bit for bit"
                )
        self.journal.cut_after(self.position.step if latest is not None else -1)
        return latest is not None

    def _step(self) -> dict[str, Any]:
        """One step: its work, update after update."""
        step = self.position.step
        indices = self.plan.order.step(step)
        trees = [self.plan.trees[i] for i in indices]
        reference = None if self.reference is None else [self.reference[i] for i in indices]
        self.clock.start()
        work = self.method.work(self.policy, trees, reference, self.position)
        result, norms = self._updates(work)
        seconds = self.clock.stop()
        before = (self.position.tokens_seen, self.position.pairs_seen)
        cost = self.method.passes * flops(self.policy.model, work.trees, training=True)
        advance(self.position, work.trees, flop=cost)
        return {
            "step": self.position.step,
            "epoch": self.plan.epoch(step),
            f"{self.method.unit}_seen": self.position.pairs_seen,
            **result.metrics(),
            "flop": self.position.flop,
            "learning_rate": self.plan.rate(step),
            "grad_norm": fmean(norms),
            "tokens_per_second": (self.position.tokens_seen - before[0]) / seconds,
            "mfu": (self.position.tokens_seen - before[0])
            / seconds
            * self.flops_per_token
            / self.product_rate,
            f"{self.method.unit}_per_second": (self.position.pairs_seen - before[1]) / seconds,
        }

    def _updates(self, work: Work) -> tuple[StepFigures, list[float]]:
        """Every update of a step: the gradient, clipped, and new weights; returns the last figures and all norms."""
        figures: StepFigures | None = None
        norms: list[float] = []
        for update in work.updates:
            with self.policy.scorer.kernels.summing(self.parameters):
                found = update()
            if found is None:
                break
            figures = found
            if self.position.step == 0 and not norms and (said := self.method.look(found, self.policy)):
                self.journal.say(said)
            norms.append(self._update(work.trees))
        assert figures is not None
        return figures, norms

    def _update(self, trees: Sequence[Tree]) -> float:
        """New weights from the gradient that is there; returns its norm."""
        norm = gradient_norm(self.parameters)
        require_finite(norm, "gradient norm", trees)
        clip_gradients(self.parameters, norm=norm, limit=self.config.clip)
        set_rate(self.optimizer, self.plan.rate(self.position.step))
        self.optimizer.step()
        self.policy.scorer.kernels.refresh()
        return float(norm)

    def _log(self, line: dict[str, Any]) -> None:
        if self.on_step is not None:
            answer = self.on_step(line)
            if isinstance(answer, Mapping):
                line.update(_numbers(answer))
            elif answer is True:
                self.stop.reason = "asked by on_step"
        self.journal.record(line)

    def _sample(self) -> None:
        """Have the policy answer the fixed prompts; KL, length, repetition and stop rate come from these alone."""
        assert self.samples is not None
        self.journal.record({"step": self.position.step, **self.samples.take(step=self.position.step)})

    def _evaluate(self) -> None:
        metrics = self.method.evaluate(self.policy.scorer, self.data.evaluation, self.eval_reference)
        line = {"step": self.position.step, **metrics}
        self.journal.record(line)
        figure = self.config.keep_best or ("eval/loss" if self.config.patience else None)
        if figure is None:
            return
        if improved(self.position, line, figure, rows=self.data.hashes["eval"]):
            if self.config.keep_best is not None and self.folder is not None:
                save_best(self.folder.checkpoints, self.policy.trained, self.position)
        elif (
            self.config.patience is not None and self.position.evaluations_since_best >= self.config.patience
        ):
            self.stop.reason = f"{figure} has not improved in {self.config.patience} evaluations"

    def _checkpoint(self, folder: RunFolder) -> None:
        """Where one is due. After the last step it only guards the model that is written next, and may fail."""
        every = self.config.checkpoint_every
        last = self.position.step == self.plan.total
        if not (self._due(every) or (every is not None and last) or self.stop.requested()):
            return
        folder.sync()
        try:
            checkpoints.save_checkpoint(
                *(folder.checkpoints, self.policy.trained, self.optimizer, self.position, self.identity),
                keep=self.config.keep_checkpoints,
            )
        except WorkError as error:
            if self.stop.by_signal or not (last or self.stop.requested()):
                raise
            self.journal.warn(f"there is no checkpoint of the last step: {error}")
            return
        drop_others(folder.checkpoints, self.position)

    def _save(self, reason: str | None) -> Run:
        """Evaluate once more, write the model, and last of all the manifest."""
        config, folder = self.config, self.folder
        if self.data.evaluation and not self._evaluated_now():
            self._evaluate()
        if config.keep_best is not None and folder is not None and self.position.best_step is not None:
            load_best(folder.checkpoints, self.policy.trained, self.position)
            self.journal.say(
                f"the model is that of step {self.position.best_step}, the best by {config.keep_best}"
            )
        touches = self.method.finish(self.policy, self.plan.trees)
        for touch in touches:
            self.journal.note(touch)
        run = self.finished(reason)
        if folder is None:
            return run
        write_result(
            *(run, folder, self._resolved()),
            policy=self.policy,
            data=self.data,
            method=self.method,
            notes=[self.method.usage, *touches] if self.method.usage else touches,
            reference=self.reference_content,
            steps=self.position.step,
        )
        return run

    def _due(self, every: int | None) -> bool:
        return every is not None and self.position.step % every == 0

    def _ended(self) -> bool:
        return bool(self.data.evaluation) and self.position.step == self.plan.total

    def _evaluated_now(self) -> bool:
        step = self.position.step
        return any("eval/loss" in line and line["step"] == step for line in self.result.metrics)

    def _resolved(self) -> dict[str, Any]:
        return resolved(self.config, self.policy, self.plan)


def _numbers(answer: Mapping[str, Any]) -> dict[str, float]:
    """What `on_step` returned, as JSON can hold it."""
    try:
        return {str(name): float(value) for name, value in answer.items()}
    except (TypeError, ValueError) as error:
        raise UsageError(f"on_step must return numbers by name ({error}); or True to stop, or None") from None
