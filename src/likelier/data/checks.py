"""Checks of text, before any tokenizer: fed record by record, keeping no more than digests and lengths.

Faults make a row unusable. Warnings do not: duplicates, one pair labelled both ways, answers that stand in
their prompt, empty prompts and the like are counted, and a human decides.
"""

from __future__ import annotations

from array import array
from collections import Counter
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from likelier.data.faults import Fault
from likelier.data.length_bias import LengthBias, Longer
from likelier.data.records import Content, Record
from likelier.data.repeats import Seen, strict_pairs

LEAST_LEAK = 16
"""Characters below which an answer is no leak for standing in its prompt: `Yes` stands in many."""

_ROW_BITS = 40


class Example(NamedTuple):
    """Where a kind of fault or warning was met, and in what words."""

    file: str
    row: int
    message: str


@dataclass(frozen=True, slots=True)
class Summary:
    """What the checks found."""

    files: list[str]
    """Where the rows stand."""
    rows: int
    unusable: int
    """Rows that are faults; the others gave `records`."""
    records: int
    forms: Counter[str]
    """Records by what they say: pair, ranking, tie, both_bad, unpaired, single, unlabelled."""
    faults: Counter[str]
    warnings: Counter[str]
    examples: dict[str, list[Example]]
    """The first few of every kind."""
    bias: LengthBias
    lengths: dict[str, npt.NDArray[np.uint32]]
    """Characters of prompts, and of chosen, rejected and other answers."""


@dataclass(slots=True)
class TextChecks:
    """Feed it records and faults with `add`, then ask for the `summary`.

    >>> from likelier.data.reading import read
    >>> checks = TextChecks()
    >>> for item in read([{"prompt": "Hi", "chosen": "Hello", "rejected": "No"}] * 2):
    ...     checks.add(item)
    >>> checks.summary().warnings
    Counter({'joined words': 2, 'duplicate': 1})
    """

    keep: int = 3
    """How many examples of a kind to keep."""
    faults: Counter[str] = field(default_factory=Counter)
    warnings: Counter[str] = field(default_factory=Counter)
    forms: Counter[str] = field(default_factory=Counter)
    examples: dict[str, list[Example]] = field(default_factory=dict)
    _files: dict[str, int] = field(default_factory=dict)
    _rows: int = 0
    _places: array[int] = field(default_factory=lambda: array("Q"))
    _seen: Seen = field(default_factory=Seen)
    _longer: Longer = field(default_factory=Longer)
    _lengths: dict[str, array[int]] = field(default_factory=dict)

    def add(self, item: Record | Fault) -> None:
        """Takes one more record or fault into account."""
        place = self._place(item)
        if isinstance(item, Fault):
            self._rows += 1
            self.faults[item.kind] += 1
            self._example(item.kind, item.file, item.row, item.message)
            return
        self._rows += not self._places or self._places[-1] != place
        self._places.append(place)
        self.forms[form_of(item)] += 1
        self._check_text(item)
        self._seen.add(item)

    @property
    def rows(self) -> int:
        """Rows seen so far."""
        return self._rows

    def _place(self, item: Record | Fault) -> int:
        number = self._files.setdefault(item.file, len(self._files))
        return number << _ROW_BITS | item.row

    def _example(self, kind: str, file: str, row: int, message: str) -> None:
        found = self.examples.setdefault(kind, [])
        if len(found) < self.keep:
            found.append(Example(file, row, message))

    def _warn(self, record: Record, kind: str, message: str) -> None:
        self.warnings[kind] += 1
        self._example(kind, record.file, record.row, message)

    def _check_text(self, record: Record) -> None:
        prompt = text_of(record.prompt)
        answers = [text_of(completion.content) for completion in record.completions]
        self._measure(record, prompt, answers)
        if not prompt.strip() and (record.label is not None or len(answers) > 1):
            self._warn(
                record, "empty prompt", "the prompt is empty: without a BOS token the first token is unscored"
            )
        for answer in answers:
            if not answer.strip() and isinstance(record.prompt, str):
                self._warn(record, "blank answer", "an answer is white space alone")
            elif len(answer.strip()) >= LEAST_LEAK and answer.strip() in prompt:
                self._warn(record, "answer in prompt", f"an answer stands in its prompt: {_shown(answer)}")
        if isinstance(record.prompt, list) and record.prompt and record.prompt[-1]["role"] == "assistant":
            message = (
                "the prompt ends with an assistant's turn, and the answer is another: a user's is missing"
            )
            self._warn(record, "no user turn", message)
        if len(prompt) >= LEAST_LEAK and answers and all(answer.startswith(prompt) for answer in answers):
            message = (
                "every answer begins with the whole prompt, which is read twice: take it off the answers"
            )
            self._warn(record, "prompt in answers", message)
        if isinstance(record.prompt, str) and any(_joins(prompt, answer) for answer in answers):
            seam = f"{prompt[-12:]}|{answers[0][:12]}"
            self._warn(record, "joined words", f"prompt and answer meet inside a word: {_shown(seam)}")

    def _measure(self, record: Record, prompt: str, answers: list[str]) -> None:
        self._length("prompt", len(prompt))
        best, worst = _ends(record)
        for index, answer in enumerate(answers):
            side = "chosen" if index in best else "rejected" if index in worst else "answer"
            self._length(side, len(answer))
        order: Counter[int] = Counter()
        for chosen, rejected in strict_pairs(record):
            difference = len(answers[chosen]) - len(answers[rejected])
            order[(difference > 0) - (difference < 0)] += 1
        if order:
            self._longer.add(order)

    def _length(self, name: str, length: int) -> None:
        self._lengths.setdefault(name, array("I")).append(length)

    def summary(self) -> Summary:
        """All counts; duplicates and contradictions are found here, by sorting digests."""
        warnings, examples = self.warnings.copy(), {kind: [*found] for kind, found in self.examples.items()}
        for kind, message, repeats in (
            ("duplicate", "says the same as", self._seen.duplicates()),
            ("labelled both ways", "prefers the other answer than", self._seen.contradictions()),
        ):
            if len(repeats):
                warnings[kind] = len(repeats)
                examples[kind] = [self._repeat(message, *pair) for pair in repeats[: self.keep].tolist()]
        return Summary(
            files=list(self._files),
            rows=self._rows,
            unusable=self.faults.total(),
            records=len(self._places),
            forms=self.forms.copy(),
            faults=self.faults.copy(),
            warnings=warnings,
            examples=examples,
            bias=self._longer.bias(),
            lengths={name: np.array(values, np.uint32) for name, values in self._lengths.items()},
        )

    def _repeat(self, message: str, first: int, later: int) -> Example:
        file, row = self._where(later)
        return Example(file, row, "{} {}, row {}".format(message, *self._where(first)))

    def _where(self, record: int) -> tuple[str, int]:
        place = self._places[record]
        return list(self._files)[place >> _ROW_BITS], place & (1 << _ROW_BITS) - 1


def form_of(record: Record) -> str:
    """What a record says: a verdict, a label, a pair, a ranking, or one answer to imitate."""
    if record.verdict is not None:
        return record.verdict
    if record.label is not None:
        return "unpaired"
    if record.ranking is None:
        return "unlabelled"
    if len(record.completions) == 1:
        return "single"
    if len(record.ranking) == 1:
        return "tie"
    return "pair" if len(record.completions) == 2 else "ranking"


def _ends(record: Record) -> tuple[set[int], set[int]]:
    """The answers at the top and at the bottom of a record, where there is a difference."""
    if record.ranking is None or len(record.ranking) < 2:
        return set(), set()
    return set(record.ranking[0]), set(record.ranking[-1])


def text_of(content: Content) -> str:
    """The text of a prompt or an answer, without roles."""
    return content if isinstance(content, str) else "\n".join(turn["content"] for turn in content)


def _joins(prompt: str, answer: str) -> bool:
    """Whether two texts meet inside a word, in scripts that put spaces between words."""
    seam = prompt[-1:] + answer[:1]
    return len(seam) == 2 and seam.isascii() and seam.isalnum()


def _shown(text: str, limit: int = 60) -> str:
    return repr(text if len(text) <= limit else text[:limit] + "…")
