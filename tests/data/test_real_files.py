"""Every reader on its real file; the counts are those of the files' own descriptions."""

from __future__ import annotations

import gzip
import json
import zipfile
from collections import Counter
from pathlib import Path

import pytest

from likelier.cli import main as command_line
from likelier.data.canonical import canonical_row
from likelier.data.faults import Fault
from likelier.data.reading import read
from likelier.data.records import Record
from likelier.data.repeats import strict_pairs


def both(path: Path, **options: bool) -> tuple[list[Record], list[Fault]]:
    items = list(read(path, **options))  # type: ignore[arg-type]
    return [i for i in items if isinstance(i, Record)], [i for i in items if isinstance(i, Fault)]


def test_hh_prompts_and_answers_are_the_transcripts(shared_data: Path) -> None:
    path = shared_data / "hh-rlhf/helpful-base/test.jsonl.gz"
    records, faults = both(path)
    with gzip.open(path, "rt", encoding="utf-8") as file:
        rows = [json.loads(line) for line in file]
    assert (len(records), len(rows)) == (2352, 2354)
    assert [(fault.row, fault.kind) for fault in faults] == [
        (n, "chosen equals rejected") for n in (722, 2169)
    ]
    for record in records:
        chosen, rejected = (completion.content for completion in record.completions)
        assert isinstance(record.prompt, str)
        assert record.prompt.endswith("\n\nAssistant:")
        assert f"{record.prompt}{chosen}" == rows[record.row - 1]["chosen"]
        assert f"{record.prompt}{rejected}" == rows[record.row - 1]["rejected"]


def test_hh_as_turns_begins_with_the_user_and_leaves_out_the_four_blank_answers(shared_data: Path) -> None:
    records, faults = both(shared_data / "hh-rlhf/helpful-base/test.jsonl.gz", as_messages=True)
    assert Counter(fault.kind for fault in faults) == {"chosen equals rejected": 2, "empty answer": 4}
    assert all(record.prompt[0]["role"] == "user" for record in records)  # type: ignore[index]
    assert all(record.prompt[-1]["role"] == "user" for record in records)  # type: ignore[index]


def test_oasst_turns_and_pairs(shared_data: Path) -> None:
    records, faults = both(shared_data / "oasst-en100/en_100_tree.jsonl")
    assert (len(records), faults) == (212, [])
    assert sum(len(list(strict_pairs(record))) for record in records) == 754


def test_pandalm_majorities(shared_data: Path) -> None:
    path = shared_data / "pandalm-testset/testset-v1.json"
    records, faults = both(path)
    rows = json.loads(path.read_text(encoding="utf-8"))
    assert len(records) + len(faults) == 999
    assert Counter(fault.kind for fault in faults) == {"empty answer": 54, "wrong type": 6}
    votes: Counter[str] = Counter()
    for record in records:
        row = rows[record.row - 1]
        first = record.completions[0].content
        votes["tie" if record.verdict else "1" if first == row["response1"] else "2"] += 1
    for fault in faults:  # what the faulty rows' annotators said, to make up the published counts
        given = [rows[fault.row - 1][f"annotator{n}"] for n in (1, 2, 3)]
        vote, count = Counter(given).most_common(1)[0]
        votes["tie" if vote == 0 or count < 2 else str(vote)] += 1
    assert votes == {"1": 422, "2": 472, "tie": 105}


def test_llamafactory_pairs_and_labels(shared_data: Path) -> None:
    pairs, faults = both(shared_data / "llamafactory-dpo-demo/dpo_en_demo.json")
    assert (len(pairs), faults) == (300, [])
    assert {record.prompt[-1]["role"] for record in pairs} == {"user"}  # type: ignore[index]
    assert Counter(record.prompt[0]["role"] for record in pairs)["system"] == 80  # type: ignore[index]
    labelled, faults = both(shared_data / "llamafactory-dpo-demo/kto_en_demo.json")
    assert (Counter(record.label for record in labelled), faults) == ({True: 150, False: 150}, [])


def prompts(path: Path) -> list[Record]:
    items = list(read(path, format="prompts"))
    assert all(isinstance(item, Record) and not item.completions for item in items)
    return [item for item in items if isinstance(item, Record)]


def test_prompt_files(shared_data: Path) -> None:
    assert len(prompts(shared_data / "oasst-en100/prompt_lottery_en_250_text.jsonl")) == 250
    vicuna = prompts(shared_data / "prompts/fastchat/vicuna_bench_question.jsonl")
    assert [record.id for record in vicuna] == [str(number) for number in range(1, 81)]
    assert vicuna[0].prompt == "How can I improve my time management skills?"


def test_self_instruct_questions_have_their_inputs(shared_data: Path) -> None:
    path = shared_data / "prompts/self-instruct/user_oriented_instructions.jsonl"
    records = prompts(path)
    rows = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    assert len(records) == len(rows) == 252
    for record, row in zip(records, rows, strict=True):
        given = row["instances"][0]["input"]
        assert record.prompt == (f"{row['instruction']}\n{given}" if given else row["instruction"])
        assert record.id == row["id"]


def test_film_texts_are_read_as_text_and_as_labelled_answers(shared_data: Path) -> None:
    with zipfile.ZipFile(shared_data / "movie/movie_reviews.zip") as archive:
        reviews = [
            archive.read(name).decode("latin-1") for name in archive.namelist() if name.endswith(".txt")
        ]
    records = list(read([{"text": review} for review in reviews]))
    assert len(records) == 2000
    assert [r.completions[0].content for r in records if isinstance(r, Record)] == reviews
    rows = []
    with zipfile.ZipFile(shared_data / "movie/sentence_polarity.zip") as archive:
        for ending, label in (("pos", True), ("neg", False)):
            lines = archive.read(f"sentence_polarity/rt-polarity.{ending}").decode("latin-1").splitlines()
            rows += [{"prompt": "", "completion": line, "label": label} for line in lines]
    labels = Counter(item.label if isinstance(item, Record) else item.kind for item in read(rows))
    assert labels == {True: 5331, False: 5331}


COMMANDS = {
    "hh-rlhf/helpful-base/test.jsonl.gz": (2354, 2, {"pair": 2352}),
    "oasst-en100/en_100_tree.jsonl": (100, 0, {"pair": 57, "ranking": 155}),
    "pandalm-testset/testset-v1.json": (999, 60, {"pair": 836, "tie": 103}),
    "llamafactory-dpo-demo/dpo_en_demo.json": (300, 0, {"pair": 300}),
    "llamafactory-dpo-demo/kto_en_demo.json": (300, 0, {"unpaired": 300}),
}


@pytest.mark.parametrize("name", COMMANDS)
def test_the_command_on_the_real_file(
    name: str, shared_data: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rows, unusable, forms = COMMANDS[name]
    assert command_line(["check", "--data", str(shared_data / name), "--json"]) == int(unusable > 0)
    found = json.loads(capsys.readouterr().out)
    assert (found["rows"], found["unusable"], found["forms"]) == (rows, unusable, forms)


def test_real_records_read_back_from_their_canonical_rows(shared_data: Path) -> None:
    for name in (
        "hh-rlhf/helpful-base/test.jsonl.gz",
        "oasst-en100/en_100_tree.jsonl",
        "pandalm-testset/testset-v1.json",
    ):
        for record in both(shared_data / name)[0]:
            (again,) = read([json.loads(json.dumps(canonical_row(record)))])
            assert isinstance(again, Record)
            assert canonical_row(again) == canonical_row(record)
            assert (again.prompt, again.completions, again.ranking) == (
                record.prompt,
                record.completions,
                record.ranking,
            )
