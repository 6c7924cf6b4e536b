"""The paper's experiments: every command runs with `--dry-run` against a mirror of the hub, and every name exists."""

from __future__ import annotations

import json
import os
import re
import shutil
import stat
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.models.hub_stub import Hub, running_hub
from tests.paper_mirror import mirror

ROOT = Path(__file__).parents[1]
EXAMPLES = ROOT / "examples"
EXPERIMENTS = ("sentiment", "summarization", "dialogue")
RECORDER = """#!{python}
import json, os, sys
with open(os.environ["COMMANDS"], "a") as file:
    file.write(json.dumps(["{name}", *sys.argv[1:]]) + "\\n")
"""


@pytest.fixture(scope="module")
def hub(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Hub]:
    with running_hub(mirror(tmp_path_factory.mktemp("mirror"))) as found:
        yield found


def commands_of(experiment: Path, place: Path) -> list[list[str]]:
    """What `steps.sh` would run: its programs are replaced by one that writes down how it was called."""
    (place / "bin").mkdir(parents=True)
    for name in ("likelier", "python"):
        program = place / "bin" / name
        program.write_text(RECORDER.format(python=sys.executable, name=name))
        program.chmod(program.stat().st_mode | stat.S_IXUSR)
    written = place / "commands.jsonl"
    path = f"{place / 'bin'}{os.pathsep}{os.environ['PATH']}"
    environment = os.environ | {"PATH": path, "COMMANDS": str(written)}
    subprocess.run(["sh", str(experiment / "steps.sh")], cwd=place, env=environment, check=True)
    return [json.loads(line) for line in written.read_text().splitlines()]


def dry_run(experiment: Path, place: Path, hub: Hub) -> subprocess.CompletedProcess[str]:
    """Every command of an experiment, in a process of its own, in an empty folder."""
    commands_of(experiment, place)
    (place / "work").mkdir()
    inherited = {name: value for name, value in os.environ.items() if not name.startswith("HF_")}
    return subprocess.run(
        [sys.executable, "-m", "tests.paper_driver", str(place / "commands.jsonl")],
        cwd=place / "work",
        env=inherited
        | {
            "PYTHONPATH": os.pathsep.join([str(ROOT), str(ROOT / "src")]),
            "HF_ENDPOINT": hub.address,
            "HF_HOME": str(place / "home"),
            "HF_DATASETS_DISABLE_PROGRESS_BARS": "1",
            "LIKELIER_CACHE": str(place / "cache"),
            "NO_PROXY": "127.0.0.1",
            "OPENAI_API_KEY": "never sent",
        },
        capture_output=True,
        text=True,
        timeout=600,
        check=False,
    )


@pytest.mark.parametrize("name", EXPERIMENTS)
def test_every_command_runs_dry(name: str, hub: Hub, tmp_path: Path) -> None:
    done = dry_run(EXAMPLES / name, tmp_path, hub)
    assert done.returncode == 0, done.stderr[-3000:]
    made = set(json.loads(done.stdout.splitlines()[-1]))
    assert f"runs/{name}/{'frontier' if name == 'sentiment' else 'temperature'}" in made


@pytest.mark.parametrize(
    ("file", "right", "wrong", "said"),
    [
        ("dpo.yaml", "preset: paper", "presett: paper", "unknown setting `presett`"),
        ("dpo.yaml", "hh-rlhf:train", "hh-rlhf:trian", "no split `trian`"),
        ("steps.sh", "--out $out/single-turn.jsonl", "--out $out/single-turns.jsonl", "single-turn.jsonl"),
    ],
)
def test_what_is_wrong_is_found(
    file: str, right: str, wrong: str, said: str, hub: Hub, tmp_path: Path
) -> None:
    """The check itself can fail: by a setting, a split, a file that nobody makes."""
    folder = tmp_path / "dialogue"
    shutil.copytree(EXAMPLES / "dialogue", folder)
    text = (folder / file).read_text()
    assert right in text
    (folder / file).write_text(text.replace(right, wrong))
    if file == "steps.sh":  # what comes before is right, and need not be said again
        kept = [
            line for line in (folder / file).read_text().split("\n\n") if "evaluate preferences" not in line
        ]
        (folder / file).write_text("\n\n".join(kept).replace("$out/preferred-ft $out/dpo", ""))
    done = dry_run(folder, tmp_path / "place", hub)
    assert done.returncode != 0
    assert said in done.stderr, done.stderr[-2000:]


def test_what_readmes_name_exists() -> None:
    """Paths in links and code, and keys of settings, of every README below examples."""
    settings: dict[str, Any] = {}
    for readme in EXAMPLES.rglob("README.md"):
        text = readme.read_text()
        for target in re.findall(r"\]\(([^)#:]+)\)", text):
            assert (readme.parent / target).exists(), f"{readme}: {target}"
        for name in re.findall(r"`([\w./-]+\.(?:yaml|sh|py|txt|jsonl))`", text):
            inside = [path.name for path in readme.parent.rglob("*")]
            assert (readme.parent / name).exists() or name in inside, f"{readme}: {name}"
        here = "\n".join(path.read_text() for path in readme.parent.glob("*.yaml"))
        for key in re.findall(r"`([a-z_]+):[^`]*`", text):
            assert re.search(rf"^{key}:", here, re.MULTILINE), f"{readme}: no settings file has {key}"
        for part in readme.parent.iterdir():
            assert part.name == "README.md" or part.name in text, f"{readme} says nothing of {part.name}"
        settings[readme.parent.name] = text
    assert set(EXPERIMENTS) <= set(settings)
    assert all("not run here" in settings[name].lower() for name in EXPERIMENTS)


def test_prefixes_are_2_to_8_tokens_and_drawn_by_the_seed(tmp_path: Path, tiny_llama: Path) -> None:
    import runpy

    from likelier.models.loading import load_tokenizer

    script = runpy.run_path(str(EXAMPLES / "sentiment" / "prefixes.py"))
    tokenizer = load_tokenizer(tiny_llama)
    rows = [{"text": f"The cat sat on the mat and looked at the rain {row}"} for row in range(60)]
    rows += [{"text": "é" * 20}, {"text": "a"}]
    data = tmp_path / "texts.jsonl"
    data.write_text("".join(json.dumps(row) + "\n" for row in rows))
    found = list(script["prompts"](str(data), tokenizer, count=61, seed=0))
    lengths = {len(tokenizer(row["prompt"])["input_ids"]) for row in found}
    assert lengths == set(range(2, 9))  # the 62nd text has one token, and no prefix
    texts = {f"{data}:{number}": row["text"] for number, row in enumerate(rows, start=1)}
    assert all(texts[row["id"]].startswith(row["prompt"]) and "\ufffd" not in row["prompt"] for row in found)
    few = list(script["prompts"](str(data), tokenizer, count=5, seed=0))
    assert few == found[:5]
    assert few != list(script["prompts"](str(data), tokenizer, count=5, seed=1))


def test_single_turns_are_those_of_one_question(tmp_path: Path) -> None:
    import runpy

    single = runpy.run_path(str(EXAMPLES / "dialogue" / "single_turn.py"))["single_turns"]
    one, two = "\n\nHuman: Hi\n\nAssistant:", "\n\nHuman: Hi\n\nAssistant: Yes?\n\nHuman: Rain?\n\nAssistant:"
    rows = [{"chosen": f"{prompt} a", "rejected": f"{prompt} b"} for prompt in (two, one, one)]
    data = tmp_path / "hh.jsonl"
    data.write_text("".join(json.dumps(row) + "\n" for row in rows))
    assert list(single(str(data))) == [{"id": f"{data}:2", "prompt": one, "preferred": " a"}]
