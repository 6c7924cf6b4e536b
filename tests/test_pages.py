"""What the project's pages promise: their commands, their Python, their links, and every shipped configuration."""

from __future__ import annotations

import ast
import doctest
import importlib
import inspect
import math
import re
import shlex
from pathlib import Path
from typing import Any

import pytest

import likelier
from likelier.cli import STAGES, main, parse
from likelier.config import read_yaml
from tests.source_tree import ROOT, SOURCE, called, modules
from tests.training.conftest import no_timing, own_cache
from tests.training.support import pairs, write_rows

__all__ = ["no_timing", "own_cache"]

PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").glob("*.md"))]
EXAMPLES = sorted((ROOT / "examples").rglob("*.y*ml"))


def fenced(text: str, *languages: str) -> list[str]:
    """The blocks of a page between ``` of these languages."""
    return [
        body
        for language, body in re.findall(r"^```(\w+)\n(.*?)^```", text, re.M | re.S)
        if language in languages
    ]


def commands(text: str) -> list[list[str]]:
    """The shell lines of a page as words, comments, prompts and what follows a pipe left out."""
    lines = "\n".join(fenced(text, "sh", "bash", "console")).replace("\\\n", " ").splitlines()
    split = [shlex.split(re.split(r"[|;&>]", line.removeprefix("$ "))[0], comments=True) for line in lines]
    return [words for words in split if words]


def page_commands() -> list[tuple[str, list[str]]]:
    return [(page.name, words) for page in PAGES for words in commands(page.read_text("utf-8"))]


def docstring_commands() -> list[tuple[str, list[str]]]:
    found = []
    for module in modules():
        lines = re.findall(r"^    likelier .+$", ast.get_docstring(module.tree) or "", re.M)
        found += [(module.name, shlex.split(line)) for line in lines]
    return found


@pytest.mark.parametrize(("place", "words"), page_commands() + docstring_commands(), ids=str)
def test_every_command_that_is_shown_parses(
    place: str, words: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    if words[0] == "likelier" and "--help" not in words:
        _written_by_an_earlier_command(words)
        parse(words[1], words[2:])
    if words[0] == "make":
        targets = re.findall(r"^([\w.-]+):", (ROOT / "Makefile").read_text("utf-8"), re.M)
        goals = [word for word in words[3 if words[1:2] == ["-C"] else 1 :] if "=" not in word]
        assert set(goals) <= set(targets)


def _written_by_an_earlier_command(words: list[str]) -> None:
    """A run folder's configuration, or a user's."""
    if "--config" in words:
        file = Path(words[words.index("--config") + 1])
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text("data: [preferences.jsonl]", encoding="utf-8")


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_line_of_python_that_is_shown_names_what_exists(page: Path) -> None:
    for block in fenced(page.read_text("utf-8"), "python"):
        for call in [node for node in ast.walk(ast.parse(block)) if isinstance(node, ast.Call)]:
            if called(call).startswith("likelier."):
                _check_call(called(call).removeprefix("likelier."), {k.arg for k in call.keywords})


def _check_call(name: str, keywords: set[Any]) -> None:
    function = getattr(likelier, name)
    module, config = STAGES[name].config.split(":")
    settings = getattr(importlib.import_module(module), config).model_fields
    assert keywords <= {*inspect.signature(function).parameters, *settings}


@pytest.mark.parametrize(
    "page", [page for page in PAGES if fenced(page.read_text("utf-8"), "pycon")], ids=lambda page: page.name
)
def test_every_session_that_is_shown_runs(page: Path) -> None:
    """The blocks of one page are one session."""
    sessions = "\n".join(fenced(page.read_text("utf-8"), "pycon"))
    example = doctest.DocTestParser().get_doctest(sessions, {}, page.name, str(page), 0)
    found: list[str] = []
    result = doctest.DocTestRunner().run(example, out=found.append)
    assert result.attempted > 0
    assert result.failed == 0, "".join(found)


README = (ROOT / "README.md").read_text("utf-8")


@pytest.fixture
def beside_data(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The current folder as README's reader has it: with `preferences.jsonl`, one row of which is bad."""
    rows = pairs(12)
    write_rows(
        tmp_path / "preferences.jsonl", [*rows, rows[0] | {"id": "bad", "rejected": rows[0]["chosen"]}]
    )
    write_rows(tmp_path / "prompts.jsonl", [{"prompt": "Go on:"}, {"prompt": "The cat"}])
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_readmes_python_runs(beside_data: Path, tiny_llama: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """With a tiny model in place of the small one, and the rows that README's `check` would leave."""
    write_rows(beside_data / "preferences.jsonl", pairs(12))
    (block,) = fenced(README, "python")
    exec(compile(block.replace('"smollm2"', repr(str(tiny_llama))), "README.md", "exec"), {})
    shown = capsys.readouterr().out.splitlines()
    assert float(shown[0]) == pytest.approx(math.log(2), abs=1e-6)
    assert shown[2].startswith("held-out accuracy of the implicit reward ")
    assert len([line for line in shown if line.startswith("row 0.")]) == 12


@pytest.mark.parametrize(
    ("page", "codes", "runs"),
    [
        ("README.md", [0, 0, 1, *[0] * 7], ["first", "ipo", "reward", "ppo"]),
        ("docs/commands.md", [1, 1, *[0] * 19], ["chosen", "first", "lora", "beta", "reward", "ppo"]),
    ],
)
def test_the_shell_that_is_shown_runs(
    page: str,
    codes: list[int],
    runs: list[str],
    beside_data: Path,
    patient_llama: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """Line by line, with a tiny model in place of the small one; `check` finds the bad row: exit code 1."""
    found = []
    for words in [words for words in commands((ROOT / page).read_text("utf-8")) if words[0] == "likelier"]:
        named = [str(patient_llama) if word == "smollm2" else word for word in words[1:]]
        complete = {"--model", "--config", "label", "evaluate", "report", "theory"} & {*named}
        complete |= {"--reward"} & {*named} if named[0] == "score" else set()
        found.append(main(named if complete else [*named, "--model", str(patient_llama)]))
    assert found == codes, capsys.readouterr().err
    assert len((beside_data / "clean.jsonl").read_text("utf-8").splitlines()) == 12
    for name in runs:
        assert (beside_data / "runs" / name / "model" / "README.md").is_file()


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_link_within_the_project_leads_somewhere(page: Path) -> None:
    links = re.findall(r"\]\(([^)#:]+)(?:#[^)]*)?\)", page.read_text("utf-8"))
    assert [link for link in links if not (page.parent / link).exists()] == []


def test_the_readme_shows_the_rooms_that_exist() -> None:
    tree = next(
        block for block in fenced((ROOT / "README.md").read_text("utf-8"), "text") if "cli.py" in block
    )
    shown = set(re.findall(r"^ {2}(\w+)/", tree, re.M))
    assert shown == {path.parent.name for path in SOURCE.glob("*/__init__.py")}


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.name)
def test_every_example_configuration_is_valid(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its first line is the command that runs it: `# likelier dpo --config examples/NAME.yaml`, or `--world …`."""
    monkeypatch.chdir(ROOT)
    words = shlex.split(path.read_text("utf-8").splitlines()[0].removeprefix("#"))
    assert words[0] == "likelier"
    place = path.relative_to(ROOT).as_posix()
    assert any(f"{flag} {place}" in " ".join(words) for flag in ("--config", "--world"))
    assert read_yaml(path)
    parse(words[1], words[2:])
