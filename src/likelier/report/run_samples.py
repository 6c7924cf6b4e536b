"""Answers of runs to the same prompts, side by side: what each said first and what it says now."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from likelier.report.page import signed
from likelier.report.past_evaluations import PastEvaluation
from likelier.report.past_runs import PastRun, finite

MOST_PROMPTS = 60
MOST_CHARACTERS = 1_500_000
"""Of all answers on a page: a browser's patience."""
_ANSWERS = 100_000
"""Lines of an evaluation's answers that are read at most."""


@dataclass(frozen=True, slots=True)
class Answer:
    """An answer, with all who gave it at that step."""

    who: tuple[str, ...]
    place: str
    """A step, or an evaluation's temperature."""
    text: str
    note: str
    last: bool
    """Whether it is the last of somebody's."""


@dataclass(frozen=True, slots=True)
class Asked:
    """A prompt and the answers to it."""

    prompt: str
    answers: Sequence[Answer]


@dataclass(frozen=True, slots=True, kw_only=True)
class Samples:
    """What the page shows of all answers."""

    prompts: Sequence[Asked]
    left_out: int
    """Prompts for which there was no room."""
    sources: Sequence[str]

    @property
    def who(self) -> list[str]:
        """Everybody who answers."""
        answers = (answer for asked in self.prompts for answer in asked.answers)
        return list(dict.fromkeys(name for answer in answers for name in answer.who))


@dataclass(frozen=True, slots=True)
class _Said:
    who: str
    place: str
    prompt: str
    text: str
    note: str
    last: bool = True


def side_by_side(
    runs: Sequence[PastRun], evaluations: Sequence[PastEvaluation], faults: list[str]
) -> Samples:
    """The first and last answers of every run, then what evaluations sampled; prompts in the order they came."""
    said: list[_Said] = []
    sources = []
    for run in runs:
        own = list(_of_run(run))
        said += own
        sources += [str(run.folder / "samples.jsonl")] if own else []
    for one in evaluations:
        own = list(_of_evaluation(one, runs, faults))
        said += own
        sources += [str(one.folder / f"{one.kind}.answers.jsonl")] if own else []
    by_prompt: dict[str, list[_Said]] = {}
    for answer in said:
        by_prompt.setdefault(answer.prompt, []).append(answer)
    kept: list[Asked] = []
    room = MOST_CHARACTERS
    for prompt, answers in by_prompt.items():
        room -= len(prompt) + sum(len(answer.text) for answer in answers)
        if len(kept) == MOST_PROMPTS or (kept and room < 0):
            break
        kept.append(Asked(prompt, sorted(_together(answers), key=lambda answer: answer.last)))
    return Samples(prompts=kept, left_out=len(by_prompt) - len(kept), sources=sources)


def _together(answers: Iterable[_Said]) -> list[Answer]:
    """Who said the same at the same step stands once: runs from one start begin alike."""
    found: dict[tuple[str, str, str], list[_Said]] = {}
    for one in answers:
        found.setdefault((one.place, one.text, one.note), []).append(one)
    return [
        Answer(
            tuple(dict.fromkeys(one.who for one in said)), place, text, note, any(one.last for one in said)
        )
        for (place, text, note), said in found.items()
    ]


def _of_run(run: PastRun) -> Iterable[_Said]:
    """Of each prompt the run's first answer and its last."""
    by_prompt: dict[str, dict[int, Mapping[str, Any]]] = {}
    for line in run.samples:
        by_prompt.setdefault(prompt_text(line.get("prompt")), {})[line["step"]] = line
    for prompt, lines in by_prompt.items():
        for step in dict.fromkeys((min(lines), max(lines))):
            line = lines[step]
            yield _Said(
                run.name,
                f"step {step}",
                prompt,
                str(line.get("completion", "")),
                _note(line),
                step == max(lines),
            )


def _note(line: Mapping[str, Any]) -> str:
    """What is known of an answer in numbers."""
    parts = []
    for key, name in (("reward", "reward"), ("kl", "KL")):
        value = finite(line.get(key))
        parts += [] if value is None else [f"{name} {value:.3g}"]
    here, there = finite(line.get("logp")), finite(line.get("reference_logp"))
    if here is not None and there is not None:
        parts.append(f"log π/π_ref {signed(here - there)}")
    return ", ".join([*parts, *(["cut"] if line.get("finish") == "length" else [])])


def _of_evaluation(one: PastEvaluation, runs: Sequence[PastRun], faults: list[str]) -> Iterable[_Said]:
    """First answers only, for an evaluation draws several; of checkpoints the last."""
    path = one.folder / f"{one.kind}.answers.jsonl"
    if not path.is_file():
        return
    names = {run.folder.resolve().name: run.name for run in runs}
    found: dict[tuple[str, ...], _Said] = {}
    damaged = 0
    with path.open(encoding="utf-8", errors="replace") as file:
        for number, text in enumerate(file):
            if number >= _ANSWERS:
                break
            try:
                row = json.loads(text)
                answer = row["completions"][0]
                given = str(row.get("run") or row.get("model") or "?")
                who = names.get(given.rstrip("/").rpartition("/")[2], given)
                place, prompt = _place(row, one), prompt_text(row["prompt"])
                # A later checkpoint of a run takes the place of an earlier one.
                key = (who, prompt) if place.startswith("step ") else (who, prompt, place)
                found[key] = _Said(who, place, prompt, str(answer["text"]), _note(answer))
            except (ValueError, KeyError, TypeError, IndexError, AttributeError, RecursionError):
                damaged += 1
    if damaged:
        faults.append(f"{path}: {damaged} lines are damaged and left out")
    yield from found.values()


def _place(row: Mapping[str, Any], one: PastEvaluation) -> str:
    if row.get("step") is not None:
        return f"step {row['step']}"
    if row.get("setting"):
        return f"{one.kind}, {row['setting']}"
    temperature = finite((row.get("sampling") or {}).get("temperature"))
    return one.kind if temperature is None else f"{one.kind}, temperature {temperature:g}"


def prompt_text(prompt: Any) -> str:
    """A prompt as one reads it.

    >>> prompt_text("Hi"), prompt_text([{"role": "user", "content": "Hi"}])
    ('Hi', 'user: Hi')
    """
    if isinstance(prompt, list) and all(isinstance(turn, dict) for turn in prompt):
        return "\n".join(f"{turn.get('role', '?')}: {turn.get('content', '')}" for turn in prompt)
    return str(prompt)
