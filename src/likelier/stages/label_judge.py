"""Preferences by a language model: each pair is shown in both orders, and what does not survive the swap is a tie.

    likelier label samples.jsonl --with judge --judge-model smollm2 --verdict log-odds --out preferences.jsonl
    likelier label samples.jsonl --with judge --judge openai --base-url http://gpu:8000/v1 --judge-model m --out p.jsonl

Every answer of the judge is kept by content at once (`engines/reply_cache.py`): a run that was killed goes on where it
was, and a second one costs nothing. Verdicts are read strictly. What cannot be read, and what a server failed to
answer, makes no row: it is counted, kept beside `--out` in `NAME.unjudged.jsonl`, and, where the server failed, asked
again by the next run.
"""

from __future__ import annotations

import contextlib
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

from likelier.data.labelled import labelled_row
from likelier.data.output import JsonLines
from likelier.data.reading import load_records
from likelier.engines.judge_figures import figures_of
from likelier.engines.judges import Said
from likelier.engines.judging import judge_cases, judge_notes, judge_of
from likelier.engines.protocol import Failure
from likelier.engines.rubric import Rubric, Verdict
from likelier.engines.verdicts import Judged, mean_gap, why_not
from likelier.errors import DataError, UsageError, WorkError
from likelier.stages.label_config import LabelConfig
from likelier.stages.label_outcome import Labelled, counted, say_faults, told, write_labelled
from likelier.stages.label_pairs import cases_of

Say = Callable[[str], None]


def label_by_judge(
    config: LabelConfig, samples: Any, judge_model: Any, tokenizer: Any, *, say: Say
) -> Labelled:
    """Has a judge compare the answers of `samples`; writes `config.out`, its manifest, and what was not judged.

    Raises:
        UsageError: a rubric, an address, a key or a model that cannot be used.
        DataError: samples that cannot be read, or without two answers to one prompt.
        WorkError: not one verdict could be had.
    """
    rubric = Rubric.read(config.rubric)
    _check_places(config)
    records, faults = load_records(samples, skip_bad_rows=True)
    say_faults(faults, say)
    assert config.pairs in (None, "all", "ring", "adjacent")  # others are refused
    cases, left_out = cases_of(records, config.pairs or "all")
    if not cases:
        why = counted(left_out) or "no prompt has two answers"
        raise DataError(f"{config.samples}: nothing to compare ({why}): give rows with two answers or more")
    judge = judge_of(config, judge_model, tokenizer, precision=config.precision)
    try:
        judged, known = judge_cases(judge, cases, config, min_gap=config.min_gap, say=say)
    finally:
        judge.close()
    labels = [one for one in judged if one.labelled]
    prompts = {one.case.prompt for one in labels}
    labelled = Labelled(
        rows=[_row(one, judge.name) for one in labels],
        prompts=len(prompts),
        all_answers=sum(len(record.completions) for record in records),
        pairs=sum(one.winner is not None for one in labels),
        undecided=len(records) - len(prompts),
        skipped=len(faults),
        left_out=left_out + Counter(why_not(one) for one in judged if not one.labelled),
        figures=figures_of(judged, asked=2 * len(cases) - known, known=known),
    )
    _write_unjudged(config.out, [one for one in judged if not one.labelled])
    if not labels:
        where = "" if config.out is None else f"; what it said is in {unjudged_path(config.out)}"
        raise WorkError(
            f"the judge gave no verdict on any of {len(cases)} pairs ({counted(labelled.left_out)}){where}"
        )
    write_labelled(config, labelled, faults, labels=_kind(config), rubric=rubric.text, judge=judge.identity)
    for line in [*told(labelled), *judge_notes(judge)]:
        say(line)
    return labelled


def _check_places(config: LabelConfig) -> None:
    """What was left unjudged may be judged again, but not into the place that would replace it while it is read."""
    if config.out is not None and unjudged_path(config.out).absolute() == config.samples.absolute():
        raise UsageError(
            f"--out {config.out} would replace {config.samples}, which is read; choose another --out"
        )


def unjudged_path(out: Path) -> Path:
    """Where pairs without a label are kept.

    >>> unjudged_path(Path("a/p.jsonl")).name
    'p.unjudged.jsonl'
    """
    return out.with_name(f"{out.stem}.unjudged.jsonl")


def _row(one: Judged, judge: str) -> dict[str, Any]:
    record = one.case.record
    if one.winner is None:
        record = replace(record, ranking=[[0, 1]], verdict="tie")
    else:
        answers = [record.completions[one.winner], record.completions[1 - one.winner]]
        record = replace(record, completions=answers, ranking=[[0], [1]])
    said = [reply for reply in one.replies if isinstance(reply, Said)]
    time = max(reply.time for reply in said)
    return labelled_row(record, labeller=f"judge {judge}", time=time, reason=_reason(one, said))


def _reason(one: Judged, said: list[Said]) -> str:
    if said[0].logps is not None:
        return f"P(first) - P(second) = {mean_gap(one):.4g} over both orders"
    texts = "\n\n".join(reply.text.strip() for reply in said)
    if one.winner is None and one.sides != ("tie", "tie"):
        return f"the two orders disagree ({one.sides[0]}, then {one.sides[1]})\n\n{texts}"
    return texts


def _write_unjudged(out: Path | None, judged: list[Judged]) -> None:
    """Pairs without a label, as rows that can be labelled again, with all that was said; none, and no file."""
    if out is None:
        return
    path = unjudged_path(out)
    if not judged:
        path.unlink(missing_ok=True)
        return
    with contextlib.suppress(OSError):
        path.parent.mkdir(parents=True, exist_ok=True)
    with JsonLines(path) as file:
        for one in judged:
            row = labelled_row(one.case.record, labeller="", time="", reason=why_not(one))
            replies = [_kept(reply, side) for reply, side in zip(one.replies, one.sides, strict=True)]
            file.write({**row, "replies": replies})


def _kept(reply: Said | Failure, side: Verdict | None) -> dict[str, Any]:
    if isinstance(reply, Failure):
        return {"failed": reply.reason, "detail": reply.detail, "attempts": reply.attempts}
    return {"verdict": side, "text": reply.text, "logps": reply.logps, "time": reply.time}


def _kind(config: LabelConfig) -> str:
    if config.verdict == "log-odds":
        return "by a judge: the sign of P(A) - P(B) at its verdict, averaged over both orders of the answers"
    return "by a judge asked in both orders of the answers; verdicts that differ are a tie"
