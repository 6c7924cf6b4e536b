"""Prompts for the sentiment experiment: the first 2 to 8 tokens of texts, by a tokenizer, as rows with a prompt.

    python prefixes.py stanfordnlp/imdb:plain_text:train --model openai-community/gpt2-large --count 25000 --out P.jsonl

How many tokens is drawn for each text by the seed and its row. A prefix that does not come back as the same tokens
(half of a letter, say) is shortened until it does; a text that has none is left out.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from likelier.data.faults import Fault
from likelier.data.files import raw_rows
from likelier.data.output import JsonLines
from likelier.engines.noise import uniform
from likelier.errors import LikelierError
from likelier.models.loading import load_tokenizer

SHORTEST, LONGEST = 2, 8


def prefix(text: str, length: int, tokenizer: Any) -> str | None:
    """The first `length` tokens of `text`, or as many as come back as themselves; None below the shortest."""
    tokens = tokenizer(text[: 64 * LONGEST])["input_ids"]
    for size in range(min(length, len(tokens)), SHORTEST - 1, -1):
        start = tokenizer.decode(tokens[:size])
        if tokenizer(start)["input_ids"] == tokens[:size]:
            return str(start)
    return None


def prompts(data: str, tokenizer: Any, *, count: int, seed: int) -> Iterator[dict[str, str]]:
    """Rows with an id and a prompt, in an order drawn by the seed: data sets are often sorted by their labels."""
    texts = {
        item[0]: item[1]["text"]
        for item in raw_rows(data)
        if not isinstance(item, Fault) and isinstance(item[1], Mapping)
    }
    left = count
    for row in sorted(texts, key=lambda row: uniform(seed, "order", row)):
        length = SHORTEST + int(uniform(seed, "length", row) * (LONGEST - SHORTEST + 1))
        start = prefix(texts[row], length, tokenizer)
        if start is not None:
            yield {"id": f"{data}:{row}", "prompt": start}
            left -= 1
        if not left:
            return


def main() -> int:
    """The command."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("data", help="rows with a `text`: a file, or a hub name")
    parser.add_argument("--model", required=True, help="whose tokens are counted")
    parser.add_argument("--count", type=int, required=True, help="prefixes wanted, one a text")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, required=True)
    given = parser.parse_args()
    try:
        found = list(prompts(given.data, load_tokenizer(given.model), count=given.count, seed=given.seed))
        given.out.parent.mkdir(parents=True, exist_ok=True)
        with JsonLines(given.out) as file:
            for row in found:
                file.write(row)
    except LikelierError as error:
        print(f"prefixes.py: {error}", file=sys.stderr)
        return error.exit_code
    print(f"{len(found)} prefixes of {SHORTEST} to {LONGEST} tokens in {given.out}", file=sys.stderr)
    return 0


if __name__ == "__main__":
    sys.exit(main())
