"""The training loop: plain PyTorch, from top to bottom.

describe → score the reference → (resume) → step, log, evaluate, checkpoint, … → save
"""

from __future__ import annotations

import copy
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor

from likelier.data.showing import plain_examples
from likelier.data.trees import Tree
from likelier.manifest import versions
from likelier.models.adapters import is_adapted
from likelier.models.cards import model_card
from likelier.models.saving import save_model
from likelier.scoring.scorer import Scorer
from likelier.training import checkpoint as checkpoints
from likelier.training.announcement import Outlook, cannot_move, paragraph
from likelier.training.checkpoint import Position
from likelier.training.config import DpoConfig
from likelier.training.estimate import flops, product_rate
from likelier.training.evaluation import evaluate
from likelier.training.folder import RunFolder
from likelier.training.memory import available_memory, choose_max_tokens, longest_path, memory
from likelier.training.optimizer import clip_gradients, gradient_norm, make_optimizer
from likelier.training.plan import Clock, Plan, advance, identity, improved, require_at_reference
from likelier.training.preparation import Data, Policy, load_reference
from likelier.training.processes import StopRequest
from likelier.training.progress import Progress
from likelier.training.run import Run
from likelier.training.samples import PromptSamples, read_sample_prompts
from likelier.training.signs import Signs
from likelier.training.step import Loss, require_finite, step_gradient
from likelier.training.trackers import Tracker, open_tracker

OnStep = Callable[[dict[str, Any]], Mapping[str, float] | bool | None]
"""Called with each line of metrics; may return metrics to add, or True to ask to stop."""

_SHARE = {"cpu": 0.12, "cuda": 0.4}
"""Of the rate of matrix products, reached on the whole: measured once (docs/log.md), for the expected time."""


class Training:
    """One run of the loop.

    Args:
        folder: None keeps everything in memory.
        say: where sentences for the user go.
        quiet: no progress bar.
    """

    def __init__(
        self,
        config: DpoConfig,
        loss: Loss,
        policy: Policy,
        data: Data,
        plan: Plan,
        folder: RunFolder | None,
        *,
        on_step: OnStep | None,
        say: Callable[[str], None],
        quiet: bool,
    ) -> None:
        self.config, self.loss, self.policy = config, loss, policy
        self.data, self.plan, self.folder = data, plan, folder
        self.on_step, self.say, self.quiet = on_step, say, quiet
        self.parameters = [p for p in policy.model.parameters() if p.requires_grad]
        self.optimizer = make_optimizer(config.optimizer, self.parameters, learning_rate=plan.rate(0))
        self.position = Position()
        self.clock = Clock()
        self.stop = StopRequest()
        self.reference: dict[int, Tensor] | None = None
        self.eval_reference: list[Tensor] | None = None
        self.reference_digest = b""
        self.own_reference = True
        self.signs = Signs(clip=config.clip)
        self.samples: PromptSamples | None = None
        self.tracker: Tracker | None = None
        self.flops_per_token = self.product_rate = 0.0
        self.result = Run(policy.model, policy.tokenizer, folder=config.out, notes=list(data.notes))

    def run(self) -> Run:
        """Step after step until the plan is done, or somebody asks to stop."""
        self._begin()
        with self.stop.listening(), self._watched() as progress:
            while self.position.step < self.plan.total and not self.stop.requested():
                line = self._step()
                self._log(line)
                progress.step(line)
                # The last evaluation comes before the last checkpoint, which then knows the best step.
                if self._due(self.config.eval_every) or self._ended():
                    self._evaluate()
                if self._due(self.config.sample_every):
                    self._sample()
                if self._due(self.config.checkpoint_every) or (
                    self.stop.requested() and self.folder is not None
                ):
                    self._checkpoint()
        if self.stop.by_signal:
            if self.folder is not None:
                self.say(
                    f"stopped by {self.stop.reason} after step {self.position.step}; --resume goes on from there"
                )
            return self.finished(self.stop.reason)
        return self._save()

    def describe(self) -> None:
        """Before step 0: what will be done, in a paragraph, and examples with the trained tokens marked."""
        config, scorer = self.config, self.policy.scorer
        needed = memory(
            self.policy.model,
            dtype=scorer.dtype,
            optimizer=config.optimizer,
            trainable=self.parameters,
            checkpointing=config.gradient_checkpointing,
        )
        every_tree = [*self.plan.trees, *self.data.evaluation]
        # Chosen once: another split of a step would sum its gradient in another order.
        before = self.folder.config.get("max_tokens") if self.folder and config.resume else None
        chosen = config.max_tokens or before
        scorer.max_tokens = chosen or choose_max_tokens(
            needed,
            longest=longest_path(every_tree),
            device=scorer.device,
            available=available_memory(scorer.device),
        )
        epoch = flops(self.policy.model, self.plan.trees, training=True)
        self.flops_per_token = epoch / max(1, sum(tree.num_tokens for tree in self.plan.trees))
        self.product_rate = product_rate(self.policy.model, rows=scorer.max_tokens, dtype=scorer.dtype)
        epochs = self.plan.total / self.plan.order.total(1)
        once = flops(self.policy.model, every_tree, training=False)
        self.say(
            paragraph(
                Outlook(
                    steps=self.plan.total,
                    batch_size=config.batch_size,
                    epochs=epochs,
                    trees=self.plan.trees,
                    model=self.policy.model,
                    lora_rank=config.lora_rank,
                    reference=config.reference or "the policy before its first update",
                    precision=self.policy.precision,
                    way=self.policy.choice.way,
                    max_tokens=scorer.max_tokens,
                    work=epoch * epochs + (once if self.loss.objective.needs_reference else 0.0),
                    rate=self.product_rate,
                    share=_SHARE[scorer.device.type],
                    memory=needed,
                )
            )
        )
        rates = [self.plan.rate(step) for step in range(self.plan.total)]
        if warning := cannot_move(self.policy.model, learning_rates=rates, dtype=scorer.dtype):
            self._warn(warning)
        if self.folder is not None and not config.dry_run:
            self.folder.write("examples.txt", plain_examples(self.plan.trees, self.policy.tokenizer))
            self.folder.write_config(self._resolved())

    def score_reference(self, reference: Any) -> None:
        """The reference's log-probs of every tree that the run will visit, from the cache or by one forward."""
        self.own_reference = reference is None
        if not self.loss.objective.needs_reference:
            return
        visited = self.plan.visited()
        trees = [self.plan.trees[i] for i in visited] + self.data.evaluation
        sums, self.reference_digest = load_reference(
            self.config, reference, self.policy, trees, on_progress=lambda done, total: None
        )
        self.reference = dict(zip(visited, sums, strict=False))
        self.eval_reference = sums[len(visited) :]

    def finished(self, reason: str | None = None) -> Run:
        """The run as it stands; the scorer gives the model back its own forwards when the stage ends."""
        self.result.stopped = reason
        return self.result

    def _begin(self) -> None:
        """Go on from the last complete checkpoint, or start at step 0."""
        self.policy.scorer.kernels.accumulates = True
        self.samples = self._prompt_samples()
        self.identity = identity(self.config, self.data, self.policy, self.reference_digest)
        latest = None
        if self.folder is not None:
            latest = checkpoints.latest_checkpoint(self.folder.checkpoints) if self.config.resume else None
            if latest is not None:
                self.position, before = checkpoints.read_state(latest)
                self.identity.require(before)
                checkpoints.load_checkpoint(latest, self.policy.model, self.optimizer)
                self.policy.scorer.kernels.refresh()
                self.say(f"going on after step {self.position.step}")
            self.result.metrics = self.folder.cut_after(self.position.step if latest is not None else -1)
            for line in self.result.metrics:
                self.signs.look(line)
        if latest is None and self.config.eval_every is not None:
            self._evaluate()
        if latest is None and self.samples is not None:
            self._sample()

    @contextmanager
    def _watched(self) -> Iterator[Progress]:
        """The progress bar and the tracker, for as long as the loop runs; sentences go above the bar."""
        config = self.config
        if config.track is not None and self.folder is not None:
            self.tracker = open_tracker(
                config.track, self.folder.path, self._resolved(), start=self.position.step
            )
        say = self.say
        try:
            with Progress(self.plan.total, self.position.step, quiet=self.quiet) as progress:
                if not self.quiet:
                    self.say = progress.say
                yield progress
        finally:
            self.say = say
            if self.tracker is not None:
                self.tracker.close()
                self.tracker = None

    def _step(self) -> dict[str, Any]:
        """One step: the gradient of its trees, clipped, and an update of the weights."""
        step = self.position.step
        indices = self.plan.order.step(step)
        trees = [self.plan.trees[i] for i in indices]
        reference = None if self.reference is None else [self.reference[i] for i in indices]
        self.clock.start()
        # Kept and zeroed: fresh memory of this size costs more than the zeros, and backward adds in place.
        for parameter in self.parameters:
            parameter.grad = torch.zeros_like(parameter) if parameter.grad is None else parameter.grad.zero_()
        result = step_gradient(self.policy.scorer, trees, reference, self.loss)
        if step == 0 and self.own_reference:
            require_at_reference(result.rewards, self.policy, self.loss)
        norm = gradient_norm(self.parameters)
        require_finite(norm, "gradient norm", trees)
        clip_gradients(self.parameters, norm=norm, limit=self.config.clip)
        for group in self.optimizer.param_groups:
            group["lr"] = self.plan.rate(step)
        self.optimizer.step()
        self.policy.scorer.kernels.refresh()
        seconds = self.clock.stop()
        before = (self.position.tokens_seen, self.position.pairs_seen)
        advance(self.position, trees)
        return {
            "step": self.position.step,
            "epoch": self.plan.epoch(step),
            "pairs_seen": self.position.pairs_seen,
            **result.metrics(),
            "learning_rate": self.plan.rate(step),
            "grad_norm": float(norm),
            "tokens_per_second": (self.position.tokens_seen - before[0]) / seconds,
            "mfu": (self.position.tokens_seen - before[0])
            / seconds
            * self.flops_per_token
            / self.product_rate,
            "pairs_per_second": (self.position.pairs_seen - before[1]) / seconds,
        }

    def _log(self, line: dict[str, Any]) -> None:
        if self.on_step is not None:
            answer = self.on_step(line)
            if isinstance(answer, Mapping):
                line.update(answer)
            elif answer is True:
                self.stop.reason = "asked by on_step"
        self._record(line)

    def _record(self, line: dict[str, Any]) -> None:
        """A line of metrics, wherever it is read: memory, folder, tracker, and the signs of trouble."""
        self.result.metrics.append(line)
        if self.folder is not None:
            self.folder.log(line)
        if self.tracker is not None:
            self.tracker.log(line, self.position.step)
        for text in self.signs.look(line):
            self._warn(text)

    def _warn(self, text: str) -> None:
        self.say(f"warning: {text}")
        self.result.notes.append(text)

    def _sample(self) -> None:
        """Have the policy answer the fixed prompts; KL, length, repetition and stop rate come from these alone."""
        assert self.samples is not None
        self._record({"step": self.position.step, **self.samples.take(step=self.position.step)})

    def _prompt_samples(self) -> PromptSamples | None:
        """For `--sample-prompts`; the start is kept as a frozen copy, to measure how far the policy has gone."""
        if self.config.sample_prompts is None:
            return None
        scorer = self.policy.scorer
        reference = None
        if self.own_reference:
            with scorer.plain() as model:
                frozen = copy.deepcopy(model)
            reference = Scorer(
                frozen,
                dtype=scorer.dtype,
                way=scorer.way,
                own_head=scorer.own_head,
                max_tokens=scorer.max_tokens,
            )
        return PromptSamples(
            self.policy.tokenizer,
            read_sample_prompts(self.config.sample_prompts),
            write=self._write_sample,
            plain=scorer.plain,
            logps=_whole(scorer),
            reference_logps=None if reference is None else _whole(reference),
            seed=self.config.seed,
        )

    def _write_sample(self, line: Mapping[str, Any]) -> None:
        self.result.samples.append(dict(line))
        if self.folder is not None:
            self.folder.log(line, file="samples.jsonl")

    def _evaluate(self) -> None:
        metrics = evaluate(self.policy.scorer, self.data.evaluation, self.eval_reference, self.loss)
        line = {"step": self.position.step, **metrics}
        self._record(line)
        figure = self.config.keep_best or ("eval/loss" if self.config.patience else None)
        if figure is None:
            return
        if improved(self.position, line, figure):
            if self.config.keep_best is not None and self.folder is not None:
                checkpoints.save_weights(self.folder.checkpoints / "best", self.policy.model)
        elif (
            self.config.patience is not None and self.position.evaluations_since_best >= self.config.patience
        ):
            self.stop.reason = f"{figure} has not improved in {self.config.patience} evaluations"

    def _checkpoint(self) -> None:
        assert self.folder is not None
        self.folder.sync()
        checkpoints.save_checkpoint(
            self.folder.checkpoints,
            self.policy.model,
            self.optimizer,
            self.position,
            self.identity,
            keep=self.config.keep_checkpoints,
        )

    def _save(self) -> Run:
        """Evaluate once more, write the model, and last of all the manifest."""
        config, folder = self.config, self.folder
        if self.data.evaluation and not self._evaluated_now():
            self._evaluate()
        if config.keep_best is not None and folder is not None and self.position.best_step is not None:
            checkpoints.load_weights(folder.checkpoints / "best" / "weights.safetensors", self.policy.model)
            self.policy.scorer.kernels.refresh()
            self.say(f"the model is that of step {self.position.best_step}, the best by {config.keep_best}")
        self.finished(self.stop.reason)
        if folder is None:
            return self.result
        with self.policy.scorer.plain() as model:
            save_model(
                model,
                self.policy.tokenizer,
                folder.path / "model",
                card=self._card(),
                merge=config.merge,
                silenced=self.policy.silenced,
            )
        folder.sync()
        folder.write_json("manifest.json", self._manifest())
        return self.result

    def _due(self, every: int | None) -> bool:
        return every is not None and self.position.step % every == 0

    def _ended(self) -> bool:
        return bool(self.data.evaluation) and self.position.step == self.plan.total

    def _evaluated_now(self) -> bool:
        step = self.position.step
        return any("eval/loss" in line and line["step"] == step for line in self.result.metrics)

    def _resolved(self) -> dict[str, Any]:
        values = self.config.model_dump(mode="json")
        chosen = {
            "precision": self.policy.precision,
            "max_tokens": self.policy.scorer.max_tokens,
            "warmup_steps": self.plan.warmup,
            "learning_rate": self.plan.peak,
        }
        # How this process was started is no part of the run: the file starts the same run anew.
        started = {"resume": False, "overwrite": False, "dry_run": False}
        return {name.rstrip("_"): value for name, value in (values | chosen | started).items()}

    def _card(self) -> str:
        return model_card(
            self.policy.name,
            method=f"DPO ({self.loss.objective.name})",
            data=self.data.hashes,
            settings=self._resolved(),
            results=_results(self.result.metrics),
            adapter=is_adapted(self.policy.model) and not self.config.merge,
        )

    def _manifest(self) -> dict[str, Any]:
        return {
            "stage": "dpo",
            "finished": True,
            "inputs": self.data.hashes,
            "start": self.policy.digest.hex(),
            "reference": self.reference_digest.hex(),
            "steps": self.position.step,
            "result": self.result.result,
            "notes": self.result.notes,
            "device": str(self.policy.scorer.device),
            "threads": torch.get_num_threads(),
            "versions": versions(),
            "command": sys.argv,
        }


def _whole(scorer: Scorer) -> Callable[[Sequence[Tree]], list[list[Tensor]]]:
    """Its scores, however long an answer was sampled: `max_tokens` was chosen for the data."""
    return lambda trees: scorer.score(trees, max_tokens=max(scorer.max_tokens, longest_path(trees)))


def _results(metrics: Sequence[Mapping[str, Any]]) -> list[dict[str, object]]:
    """The evaluation lines, first and last, as the rows of the card's table."""
    lines = [line for line in metrics if "eval/loss" in line]
    shown = [lines[0], lines[-1]] if len(lines) > 1 else lines
    names = (
        "loss",
        "rewards/accuracies",
        "rewards/accuracies/low",
        "rewards/accuracies/high",
        "rewards/margins",
        "pairs",
    )
    return [{"step": line["step"], **{n: line.get(f"eval/{n}", "") for n in names}} for line in shown]
