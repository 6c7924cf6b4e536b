"""`likelier theory`: what it prints and writes, a world and a loss of one's own, and what people get wrong."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml

import likelier
from likelier.cli import main
from likelier.manifest import file_hash
from likelier.report.theory import Section, Shown
from likelier.stages import theory
from likelier.theory.statement import Statement
from likelier.theory.world import World

EXAMPLE = Path(__file__).parents[2] / "examples" / "worlds" / "rain.yaml"
HOLDS = Statement(name="Z <is> 1", equation="(12)", error=1e-16, bound=1e-10, note="a note")
FAILS = Statement(name="J is π_ref", equation="(5)", error=float("nan"), bound=1e-10)
LOSS = """
def half(policy, reference, lengths, beta):
    return (policy - reference)[:, 1] - (policy - reference)[:, 0]

def broken(policy, reference, lengths, beta):
    return policy.nonsense
"""


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> list[Statement]:
    """Statements and pictures that cost nothing; the statements may be changed."""
    found = [HOLDS]
    picture = Shown(title="A picture.", words="What it <says>.", svg="<svg></svg>")
    made = [Section(title="A section", words="Words.", pictures=[picture])]
    monkeypatch.setattr(theory, "statements", lambda world, beta: found)
    monkeypatch.setattr(theory, "sections", lambda world, beta, say: made)
    return found


def write_world(path: Path, **other: Any) -> Path:
    """A world of one prompt; `other` are its keys."""
    cells = [
        {"text": "Yes.", "reference": 0.25, "reward": 1.0},
        {"text": "No.", "reference": 0.75, "reward": -1},
    ]
    world = {"prompts": [{"prompt": "Rain?", "completions": cells}]} | other
    path.write_text(yaml.safe_dump(world), encoding="utf-8")
    return path


def test_the_whole_command_on_the_example(tmp_path: Path) -> None:
    """Nothing patched, in a process of its own: numbers, page, exit code."""
    words = ["theory", "--world", str(EXAMPLE), "--out", str(tmp_path / "out"), "--json"]
    done = subprocess.run(
        [sys.executable, "-m", "likelier", *words], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert [*found] == ["statements"]
    assert all({*row} == {"name", "equation", "error", "holds"} for row in found["statements"])
    assert all(row["holds"] and row["error"] < 1e-2 for row in found["statements"])
    assert len(found["statements"]) > 40
    equations = " ".join(row["equation"] for row in found["statements"])
    for number in (
        "(1)",
        "(2)",
        "(3)",
        "(4)",
        "(5)",
        "(6)",
        "(7)",
        "(9)",
        "(12)",
        "(13)",
        "(14)",
        "Lemma 1",
        "Lemma 2",
    ):
        assert number in equations
    page = (tmp_path / "out" / "page.html").read_text("utf-8")
    assert "All " + str(len(found["statements"])) in page
    assert page.count("<svg") == 17
    assert "It has never rained here, and never will." in page
    assert re.search(r"(src|href)=\"(https?:)?//", page) is None
    assert "<script" not in page
    ids = re.findall(r'\bid="([^"]+)"', page)
    assert len(ids) == len({*ids})


def test_files_and_manifest(
    quick: list[Statement], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    world = write_world(tmp_path / "rain.yaml", beta=0.25)
    out = tmp_path / "runs" / "theory"
    assert main(["theory", "--world", str(world), "--out", str(out)]) == 0
    shown = capsys.readouterr().out
    assert "Z <is> 1   (12)      1e−16  yes" in shown
    assert f"1 of 1 statements hold, in the world of {world}, β = 0.25" in shown
    assert {path.name for path in out.iterdir()} == {"page.html", "theory.json", "theory.manifest.json"}
    result = json.loads((out / "theory.json").read_text("utf-8"))
    assert result["statements"] == [
        {
            "name": "Z <is> 1",
            "equation": "(12)",
            "error": 1e-16,
            "bound": 1e-10,
            "note": "a note",
            "holds": True,
        }
    ]
    manifest = json.loads((out / "theory.manifest.json").read_text("utf-8"))
    assert manifest["stage"] == "theory"
    assert manifest["inputs"]["world"] == {"file": str(world), "hash": file_hash(world)}
    page = (out / "page.html").read_text("utf-8")
    assert "Z &lt;is&gt; 1" in page
    assert "What it &lt;says&gt;." in page
    assert "Rain?" in page


def test_a_statement_that_fails_is_exit_code_1(
    quick: list[Statement], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    quick.append(FAILS)
    assert main(["theory", "--out", str(tmp_path / "out")]) == 1
    shown = capsys.readouterr().out
    assert re.search(r"J is π_ref +\(5\) +not a number +NO", shown)
    assert "1 of 2 statements hold" in shown
    assert "1 statement of 2 does not hold" in " ".join(
        (tmp_path / "out" / "page.html").read_text("utf-8").split()
    )
    assert main(["theory", "--out", str(tmp_path / "out"), "--json"]) == 1
    assert json.loads(capsys.readouterr().out)["statements"][1] == {
        "name": "J is π_ref",
        "equation": "(5)",
        "error": None,
        "holds": False,
    }


def test_beta_is_the_flags_then_the_files_then_a_half(quick: list[Statement], tmp_path: Path) -> None:
    with_beta, without = write_world(tmp_path / "a.yaml", beta="2.5e-1"), write_world(tmp_path / "b.yaml")
    for world, words, beta in (
        (with_beta, [], 0.25),
        (with_beta, ["--beta", "3"], 3.0),
        (without, [], 0.5),
    ):
        assert main(["theory", "--world", str(world), "--out", str(tmp_path / "out"), *words]) == 0
        assert json.loads((tmp_path / "out" / "theory.json").read_text("utf-8"))["beta"] == beta


def test_a_loss_gets_a_verdict(
    quick: list[Statement],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "mine_of_theory.py").write_text(LOSS, encoding="utf-8")
    world = write_world(tmp_path / "rain.yaml")
    words = ["theory", "--world", str(world), "--out", "out"]
    assert main([*words, "--loss", "sigmoid", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)["loss"]
    assert {one["name"]: one["holds"] for one in found["findings"]}["recovers"] is True
    assert main([*words, "--loss", "mine_of_theory:half"]) == 0
    shown = capsys.readouterr().out
    assert "mine_of_theory:half at β = 0.5: does not find the optimal policy of (5)" in shown
    assert "Your loss: mine_of_theory:half" in Path("out/page.html").read_text("utf-8")


@pytest.mark.parametrize(
    ("loss", "message"),
    [
        ("sigmod", "unknown loss `sigmod`; did you mean `sigmoid`?"),
        ("nowhere:f", "no module `nowhere`"),
        ("mine_of_errors:broken", "--loss mine_of_errors:broken: AttributeError"),
        ("listwise", "reads scores"),
    ],
)
def test_a_loss_that_cannot_be_asked(
    loss: str,
    message: str,
    quick: list[Statement],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "mine_of_errors.py").write_text(LOSS, encoding="utf-8")
    assert main(["theory", "--loss", loss, "--out", "out"]) == 2
    said = capsys.readouterr().err
    assert message in said
    assert said.count("\n") == 1


CELL = {"text": "a", "reference": 1.0, "reward": 0.0}


def one(**other: Any) -> list[dict[str, Any]]:
    return [{"prompt": "p", "completions": [CELL]} | other]


@pytest.mark.parametrize(
    ("other", "message"),
    [
        ({"prompts": []}, "`prompts` must be a list of at least one"),
        ({"prompts": {"a": 1}}, "`prompts` must be a list of at least one, not a dict"),
        ({"promts": []}, "unknown key `promts`; did you mean `prompts`?"),
        ({"beta": 0}, "`beta` must be positive"),
        ({"beta": "much"}, "`beta` must be a finite number, not `much`"),
        ({"prompts": ["p"]}, "prompt 1 must hold `prompt:`, `completions:`, not `p`"),
        ({"prompts": one(prompt=7)}, "prompt 1: `prompt` must be text, not `7`; put it in quotes"),
        ({"prompts": one(weight=-1)}, "prompt 1 (`p`): `weight` is at least 0"),
        ({"prompts": one(weight=0)}, "weights are all 0"),
        ({"prompts": one(weight=True)}, "prompt 1 (`p`): `weight` must be a finite number, not `True`"),
        ({"prompts": one() * 2}, "prompt 2: `p` is there twice"),
        ({"prompts": one(completions=[])}, "prompt 1 (`p`): `completions` must be a list of at least one"),
        ({"prompts": one(completions=[CELL, CELL])}, "prompt 1 (`p`), completion 2: `a` is there twice"),
        (
            {"prompts": one(completions=[CELL | {"reference": 0.9}])},
            "prompt 1 (`p`): `reference` adds up to 0.9 over",
        ),
        (
            {"prompts": one(completions=[CELL | {"reference": 1.5}])},
            "completion 1 (`a`): `reference` is a probability",
        ),
        ({"prompts": one(completions=[CELL | {"reward": float("nan")}])}, "(`a`): `reward` must be a finite"),
        ({"prompts": one(completions=[CELL | {"reward": float("inf")}])}, "(`a`): `reward` must be a finite"),
        ({"prompts": one(completions=[CELL | {"reward": None}])}, "completion 1 (`a`): `reward` is missing"),
        ({"prompts": one(completions=[CELL | {"rewrd": 1}])}, "unknown key `rewrd`; did you mean `reward`?"),
        (
            {"prompts": one(completions=[CELL | {"text": str(n), "reference": 0.025} for n in range(40)])},
            "at most 32",
        ),
        (
            {"prompts": one(completions=[CELL | {"reward": 1e12}])},
            "leaves nothing to compute with in float64",
        ),
    ],
)
def test_a_world_that_is_none(
    other: dict[str, Any], message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    world = write_world(tmp_path / "rain.yaml", **other)
    assert main(["theory", "--world", str(world), "--out", str(tmp_path / "out")]) == 2
    said = capsys.readouterr().err
    assert message in said
    assert str(world) in said
    assert said.count("\n") == 1
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("prompts: [", "is not valid YAML"),
        ("- a\n- b", "must hold `key: value` lines"),
        ("", "`prompts` is missing"),
        ("prompts: 1\nprompts: 2", "sets `prompts` twice"),
        (
            "prompts:\n  - {prompt: p, completions: [{text: a, reward: 1, reward: 2, reference: 1}]}",
            "sets `reward` twice",
        ),
    ],
)
def test_a_file_that_is_no_yaml(
    text: str, message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "rain.yaml").write_text(text, encoding="utf-8")
    assert main(["theory", "--world", str(tmp_path / "rain.yaml"), "--out", str(tmp_path / "out")]) == 2
    assert message in capsys.readouterr().err


def test_paths_that_cannot_be_used(
    quick: list[Statement], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "file").write_text("x", encoding="utf-8")
    for words, message in (
        (["--world", str(tmp_path / "none.yaml")], "cannot read"),
        (["--world", str(tmp_path)], "cannot read"),
        (["--out", str(tmp_path / "file")], "is a file; choose a folder"),
        (["--out", str(tmp_path)], "holds other files; choose another folder"),
        (["--beta", "0"], "--beta"),
        (["--beta", "nan"], "--beta"),
        (["--wrld", "a"], "did you mean `--world`"),
    ):
        out = [] if "--out" in words else ["--out", str(tmp_path / "out")]
        assert main(["theory", *words, *out]) == 2, words
        said = capsys.readouterr().err
        assert message in said
        assert said.count("\n") == 1


def test_its_own_folder_is_written_anew(quick: list[Statement], tmp_path: Path) -> None:
    for _ in range(2):
        assert main(["theory", "--out", str(tmp_path / "out")]) == 0


def test_a_prompt_of_one_completion_has_nothing_to_compare(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], quick: list[Statement]
) -> None:
    world = write_world(tmp_path / "alone.yaml", prompts=one())
    assert main(["theory", "--world", str(world), "--out", str(tmp_path / "out")]) == 0
    assert main(["theory", "--world", str(world), "--loss", "ipo", "--out", str(tmp_path / "out")]) == 2
    assert "a loss needs two to compare" in capsys.readouterr().err


def test_the_room_is_offered_in_python() -> None:
    world = likelier.theory.World.uniform(torch.tensor([[1.0, 0.0]]).double())
    assert isinstance(world, World)
    assert all(isinstance(getattr(likelier.theory, name), object) for name in likelier.theory.__all__)
    files = {path.stem for path in Path(likelier.theory.__file__).parent.glob("*.py")}
    assert files.isdisjoint(likelier.theory.__all__)
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        likelier.theory.nothing  # noqa: B018
