"""One file of answers on its way: what is answered is kept at once, the file is written whole at the end."""

from __future__ import annotations

import contextlib
import json
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from likelier.data.output import JsonLines
from likelier.data.unfinished import Unfinished, partial_path
from likelier.engines.prompts import Prompt
from likelier.engines.protocol import Failure
from likelier.errors import UsageError, WorkError
from likelier.manifest import manifest_path, write_manifest
from likelier.stages.sample_config import DRAWING, SampleConfig
from likelier.stages.sample_engines import Answered, Engine
from likelier.stats.duplicates import duplicates

Say = Callable[[str], None]
Row = dict[str, Any]


@dataclass
class SampleWork:
    """One file of answers on its way."""

    config: SampleConfig
    engine: Engine
    prompts: Sequence[Prompt]
    say: Say
    answered: dict[int, Answered] = field(default_factory=dict)
    failed: dict[int, Failure] = field(default_factory=dict)

    def run(self, on_progress: Callable[[int], None]) -> SampleWork:
        """Answers what is not answered yet, and writes the file."""
        if self.config.out is None:
            self._answer(on_progress, lambda index, answered: None)
            self._require_all("")
            return self
        identity = self._settings() | dict(self.engine.identity(self.prompts))
        if self._is_finished(self.config.out, identity):
            return self
        with Unfinished(self.config.out, identity, resume=self.config.resume) as unfinished:
            self.answered = {
                index: Answered(part["completions"], part["counts"])
                for index, part in unfinished.parts.items()
            }
            if self.answered:
                self.say(f"{len(self.answered)} of {len(self.prompts)} prompts were answered before")
            kept = f"what is answered is kept in {unfinished.path}: run the same again with --resume"
            with self._told_when_interrupted(kept):
                self._answer(
                    on_progress,
                    lambda index, answered: unfinished.add(
                        index, {"completions": answered.completions, "counts": answered.counts}
                    ),
                )
            self._require_all(f"; {kept}, or with --resume --skip-failed to write the file without them")
            self._write(self.config.out, identity)
            unfinished.delete()
        return self

    @property
    def rows(self) -> list[Row]:
        """One per answered prompt, in the order of the prompts."""
        settings = self._settings()
        return [
            {
                "id": prompt.id,
                "prompt": prompt.content,
                "completions": self.answered[index].completions,
                "model": self.config.model,
                "sampling": settings,
            }
            for index, prompt in enumerate(self.prompts)
            if index in self.answered
        ]

    def summary(self) -> dict[str, Any]:
        """What there is to say of the answers, in numbers."""
        answers = [answer for answered in self.answered.values() for answer in answered.completions]
        counts: Counter[str] = Counter()
        for answered in self.answered.values():
            counts.update(answered.counts)
        repeats = self._duplicates()
        return {
            "out": None if self.config.out is None else str(self.config.out),
            "prompts": len(self.answered),
            "answers": len(answers),
            "stopped": sum(answer["finish"] == "stop" for answer in answers),
            "cut": sum(answer["finish"] == "length" for answer in answers),
            **counts,
            "exact_duplicates": sum(exact for exact, _ in repeats.values()),
            "near_duplicates": sum(near for _, near in repeats.values()),
            "prompts_with_duplicates": len(repeats),
            "failed": dict(Counter(failure.reason for failure in self.failed.values())),
        }

    def _answer(self, on_progress: Callable[[int], None], keep: Callable[[int, Answered], None]) -> None:
        """Every prompt that has no answers yet; what the engine gives up is gathered."""
        left = [index for index in range(len(self.prompts)) if index not in self.answered]
        if not left:
            return
        on_progress(self.config.n * (len(self.prompts) - len(left)))
        for place, result in self.engine.answer([self.prompts[index] for index in left], on_progress):
            index = left[place]
            if isinstance(result, Failure):
                self.failed[index] = result
                continue
            keep(index, result)
            self.answered[index] = result
        for note in self.engine.notes():
            self.say(note)

    def _settings(self) -> dict[str, Any]:
        mixed = (
            {} if self.config.strength is None else self.config.model_dump(include={"strength", "reference"})
        )
        return {"engine": self.config.engine, **self.config.model_dump(include=set(DRAWING)), **mixed}

    def _require_all(self, remedy: str) -> None:
        """Raises `WorkError` for prompts without answers, unless they are to be left out."""
        if not self.failed:
            return
        index, failure = min(self.failed.items())
        counts = Counter(failure.reason for failure in self.failed.values())
        told = ", ".join(f"{reason}: {count}" for reason, count in counts.most_common())
        message = (
            f"{len(self.failed)} of {len(self.prompts)} prompts are unanswered ({told}; the first, "
            f"{self.prompts[index].id!r}: {failure.detail})"
        )
        if not (self.config.skip_failed and self.answered):
            raise WorkError(message + remedy)
        self.say(f"{message}: left out")

    def _write(self, out: Path, identity: Mapping[str, Any]) -> None:
        """The file, and then the manifest that says it is whole."""
        with JsonLines(out) as file:
            for row in self.rows:
                file.write(row)
        summary = self.summary()
        if out.is_file():
            prompts = Path(self.config.prompts)
            write_manifest(
                out,
                stage="sample",
                config=self.config.model_dump(mode="json"),
                inputs={"prompts": prompts} if prompts.is_file() else {},
                rows=len(self.answered),
                identity=identity,
                summary=summary,
                duplicates={
                    self.prompts[index].id: {"exact": exact, "near": near}
                    for index, (exact, near) in self._duplicates().items()
                },
                failed={self.prompts[index].id: failure.detail for index, failure in self.failed.items()},
            )
        for line in _told(summary, out):
            self.say(line)

    def _duplicates(self) -> dict[int, tuple[int, int]]:
        """Prompts with answers that repeat one of theirs, and how many, exactly and nearly."""
        found = {}
        for index in sorted(self.answered):
            own = duplicates([answer["text"] for answer in self.answered[index].completions])
            if own.exact or own.near:
                found[index] = (own.exact, own.near)
        return found

    def _is_finished(self, out: Path, identity: Mapping[str, Any]) -> bool:
        """Whether a run of the same settings has written the file; its answers are then read back."""
        if not (self.config.resume and out.exists() and not partial_path(out).exists()):
            return False
        try:
            before = json.loads(manifest_path(out).read_text(encoding="utf-8")).get("identity")
        except (OSError, ValueError):
            before = None
        if before != json.loads(json.dumps(identity)):
            raise UsageError(
                f"--resume: {out} was not made with these settings; choose another --out, or --overwrite it"
            )
        places = {prompt.id: index for index, prompt in enumerate(self.prompts)}
        for line in out.read_text(encoding="utf-8").splitlines():
            row = json.loads(line)
            self.answered[places[row["id"]]] = Answered(row["completions"])
        self.say(f"{out} is finished: nothing to do")
        return True

    @contextlib.contextmanager
    def _told_when_interrupted(self, kept: str) -> Iterator[None]:
        try:
            yield
        except KeyboardInterrupt:
            done = f"{len(self.answered)} of {len(self.prompts)} prompts are answered"
            raise WorkError(f"interrupted: {done}; {kept}") from None


def _told(summary: Mapping[str, Any], out: Path) -> Iterator[str]:
    """The summary in words."""
    yield (
        f"{summary['answers']} answers to {summary['prompts']} prompts in {out}: {summary['stopped']} ended by "
        f"themselves, {summary['cut']} were cut at the length limit"
    )
    if summary["prompts_with_duplicates"]:
        yield (
            f"{summary['exact_duplicates']} answers repeat another of their prompt word for word and "
            f"{summary['near_duplicates']} nearly, at {summary['prompts_with_duplicates']} prompts"
        )
