"""The pairs that both sides read: one JSONL of raw text, the same bytes for TRL and for likelier.

Three sets are written into the folder: `hh` (real pairs of HH helpful-base where the file is there, else
made ones of the same lengths), and two sets of made groups of four ranked answers, `group-hh` (prompts of
125 tokens, answers of 45) and `group-short` (prompts of 6). A group is one line with a ranking for
likelier and six pairs for TRL.

    python -m benchmarks.pairs --model FOLDER --hh HH/test.jsonl.gz --folder WORK --out SAID.json
"""

from __future__ import annotations

import gzip
import itertools
import json
import os
import random
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

from benchmarks.common import parser

Row = dict[str, Any]

LONGEST = 512
"""Pairs with a branch (prompt, answer, end of turn) past this are left out: no side ever truncates."""
STRATA = 8
MARKER = "\n\nAssistant:"
ANSWERS = 4
GROUP_LENGTHS = {"group-hh": (125, 45), "group-short": (6, 45)}
"""Tokens of the prompt and of each answer, its end of turn included."""
HH_LENGTHS = (
    (20, 6, 23), (23, 36, 8), (15, 48, 18), (15, 67, 11), (21, 22, 63), (33, 52, 34),
    (25, 25, 79), (21, 114, 8), (20, 80, 57), (117, 44, 8), (166, 12, 6), (108, 15, 73),
    (49, 117, 43), (133, 43, 48), (204, 27, 10), (34, 160, 64), (166, 28, 80), (139, 130, 22),
    (31, 248, 33), (253, 38, 44), (330, 10, 25), (319, 58, 24), (362, 75, 11), (376, 88, 49),
)  # fmt: skip
"""Tokens of prompt, chosen and rejected in 24 pairs at equal quantiles of HH helpful-base, for made pairs."""
WORDS = """
time year people way day man thing woman life child world school state family student group country
problem hand part place case week company system program question work government number night point
home water room mother area money story fact month lot right study book eye job word business issue
side kind head house service friend father power hour game line end member law car city community
name president team minute idea kid body information back parent face others level office door
health person art war history party result change morning reason research girl guy moment air
teacher force education
""".split()  # noqa: SIM905


class Lengths:
    """Counts tokens as both sides do: no special tokens added, one end of turn after each answer."""

    def __init__(self, tokenizer: Any) -> None:
        self._tokenizer = tokenizer

    def __call__(self, text: str) -> list[int]:
        return list(self._tokenizer(text, add_special_tokens=False)["input_ids"])

    def splits(self, prompt: str, answer: str) -> bool:
        """Whether the text's own tokens do not merge across the boundary (the two sides may differ there)."""
        return self(prompt) + self(answer) == self(prompt + answer)

    def of(self, row: Row) -> tuple[int, int, int]:
        """Tokens of prompt, chosen and rejected, end of turn included."""
        return len(self(row["prompt"])), len(self(row["chosen"])) + 1, len(self(row["rejected"])) + 1


def hh_rows(path: Path) -> Iterator[Row]:
    """Prompt and answers of every HH transcript whose two sides part after an assistant marker."""
    with gzip.open(path, "rt", encoding="utf-8") as lines:
        for line in lines:
            row = json.loads(line)
            chosen, rejected = row["chosen"], row["rejected"]
            shared = os.path.commonprefix([chosen, rejected])  # noqa: RUF071 - characters are meant
            start = shared.rfind(MARKER)
            if start < 0 or chosen == rejected:
                continue
            start += len(MARKER)
            yield {"prompt": chosen[:start], "chosen": chosen[start:], "rejected": rejected[start:]}


def usable(rows: Iterable[Row], lengths: Lengths) -> list[Row]:
    """Rows with two answers, no merge across the boundary and no branch past `LONGEST`."""
    return [
        row
        for row in rows
        if row["chosen"].strip()
        and row["rejected"].strip()
        and all(lengths.splits(row["prompt"], row[side]) for side in ("chosen", "rejected"))
        and lengths.of(row)[0] + max(lengths.of(row)[1:]) <= LONGEST
    ]


def at_quantiles(rows: Sequence[Row], sizes: Sequence[int], count: int) -> list[Row]:
    """`count` rows at equal quantiles of size; every run of `STRATA` rows has one from each eighth.

    So a line of the table that is timed on the first 8 or 16 pairs reads about the lengths of one on all.
    """
    order = sorted(range(len(rows)), key=lambda index: (sizes[index], index))
    picked = [rows[order[int((quantile + 0.5) * len(order) / count)]] for quantile in range(count)]
    return in_strata(picked)


def in_strata(rows: Sequence[Row]) -> list[Row]:
    """Rows sorted by size, dealt into runs of `STRATA` with one row of each stratum, shuffled inside."""
    shuffler = random.Random(0)
    height = len(rows) // STRATA
    strata = [shuffler.sample(rows[i * height : (i + 1) * height], height) for i in range(STRATA)]
    runs = [[stratum[turn] for stratum in strata] for turn in range(height)]
    return [row for run in runs for row in shuffler.sample(run, len(run))]


class Words:
    """Deterministic text of an exact number of tokens: words that are one token each after a space."""

    def __init__(self, lengths: Lengths, seed: int = 0) -> None:
        self._words = [word for word in WORDS if len(lengths(" " + word)) == 1]
        self._random = random.Random(seed)
        if len(self._words) < 16:
            raise SystemExit(
                "this tokenizer splits common words: made pairs need a model with English tokens"
            )

    def text(self, tokens: int) -> str:
        return "".join(" " + word for word in self._random.choices(self._words, k=tokens))


def made_pairs(lengths: Lengths, count: int) -> list[Row]:
    """Pairs of made text with the lengths of HH."""
    words = Words(lengths)
    rows = [
        {"prompt": words.text(prompt), "chosen": words.text(chosen - 1), "rejected": words.text(rejected - 1)}
        for prompt, chosen, rejected in itertools.islice(itertools.cycle(HH_LENGTHS), count)
    ]
    return at_quantiles(rows, [sum(lengths.of(row)) for row in rows], count)


def made_groups(lengths: Lengths, groups: int, prompt: int, answer: int) -> list[Row]:
    """Groups of one prompt and four answers, ranked in the order written."""
    words = Words(lengths, seed=prompt)
    return [
        {
            "prompt": words.text(prompt),
            "completions": [words.text(answer - 1) for _ in range(ANSWERS)],
            "ranking": [[index] for index in range(ANSWERS)],
        }
        for _ in range(groups)
    ]


def pairs_of(group: Row) -> list[Row]:
    """The six pairs of four ranked answers, the better one chosen."""
    return [
        {"prompt": group["prompt"], "chosen": better, "rejected": worse}
        for better, worse in itertools.combinations(group["completions"], 2)
    ]


def write(path: Path, rows: Sequence[Row]) -> None:
    path.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), encoding="utf-8")


def write_all(folder: Path, lengths: Lengths, hh: Path, *, count: int, groups: int) -> dict[str, Any]:
    """Write every set into `folder`; returns what is to be said about them."""
    folder.mkdir(parents=True, exist_ok=True)
    if hh.exists():
        rows = usable(hh_rows(hh), lengths)
        chosen = at_quantiles(rows, [sum(lengths.of(row)) for row in rows], count)
        source = (
            f"{count} of {len(rows)} usable pairs of HH helpful-base (test), at equal quantiles of length"
        )
    else:
        chosen, source = made_pairs(lengths, count), f"{count} made pairs with the lengths of HH helpful-base"
    write(folder / "hh.jsonl", chosen)
    for name, (prompt, answer) in GROUP_LENGTHS.items():
        made = made_groups(lengths, groups, prompt, answer)
        write(folder / f"{name}.jsonl", made)
        write(folder / f"{name}-pairs.jsonl", [pair for group in made for pair in pairs_of(group)])
    means = [sum(column) / count for column in zip(*(lengths.of(row) for row in chosen), strict=True)]
    return {"source": source, "mean_tokens": dict(zip(("prompt", "chosen", "rejected"), means, strict=True))}


def main() -> None:
    from transformers import AutoTokenizer

    arguments = parser(__doc__)
    arguments.add_argument(
        "--hh", type=Path, default=Path("../shared/data/hh-rlhf/helpful-base/test.jsonl.gz")
    )
    arguments.add_argument("--folder", required=True, type=Path)
    arguments.add_argument("--pairs", type=int, default=48)
    arguments.add_argument("--groups", type=int, default=16)
    options = arguments.parse_args()
    if options.pairs % STRATA:
        arguments.error(f"--pairs must be a multiple of {STRATA}")
    lengths = Lengths(AutoTokenizer.from_pretrained(options.model))
    said = write_all(options.folder, lengths, options.hh, count=options.pairs, groups=options.groups)
    options.out.write_text(json.dumps(said))


if __name__ == "__main__":
    main()
