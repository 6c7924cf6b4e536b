"""`likelier check`: exit codes, the table, JSON, and the files it writes."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from likelier.data.reading import read
from likelier.data.records import Record
from likelier.errors import DataError, UsageError, WorkError
from likelier.stages.check import main, parse_columns
from likelier.stages.check_config import CheckConfig
from likelier.stages.check_lengths import histogram, print_lengths

GOOD = {"prompt": "How are you?", "chosen": " Fine, thanks.", "rejected": " Go away."}
BAD = [{**GOOD, "chosen": None}, {**GOOD, "rejected": GOOD["chosen"]}, {**GOOD, "prompt": "\ud800"}]


def write(path: Path, rows: list[Any]) -> str:
    path.write_text("".join((row if isinstance(row, str) else json.dumps(row)) + "\n" for row in rows))
    return str(path)


def run(*data: str, **settings: Any) -> int:
    return main(CheckConfig.build({"data": list(data), **settings}))


def result(capsys: pytest.CaptureFixture[str]) -> dict[str, Any]:
    captured = capsys.readouterr()
    loaded: dict[str, Any] = json.loads(captured.out)
    assert captured.err == ""
    return loaded


def test_good_data_is_exit_0(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(write(tmp_path / "a.jsonl", [GOOD])) == 0
    out = capsys.readouterr().out
    assert "1 row, 0 unusable; 1 record (1 pair)" in out
    assert "--model" in out
    assert "--fix" not in out


def test_unusable_rows_are_exit_1_and_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    name = write(tmp_path / "a.jsonl", [GOOD, *BAD, "{"])
    assert run(name, json_=True) == 1
    found = result(capsys)
    assert (found["rows"], found["unusable"], found["records"]) == (5, 4, 1)
    assert found["faults"] == {"null": 1, "chosen equals rejected": 1, "lone surrogate": 1, "malformed": 1}
    place = found["examples"]["malformed"][0]
    assert (place["file"], place["row"]) == (name, 5)


def test_data_that_cannot_be_read_is_an_error(tmp_path: Path) -> None:
    for name in (str(tmp_path / "none.jsonl"), write(tmp_path / "empty.jsonl", [])):
        with pytest.raises(DataError, match=Path(name).name):
            run(name)


def test_usable_and_unusable_rows_are_written_apart(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    tie = {"prompt": "p?", "a": "x", "b": "y", "winner": "both_bad", "weight": 0.5}
    ranked = {"prompt": "p?", "completions": ["x", "y", "z"], "scores": [1, 3, 3]}
    name = write(tmp_path / "a.jsonl", [GOOD, BAD[0], tie, "{", ranked, {"text": "t"}])
    clean, rejected = tmp_path / "clean.jsonl", tmp_path / "bad.jsonl"
    assert run(name, fix=clean, rejected=rejected, json_=True) == 1
    kept = [item for item in read(name) if isinstance(item, Record)]
    again = [item for item in read(clean) if isinstance(item, Record)]
    assert [r.id for r in again] == ["1", "3", "5", "6"]
    fields = ("id", "prompt", "completions", "ranking", "scores", "verdict", "weight")
    assert [[getattr(r, f) for f in fields] for r in again] == [[getattr(r, f) for f in fields] for r in kept]
    reasons = [json.loads(line) for line in rejected.read_text().splitlines()]
    assert [(r["file"], r["row"], r["kind"]) for r in reasons] == [(name, 2, "null"), (name, 4, "malformed")]
    assert (reasons[0]["field"], reasons[0]["raw"]) == ("chosen", BAD[0])
    assert reasons[1]["raw"] == "{"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.jsonl", "bad.jsonl", "clean.jsonl"]
    capsys.readouterr()
    assert run(str(clean)) == 0


def test_a_check_that_fails_leaves_no_file(tmp_path: Path) -> None:
    clean = tmp_path / "clean.jsonl"
    clean.write_text("before")
    with pytest.raises(DataError):
        run(write(tmp_path / "a.jsonl", [GOOD]), write(tmp_path / "empty.jsonl", []), fix=clean)
    assert clean.read_text() == "before"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.jsonl", "clean.jsonl", "empty.jsonl"]


@pytest.mark.parametrize(
    "settings", [{"fix": "a.jsonl"}, {"rejected": "a.jsonl"}, {"fix": "x", "rejected": "x"}]
)
def test_outputs_may_not_replace_inputs_or_each_other(settings: dict[str, str], tmp_path: Path) -> None:
    name = write(tmp_path / "a.jsonl", [GOOD])
    with pytest.raises(UsageError):
        run(f"{name}=0.5", **{key: tmp_path / value for key, value in settings.items()})
    assert Path(name).read_text() == json.dumps(GOOD) + "\n"


@pytest.mark.parametrize("setting", ["fix", "rejected"])
def test_outputs_are_not_named_what_they_are_not(setting: str, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"out\.csv would hold JSON Lines"):
        run(write(tmp_path / "a.jsonl", [GOOD]), **{setting: tmp_path / "out.csv"})


def test_a_folder_that_is_not_there_is_a_named_error(tmp_path: Path) -> None:
    with pytest.raises(WorkError, match="cannot write"):
        run(write(tmp_path / "a.jsonl", [GOOD]), fix=tmp_path / "none" / "clean.jsonl")


def test_token_settings_need_a_model(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="--model"):
        run(write(tmp_path / "a.jsonl", [GOOD]), max_length=8)


@pytest.mark.parametrize("text", ["prompt", "prompt=", "=x"])
def test_columns_that_say_nothing_are_refused(text: str) -> None:
    with pytest.raises(UsageError, match="--columns"):
        parse_columns(text)


def test_columns_and_format_reach_the_reader(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    name = write(tmp_path / "a.jsonl", [{"q": "p?", "good": "x", "bad": "y"}])
    assert run(name, columns="prompt=q,chosen=good,rejected=bad", json_=True) == 0
    assert result(capsys)["forms"] == {"pair": 1}
    assert run(write(tmp_path / "b.jsonl", [{"prompt": "p"}]), format="prompts", json_=True) == 0


def test_length_bias_has_its_interval(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    long = {"prompt": "p?", "chosen": "xx", "rejected": "y"}
    short = {"prompt": "p?", "chosen": "x", "rejected": "yy"}
    run(write(tmp_path / "a.jsonl", [long] * 8 + [short] * 2), json_=True)
    bias = result(capsys)["longer_chosen"]
    assert (bias["share"], bias["n"], bias["equal_lengths"]) == (0.8, 10, 0)
    # Wilson at 8 of 10, worked out by hand with z = 1.959964
    assert (bias["low"], bias["high"]) == pytest.approx((0.4901625, 0.9433178), abs=1e-6)


def test_hostile_text_cannot_steer_the_terminal(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run(
        write(
            tmp_path / "a.jsonl",
            [{**GOOD, "chosen": "\x1b[2J[red]x[/red] \x9b1m", "weight": 1}, {"\x1b[2J": 1}],
        )
    )
    out = capsys.readouterr().out
    assert "\x1b" not in out
    assert "\x9b" not in out
    assert "[red]x[/red]" in out


def test_one_file_is_named_once_and_several_each_time(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "400")
    first, second = (write(tmp_path / f"{name}.jsonl", [GOOD, GOOD, *BAD]) for name in "ab")
    run(first, examples=1)
    out = capsys.readouterr().out.partition("the longer answer")[0]
    assert out.count(first) == 1
    assert out.startswith(f"{first}: 5 rows, 3 unusable; 2 records (2 pairs)\n")
    assert "row 3: `chosen` is null" in out
    assert "row 2: says the same as row 1" in out
    run(first, second, examples=1)
    assert f"{second}, row 1: says the same as {first}, row 1" not in capsys.readouterr().out
    run(first, second, examples=2)
    assert f"{second}, row 1: says the same as {first}, row 1" in capsys.readouterr().out


def test_what_is_trained_is_marked_without_colours_too(
    tiny_llama: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    name = write(tmp_path / "a.jsonl", [GOOD])
    for settings in ({"NO_COLOR": "1"}, {"FORCE_COLOR": "1", "TERM": "xterm"}):
        for key, value in settings.items():
            monkeypatch.setenv(key, value)
        run(name, model=str(tiny_llama))
        assert "⟦ Fine, thanks.<|im_end|>⟧" in capsys.readouterr().out


def test_histogram_shows_everything_that_was_seen() -> None:
    import numpy as np

    bars = histogram(np.array([1] * 1000 + [50]), longest=50, bins=8)
    assert len(bars) == 8
    assert (bars[0], bars[-1]) == ("█", "▁")
    assert histogram(np.array([0, 0]), longest=1)[0] == "█"


@pytest.mark.parametrize("width", [60, 80, 120])
def test_tables_of_lengths_fit_the_terminal(width: int) -> None:
    import io

    import numpy as np
    from rich.console import Console

    console = Console(file=io.StringIO(), width=width)
    lengths = {"prompt": np.array([1] * 99_999 + [987_654]), "rejected": np.array([12_345] * 7)}
    print_lengths(console, "characters", lengths)
    lines = console.file.getvalue().splitlines()  # type: ignore[attr-defined]
    assert max(map(len, lines)) <= width
    # The longest figures need 70 columns beside the shortest histogram.
    assert ("…" in "".join(lines)) == (width < 70)
    assert ("987,654  " in "".join(lines)) == (width >= 70)


def test_lengths_for_programs_have_their_histogram(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run(
        write(tmp_path / "a.jsonl", [{"prompt": "p" * n, "completion": "x"} for n in (1, 1, 2, 9)]),
        json_=True,
    )
    lengths = result(capsys)["lengths"]
    found = lengths["prompt"]["histogram"]
    assert sum(found["counts"]) == lengths["prompt"]["n"] == 4
    assert found["edges"] == [0, *range(2, 11)]  # a length a bin, where there are few
    assert found["counts"] == [2, 1, 0, 0, 0, 0, 0, 0, 1]


def test_every_setting_has_a_reader() -> None:
    stage = Path(main.__code__.co_filename)
    source = stage.read_text() + stage.with_name("check_tokens.py").read_text()
    for name in CheckConfig.model_fields:
        assert f"config.{name}" in source, name


PROBE = """
import json, sys
from likelier.stages.check import main
from likelier.stages.check_config import CheckConfig
with open("/proc/self/status") as file:
    main(CheckConfig.build({"data": [sys.argv[1]], "json_": True}))
    print([line for line in file if line.startswith("VmHWM")][0].split()[1])
"""


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="peak memory is read from /proc")
def test_memory_is_flat(tmp_path: Path) -> None:
    """Ten times the rows take no more than the digests and lengths of the rows more."""
    peaks = []
    for count in (2_000, 42_000):
        rows = (json.dumps({**GOOD, "prompt": f"{n} {'x' * 400}?", "chosen": f" {n}"}) for n in range(count))
        path = tmp_path / f"{count}.jsonl"
        path.write_text("\n".join(rows))
        done = subprocess.run(
            [sys.executable, "-c", PROBE, str(path)], capture_output=True, text=True, check=True
        )
        peaks.append(int(done.stdout.split()[-1]))
    assert peaks[1] - peaks[0] < 12_000  # KiB; 40,000 such rows are 17 MB on disk and about 40 MB as records


RAW = [
    GOOD,
    {**GOOD, "prompt": "The cat sat <|im_end|> on the mat?"},
    {**GOOD, "prompt": "What is the best way to cook rice? " * 30},
    {**GOOD, "chosen": " of course" * 300},
]


def test_tokens_are_checked_with_a_model(
    tiny_llama: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    name = write(tmp_path / "a.jsonl", RAW)
    clean, rejected = tmp_path / "clean.jsonl", tmp_path / "bad.jsonl"
    status = run(name, model=str(tiny_llama), max_length=128, fix=clean, rejected=rejected, json_=True)
    found = result(capsys)
    assert status == 1  # the answer that is too long is not cut unasked
    assert (found["rows"], found["unusable"]) == (4, 1)
    assert sum(found["faults"].values()) == 1
    counts = found["tokens"]["counts"]
    assert any("special" in kind for kind in counts), counts
    assert any("prompt" in kind for kind in counts), counts
    assert found["tokens"]["lengths"]["prompt"]["n"] == 3
    assert found["tokens"]["lengths"]["answer"]["n"] == 6
    assert len(clean.read_text().splitlines()) == 3
    (reason,) = map(json.loads, rejected.read_text().splitlines())
    assert (reason["row"], reason["raw"]["chosen"]) == (4, RAW[3]["chosen"])
    assert run(name, model=str(tiny_llama), max_length=128, cut_answers=True, json_=True) == 0


def test_rows_longer_than_the_models_context_are_counted(
    tiny_llama: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rows = [GOOD, {**GOOD, "prompt": "x y " * 400}, {**GOOD, "chosen": " z" * 600}]
    name = write(tmp_path / "a.jsonl", rows)
    assert run(name, model=str(tiny_llama), json_=True) == 0
    found = result(capsys)["tokens"]
    assert found["counts"]["longer than the model's context"] == 2
    first, second = found["examples"]["longer than the model's context"]
    assert (f"{name}, row 2: " in first, f"{name}, row 3: " in second, "reads 512" in first) == (True,) * 3
    assert run(name, model=str(tiny_llama), max_length=512, cut_answers=True, json_=True) == 0
    assert "longer than the model's context" not in result(capsys)["tokens"]["counts"]


def test_answers_that_are_equal_once_cut_are_unusable_as_in_training(
    tiny_llama: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rows = [GOOD, {**GOOD, "chosen": "." * 300 + "a", "rejected": "." * 300 + "b"}]
    name = write(tmp_path / "a.jsonl", rows)
    assert run(name, model=str(tiny_llama), max_length=20, cut_answers=True, json_=True) == 1
    assert result(capsys)["faults"] == {"identical": 1}
    assert run(name, model=str(tiny_llama), json_=True) == 0


def test_decoded_examples_mark_what_trains(
    tiny_llama: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(write(tmp_path / "a.jsonl", [GOOD]), model=str(tiny_llama), as_="messages") == 0
    out = capsys.readouterr().out
    assert "<|im_start|>user" in out
    assert "⟦ Fine, thanks.<|im_end|>⟧" in out
    assert "tokens trained" in out


def test_a_row_of_many_records_is_refused_once_and_whole(
    tiny_llama: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def message(name: str, role: str, text: str, rank: int, replies: Any = ()) -> dict[str, Any]:
        return {"message_id": name, "role": role, "text": text, "rank": rank, "replies": list(replies)}

    long = [message("c", "assistant", "of course " * 200, 0), message("d", "assistant", "no", 1)]
    first = message("a", "assistant", "yes", 0, [message("q", "prompter", "more", 0, long)])
    tree = message("t", "prompter", "hello", 0, [first, message("b", "assistant", "well", 1)])
    name = write(tmp_path / "a.jsonl", [{"message_tree_id": "t", "prompt": tree}])
    assert run(name, model=str(tiny_llama), max_length=100, json_=True) == 1
    found = result(capsys)
    assert (found["rows"], found["unusable"], found["records"]) == (1, 1, 0)
