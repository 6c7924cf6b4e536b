"""Prompts for the dialogue experiment: conversations of one question, with the answer that people preferred beside it.

python single_turn.py Anthropic/hh-rlhf:test --out single-turn.jsonl
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator
from pathlib import Path

from likelier.data.output import JsonLines
from likelier.data.reading import load_records
from likelier.errors import LikelierError

HUMAN = "\n\nHuman:"


def single_turns(data: str) -> Iterator[dict[str, str]]:
    """Rows with an id, a prompt and the answer preferred; each prompt once, since it is answered once."""
    seen = set()
    for record in load_records(data, skip_bad_rows=True)[0]:
        prompt, preferred = record.prompt, record.completions[0].content
        if (
            isinstance(prompt, str)
            and isinstance(preferred, str)
            and prompt.count(HUMAN) == 1
            and prompt not in seen
        ):
            seen.add(prompt)
            yield {"id": f"{data}:{record.row}", "prompt": prompt, "preferred": preferred}


def main() -> int:
    """The command."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("data", help="preferences in the form of HH: a file, or a hub name")
    parser.add_argument("--out", type=Path, required=True)
    given = parser.parse_args()
    try:
        found = list(single_turns(given.data))
        given.out.parent.mkdir(parents=True, exist_ok=True)
        with JsonLines(given.out) as file:
            for row in found:
                file.write(row)
    except LikelierError as error:
        print(f"single_turn.py: {error}", file=sys.stderr)
        return error.exit_code
    print(f"{len(found)} conversations of one question in {given.out}", file=sys.stderr)
    return 0


if __name__ == "__main__":
    sys.exit(main())
