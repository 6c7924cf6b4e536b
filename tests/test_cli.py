"""The command line: flags, files, exit codes, one-line errors."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any, Literal

import pytest
from pydantic import Field

from likelier import __version__, cli
from likelier.config import StageConfig
from likelier.errors import UsageError
from likelier.flags import flag
from likelier.training.config import DpoConfig
from tests.training.conftest import no_timing, own_cache
from tests.training.support import pairs, write_rows

__all__ = ["no_timing", "own_cache"]
ROOT = Path(__file__).parents[1]


def run(words: str | list[str], capsys: pytest.CaptureFixture[str]) -> tuple[int, str, str]:
    code = cli.main(words.split() if isinstance(words, str) else words)
    captured = capsys.readouterr()
    return code, captured.out, captured.err


def parse(words: str) -> DpoConfig:
    config = cli.parse("dpo", words.split())
    assert isinstance(config, DpoConfig)
    return config


def test_help_and_version(capsys: pytest.CaptureFixture[str]) -> None:
    for words in ("", "--help", "-h", "help"):
        code, out, err = run(words, capsys)
        assert (code, err) == (0, "")
        assert all(f"\n  {stage} " in out for stage in cli.STAGES)
    assert run("--version", capsys) == (0, f"likelier {__version__}\n", "")


@pytest.mark.parametrize("stage", list(cli.STAGES))
def test_a_stages_help_lists_every_flag_with_what_it_does(
    stage: str, capsys: pytest.CaptureFixture[str]
) -> None:
    code, out, _ = run([stage, "--help"], capsys)
    assert code == 0
    config: type[StageConfig] = cli._load(cli.STAGES[stage].config)
    for name, field in config.model_fields.items():
        assert f"  {flag(name)}" in out
        assert field.description, f"{stage} {name} says nothing"


def test_help_groups_what_stages_share(capsys: pytest.CaptureFixture[str]) -> None:
    """What must be given and what is the stage's own first, then the rest under the headings of its bases."""
    out = run("sft --help", capsys)[1]
    places = [
        out.index(word) for word in ("--data", "--on ", "training:", "--batch-size", "how rows are read:")
    ]
    assert places == sorted(places)
    assert out.count("--learning-rate") == out.count("  --data") == 1


def test_help_of_one_evaluation_shows_what_it_reads(capsys: pytest.CaptureFixture[str]) -> None:
    whole, frontier = (run(f"evaluate {word} --help", capsys)[1] for word in ("", "frontier"))
    assert "usage: likelier evaluate frontier RUNS … " in frontier
    assert {"--temperatures", "--judge"} <= {*whole.split()}
    assert not {"--temperatures", "--judge", "--what"} & {*frontier.split()}
    assert "as 0,0.5,1: 0 is the reference, 1 the policy [0,0.25,0.5,0.75,1,1.25,1.5,1.75,2]" in frontier


@pytest.mark.parametrize(
    "words", [["--help"], ["dpo", "--help"], ["dpo", "--nonsense"], ["score", "--help"], ["label", "--help"]]
)
def test_help_imports_nothing_heavy(words: list[str]) -> None:
    code = (
        "import sys, likelier.cli as cli\n"
        f"cli.main({words!r})\n"
        "print([m for m in ('torch', 'transformers', 'datasets', 'pandas', 'peft') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120)
    assert done.stdout.splitlines()[-1] == "[]"


def test_flags_of_every_kind(tmp_path: Path) -> None:
    config = parse(
        "--data a.jsonl --data b.jsonl --beta=0.5 --group-prompts false --merge --lora-rank 4 --out c"
    )
    assert (config.data, config.beta, config.group_prompts, config.merge) == (
        ["a.jsonl", "b.jsonl"],
        0.5,
        False,
        True,
    )
    assert parse("--data a --out b --merge --lora-rank 4 --seed 3").seed == 3
    assert parse("--data a --as messages").as_ == "messages"
    assert parse("--data a --json").json_ is True
    assert parse("--data a --lora-rank 2 --lora-targets q_proj --lora-targets v_proj").lora_targets == [
        "q_proj",
        "v_proj",
    ]


def test_words_without_a_flag(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """`evaluate frontier RUN …` is one word and then all that come, flags before, between and after them."""

    class Evaluate(StageConfig):
        positional = ("what", "runs")
        what: Literal["frontier", "winrate"] = Field(description="figure")
        runs: list[Path] = Field(description="run folders")
        out: Path | None = Field(None, description="folder")

    monkeypatch.setitem(cli.STAGES, "evaluate", cli.Stage("", "x", "y"))
    monkeypatch.setattr(cli, "_load", lambda address: Evaluate)

    def read(words: str) -> tuple[Any, ...]:
        config = cli.parse("evaluate", words.split())
        assert isinstance(config, Evaluate)
        return config.what, [str(run) for run in config.runs], config.out

    assert read("frontier a b --out c") == read("--out c frontier a b") == ("frontier", ["a", "b"], Path("c"))
    assert read("frontier a --out c b")[1] == read("--runs a --what frontier --runs b")[1] == ["a", "b"]
    with pytest.raises(UsageError, match="--what: input should be 'frontier' or 'winrate'"):
        read("fronteer a")
    with pytest.raises(UsageError, match="--what is given twice"):
        read("frontier a --what winrate")
    with pytest.raises(UsageError, match="--runs is missing"):
        read("frontier")
    assert (
        run("evaluate --help", capsys)[1]
        .splitlines()[2]
        .startswith("usage: likelier evaluate WHAT RUNS … [--config")
    )


def test_flags_win_over_the_file(tmp_path: Path) -> None:
    file = tmp_path / "dpo.yaml"
    file.write_text("data: a.jsonl\nbeta: 0.3\nlearning-rate: 1e-5\nas: messages\njson: true\nmerge: false\n")
    config = parse(f"--config {file} --beta 0.7")
    assert (config.data, config.beta, config.learning_rate) == (["a.jsonl"], 0.7, 1e-5)
    assert (config.as_, config.json_, config.merge) == ("messages", True, False)
    assert parse(f"--config={file} --data b.jsonl").data == ["b.jsonl"]


def test_a_runs_own_config_starts_it_anew(tmp_path: Path, tiny_llama: Path, capsys: Any) -> None:
    data = write_rows(tmp_path / "data.jsonl", pairs(4))
    words = [
        "dpo",
        "--model",
        str(tiny_llama),
        "--data",
        str(data),
        "--batch-size",
        "2",
        "--precision",
        "float32",
    ]
    assert run([*words, "--out", str(tmp_path / "a")], capsys)[0] == 0
    config = str(tmp_path / "a" / "config.yaml")
    assert run(["dpo", "--config", config, "--out", str(tmp_path / "b")], capsys)[0] == 0
    weights = [(tmp_path / name / "model" / "model.safetensors").read_bytes() for name in "ab"]
    assert weights[0] == weights[1]


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ("dop", "unknown command `dop`; did you mean `dpo`?; `likelier --help` lists them"),
        ("dpo --data a --betta 0.1", "unknown flag --betta; did you mean `--beta`?"),
        ("dpo --data a --beta", "--beta needs a value"),
        ("dpo --data a --beta --merge", "--beta needs a value"),
        ("dpo --data a --beta 0.1 --beta 0.2", "--beta is given twice"),
        ("dpo --data a --beta much", "--beta: input should be a valid number"),
        ("dpo --data a --beta 0", "--beta: input should be greater than 0 (given '0')"),
        ("dpo --data a --merge=maybe", "--merge is true or false, not maybe"),
        (
            "dpo --data a --precision float16",
            "--precision: input should be 'bfloat16', 'float32' or 'float64'",
        ),
        ("dpo --data a --as mesages", "--as: input should be 'text' or 'messages'"),
        (
            "dpo",
            "--data is missing; give --data VALUE, or `data:` in a --config file (preference rows: a file",
        ),
        ("score", "--data is missing; give --data VALUE"),
        ("check", "--data is missing; give --data VALUE"),
        ("dpo a.jsonl", "`a.jsonl` is no flag; settings are given as --name value"),
        ("dpo --data a --resume", "--resume needs --out"),
        ("dpo --data a --merge", "--merge needs --out"),
        (
            "dpo --data a --eval-share 0.1 --eval-every 1 --keep-best eval/loss",
            "--keep-best needs --out",
        ),
        (
            "dpo --data a --out b --resume --overwrite",
            "--resume goes on with a run and --overwrite deletes it",
        ),
        ("dpo --data a --eval-every 3", "--eval-every needs --eval-data or --eval-share"),
        ("dpo --data a --eval-data b --eval-share 0.1", "two ways to hold rows out"),
        ("dpo --data a --lora-alpha 3", "--lora-alpha needs --lora-rank"),
        ("dpo --data a --config none.yaml", "cannot read the configuration none.yaml"),
        ("dpo --data a --preset papper", "--preset: input should be 'paper'"),
        ("dpo --data a --out=", "--out needs a value"),
        ("dpo --data=", "--data needs a value"),
        ("dpo --config a --config b", "--config is given twice"),
        ("dpo --data a --beta nan", "--beta: input should be a finite number (given 'nan')"),
        ("dpo --data a --learning-rate inf", "--learning-rate: input should be a finite number"),
        ("score --data a --refrence b", "unknown flag --refrence; did you mean `--reference`?"),
        ("score --data a --betta 1", "unknown flag --betta; did you mean `--beta`?"),
        ("label a.jsonl b.jsonl --with reward", "`b.jsonl` is no flag"),
        ("label --with reward", "--samples is missing"),
        ("label a.jsonl", "--with is missing"),
        ("label a.jsonl --with rewards", "--with: input should be 'reward', 'judge' or 'human'"),
        ("label a.jsonl --with judge --reward length", "--reward is for --with reward, not --with judge"),
        ("label none.jsonl --with reward", "none.jsonl"),
        ("score --data none.jsonl --model .", "none.jsonl"),
    ],
)
def test_usage_errors_are_one_line_and_exit_2(
    words: str, said: str, capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    code, out, err = run(words, capsys)
    assert (code, out) == (2, "")
    assert said in err
    assert err.startswith("likelier: ")
    assert err.count("\n") == 1


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("data: a\nbetta: 1\n", "unknown setting `betta`; did you mean `beta`?"),
        ("data: a\nlearning_rat: 1\n", "did you mean `learning_rate`?"),
        ("- a\n", "must hold `key: value` lines at its top level, not a list"),
        ("data: [a\n", "is not valid YAML"),
        ("data: a\nbeta: [1]\n", "--beta: input should be a valid number"),
        ("data: a\npreset: [paper]\n", "--preset"),
        ("data: {a: b}\n", "--data"),
        ("data: []\n", "--data is missing; give --data VALUE, or `data:` in a --config file"),
        ("data: a\nbeta: 0.1\nbeta: 0.5\n", "dpo.yaml sets `beta` twice; leave one"),
        ("data: a\nlearning-rate: 1e-5\nlearning_rate: 1e-4\n", "sets `learning_rate` twice"),
        ("data: a\nlora_rank: true\n", "--lora-rank takes a value, not true"),
        ("data: a\nloss: 3\n", "--loss: input should be a valid string"),
        ("data: a\nloss: null\n", "--loss: input should be a valid string"),
        ("data: a\nbeta: .nan\n", "--beta: input should be a finite number"),
        ("data: null\n", "--data: input should be a valid list"),
        ("data: " + "[" * 3000, "is not valid YAML"),
        ("data: !!python/object/apply:os.getcwd []\n", "is not valid YAML"),
        ("1: 2\n", "unknown setting `1`"),
    ],
)
def test_a_faulty_file_is_named(
    text: str, said: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "dpo.yaml"
    file.write_text(text)
    code, _, err = run(["dpo", "--config", str(file)], capsys)
    assert code == 2
    assert said in err
    assert err.count("\n") == 1


def test_debug_shows_the_traceback() -> None:
    words = [sys.executable, "-m", "likelier", "dpo", "--betta", "1"]
    plain = subprocess.run(words, capture_output=True, text=True, cwd=ROOT, timeout=120)
    assert (plain.returncode, plain.stdout) == (2, "")
    assert "Traceback" not in plain.stderr
    debugged = subprocess.run([*words, "--debug"], capture_output=True, text=True, cwd=ROOT, timeout=120)
    assert debugged.returncode != 0
    assert "Traceback" in debugged.stderr
    assert "UsageError: unknown flag --betta" in debugged.stderr


@pytest.mark.parametrize(
    ("error", "code", "said"),
    [
        (MemoryError(), 1, "out of memory: lower --max-tokens"),
        (RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory"), 1, "out of memory"),
        (
            OSError(28, "No space left on device", "a/b"),
            1,
            "the disk is full: a/b could not be written; free",
        ),
        (PermissionError(13, "Permission denied", "a/b"), 1, "no permission for a/b: choose another place"),
        (OSError(30, "Read-only file system", "a/b"), 1, "no permission for a/b: choose another place"),
        (OSError(5, "Input/output error", "a/b"), 1, "Input/output error: 'a/b'"),
        (UsageError("two\nlines"), 2, "likelier: two lines"),
        (KeyboardInterrupt(), 1, "interrupted"),
    ],
)
def test_the_machines_faults_are_one_line_too(
    error: BaseException,
    code: int,
    said: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    def fail(_: Any) -> int:
        raise error

    monkeypatch.setattr("likelier.stages.dpo.main", fail)
    found = run("dpo --data a", capsys)
    assert found[0] == code
    assert said in found[2]
    assert found[2].count("\n") == 1


def test_a_bug_of_ours_keeps_its_traceback(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(_: Any) -> int:
        raise RuntimeError("shape mismatch")

    monkeypatch.setattr("likelier.stages.dpo.main", fail)
    with pytest.raises(RuntimeError, match="shape mismatch"):
        cli.main(["dpo", "--data", "a"])


def test_data_and_model_errors(tmp_path: Path, tiny_llama: Path, capsys: pytest.CaptureFixture[str]) -> None:
    data = write_rows(tmp_path / "data.jsonl", [*pairs(2), {"prompt": "a", "chosen": " b"}])
    for words, said in (
        (f"--model {tiny_llama} --data {data}", "data.jsonl, row 3"),
        (f"--model {tiny_llama} --data {tmp_path / 'none.jsonl'}", "none.jsonl"),
        (f"--model {tmp_path / 'nowhere'} --data {data}", "nowhere"),
        (f"--model {tiny_llama} --data {data} --loss nowhere:f", "no module `nowhere`"),
    ):
        code, out, err = run(f"dpo {words}", capsys)
        assert (code, out) == (2, "")
        assert said in err.splitlines()[-1]
        assert "Traceback" not in err


def test_json_prints_one_object_and_nothing_else_on_stdout(
    tmp_path: Path, tiny_llama: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    data = write_rows(tmp_path / "data.jsonl", pairs(6))
    words = ["dpo", "--model", str(tiny_llama), "--data", str(data), "--out", str(tmp_path / "run"), "--json"]
    assert cli.main([*words, "--eval-share", "0.3", "--batch-size", "2"]) == 0
    captured = capfd.readouterr()
    assert captured.out.count("\n") == 1
    result = json.loads(captured.out)
    assert (result["step"], result["folder"], result["stopped"]) == (2, str(tmp_path / "run"), None)
    assert "eval/rewards/accuracies" in result
    assert "Traceback" not in captured.err


def test_json_holds_no_nan(tmp_path: Path, tiny_llama: Path, capfd: pytest.CaptureFixture[str]) -> None:
    data = write_rows(tmp_path / "data.jsonl", pairs(2))
    words = ["dpo", "--model", str(tiny_llama), "--data", str(data), "--json", "--dry-run"]
    assert cli.main(words) == 0
    out = capfd.readouterr().out
    json.loads(out, parse_constant=lambda name: pytest.fail(f"{name} is no JSON"))
    assert json.loads(out)["stopped"] == "dry run"


@pytest.mark.skipif(sys.platform == "win32", reason="no processor times of children there")
def test_help_answers_at_once() -> None:
    """Processor seconds, which a busy machine does not stretch: the promise is half a second."""
    import resource

    def used() -> float:
        times = resource.getrusage(resource.RUSAGE_CHILDREN)
        return times.ru_utime + times.ru_stime

    for words in (["--help"], ["dpo", "--help"]):
        before = used()
        subprocess.run([sys.executable, "-m", "likelier", *words], check=True, capture_output=True)
        assert used() - before < 0.5
