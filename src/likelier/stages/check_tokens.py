"""What `likelier check --model` looks at: rows as tokens, cut, split, rendered and marked as training would."""

from __future__ import annotations

import json
from array import array
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

from likelier.data.canonical import canonical_row
from likelier.data.faults import Fault
from likelier.data.records import Record

if TYPE_CHECKING:
    from rich.text import Text

    from likelier.data.trees import Tree
    from likelier.stages.check_config import CheckConfig

TOO_LONG = "longer than the model's context"


@dataclass(slots=True)
class TokenFindings:
    """What tokenising found, summed over all chunks."""

    counts: Counter[str] = field(default_factory=Counter)
    examples: dict[str, list[str]] = field(default_factory=dict)
    prompts: array[int] = field(default_factory=lambda: array("I"))
    """Tokens of each prompt, and below of each answer."""
    answers: array[int] = field(default_factory=lambda: array("I"))
    decoded: Text | None = None
    """Examples in words, the trained tokens marked."""


class TokenChecks:
    """Encodes records chunk by chunk as training would, and keeps counts alone."""

    def __init__(self, config: CheckConfig) -> None:
        from likelier.data.tokens import Tokenization
        from likelier.models.loading import load_tokenizer

        self.config = config
        self._context = _context(str(config.model))
        # Made once: reading a vocabulary takes as long as checking a thousand rows.
        self.tokenization = Tokenization.of(load_tokenizer(str(config.model)))
        self.found = TokenFindings()

    def without_refused(self, chunk: Iterable[Record | Fault]) -> Iterator[Record | Fault]:
        """The chunk again; a row that cannot become tokens is one fault, whatever records it holds."""
        items = list(chunk)
        refused = self._encode([item for item in items if isinstance(item, Record)])
        told: set[tuple[str, int]] = set()
        for item in items:
            fault = refused.get((item.file, item.row)) if isinstance(item, Record) else None
            if fault is None or isinstance(item, Fault):
                yield item
            elif (item.file, item.row) not in told:
                told.add((item.file, item.row))
                yield replace(fault, raw=canonical_row(item))

    def _encode(self, records: list[Record]) -> dict[tuple[str, int], Fault]:
        from likelier.data.encoding import encode
        from likelier.data.showing import rich_examples

        encoded = encode(
            records,
            self.tokenization,
            need="completions",
            max_length=self.config.max_length,
            as_messages=False,  # `read` has made turns of strings already
            allow_template_edits=self.config.allow_template_edits,
            cut_answers=self.config.cut_answers,
            group_prompts=False,
        )
        self.found.counts.update(encoded.counts)
        for kind, places in encoded.examples.items():
            self._note(kind, places, counted=True)
        refused = {(fault.file, fault.row): fault for fault in encoded.refused}
        for tree in encoded.trees:
            record = records[tree.sources[0][0][0]]
            self._measure(tree, record)
            if fault := _identical(tree, record):
                refused.setdefault((fault.file, fault.row), fault)
        if self.found.decoded is None and encoded.trees and self.config.examples:
            self.found.decoded = rich_examples(encoded.trees, self.tokenization, number=self.config.examples)
        return refused

    def _measure(self, tree: Tree, record: Record) -> None:
        trunk = sum(len(tree.nodes[step].tokens) for step in tree.path(tree.branches[0])[:-1])
        longest = max(len(tree.nodes[node].tokens) for node in tree.branches)
        self.found.prompts.append(trunk)
        self.found.answers.extend(map(tree.branch_length, range(len(tree.branches))))
        if self._context is not None and trunk + longest > self._context:
            place = (
                f"{record.where}: {trunk + longest} tokens, and the model reads {self._context}: --max-length"
            )
            self._note(TOO_LONG, [place])

    def _note(self, kind: str, places: list[str], *, counted: bool = False) -> None:
        """Keeps the first few places of a kind; counts them, unless they are counted already."""
        self.found.counts[kind] += 0 if counted else len(places)
        kept = self.found.examples.setdefault(kind, [])
        kept.extend(places[: max(0, self.config.examples - len(kept))])


def _identical(tree: Tree, record: Record) -> Fault | None:
    """The fault of a row whose answers, ranked apart, are the same tokens: training would refuse it."""
    if len(tree.branches) > 1 or len(record.ranking or ()) < 2:
        return None
    message = "all its answers are the same tokens: there is nothing to prefer; delete the row"
    return Fault(record.file, record.row, None, "identical", message)


def _context(model: str) -> int | None:
    """The tokens that a model reads at most; None where its `config.json` does not say, or there is none."""
    from likelier.models.sources import find_source

    source = find_source(model, weights=False)
    path = source.path / "config.json"
    if source.kind not in ("folder", "hub") or not path.is_file():
        return None
    try:
        config = json.loads(path.read_text(encoding="utf-8"))
        positions = config.get("text_config", config).get("max_position_embeddings")
    except (OSError, ValueError, AttributeError):  # training says what is wrong with the folder
        return None
    return positions if isinstance(positions, int) else None
