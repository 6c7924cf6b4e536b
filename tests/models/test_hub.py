"""The hub's protocol, by its own client, against a hub on loopback."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModelForCausalLM

from likelier.models.identity import weights_digest
from tests.models.hub_stub import COMMIT, running_hub

NEVER_FETCHED = (
    "pytorch_model.bin",
    "consolidated.safetensors",
    "model.gguf",
    "modeling_own.py",
    "README.md",
)

# One process asks many questions, since starting it is what takes time.
PROGRAM = """
import json, sys
from likelier.errors import LikelierError
from likelier.models.loading import load_model, load_tokenizer
from likelier.models.identity import weights_digest
for name, revision in json.loads(sys.argv[1]):
    try:
        loaded = load_model(name, revision=revision)
        tokens = load_tokenizer(name, revision=revision)("rain").input_ids
        digest = weights_digest(loaded.model).hex()
        answer = {"digest": digest, "tokens": tokens, "kind": loaded.kind, "name": loaded.name}
    except LikelierError as error:
        answer = {"error": f"{type(error).__name__}: {error}"}
    print(json.dumps(answer))
"""


def run(
    program: str, address: str, home: Path, argument: Any, **environment: str
) -> subprocess.CompletedProcess[str]:
    """`program` in a process of its own, which has its hub at `address` and its cache at `home`."""
    inherited = {name: value for name, value in os.environ.items() if not name.startswith("HF_")}
    return subprocess.run(
        [sys.executable, "-W", "error", "-c", program, json.dumps(argument)],
        env={
            **inherited,
            "HF_ENDPOINT": address,
            "HF_HOME": str(home),
            "NO_PROXY": "127.0.0.1",
            **environment,
        },
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


def ask(
    address: str, home: Path, *questions: tuple[str, str | None], **environment: str
) -> tuple[list[dict[str, str]], str]:
    finished = run(PROGRAM, address, home, questions, **environment)
    assert finished.returncode == 0, finished.stderr
    return [json.loads(line) for line in finished.stdout.splitlines()], finished.stderr


@pytest.fixture(scope="module")
def repository(tiny_llama: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The tiny model as it lies on the hub, with second copies that must not be fetched."""
    folder = tmp_path_factory.mktemp("repository") / "llama"
    shutil.copytree(tiny_llama, folder)
    for extra in NEVER_FETCHED:
        (folder / extra).write_bytes(b"never read")
    return folder


REFUSALS = [
    (("missing/model", None), "no folder and no hub model named missing/model"),
    (("gone/model", None), "no folder and no hub model named gone/model"),
    (("gated/model", None), "gated/model is gated: accept its terms"),
    (("tiny/llama", "nosuch"), "tiny/llama has no revision 'nosuch'"),
]


def test_a_model_comes_through_the_hub_then_from_the_cache(
    repository: Path, tiny_llama: Path, tmp_path: Path, tokenizer: Any
) -> None:
    expected = weights_digest(AutoModelForCausalLM.from_pretrained(tiny_llama, dtype=torch.float32)).hex()
    found = [("tiny/llama", None), ("tiny/llama", COMMIT)]
    with running_hub({"tiny/llama": repository}) as hub:
        answers, errors = ask(hub.address, tmp_path, *found, *(question for question, _ in REFUSALS))
        fetched = {line.rpartition("/")[2] for line in hub.asked if "/resolve/" in line}
        address = hub.address
    for answer in answers[:2]:
        assert answer["digest"] == expected
        assert answer["tokens"] == tokenizer("rain").input_ids
        assert (answer["kind"], answer["name"]) == ("hub", "tiny/llama")
    assert errors == ""
    assert {"config.json", "model.safetensors", "tokenizer.json"} <= fetched
    assert not fetched & set(NEVER_FETCHED)
    for answer, (_, message) in zip(answers[2:], REFUSALS, strict=True):
        assert answer["error"].startswith("ModelError: ")
        assert message in answer["error"]
        assert "\n" not in answer["error"]
    # The hub is gone, and what was fetched is still there; what was not is named.
    again, _ = ask(address, tmp_path, ("tiny/llama", None), ("tiny/other", None))
    assert again[0]["digest"] == expected
    assert "cannot be fetched from the hub" in again[1]["error"]
    offline, _ = ask(address, tmp_path, ("tiny/llama", None), ("tiny/other", None), HF_HUB_OFFLINE="1")
    assert offline[0]["digest"] == expected
    assert "HF_HUB_OFFLINE is set" in offline[1]["error"]


ROWS_PROGRAM = """
import json, sys
from likelier.data.files import raw_rows
from likelier.errors import DataError
for name in json.loads(sys.argv[1]):
    try:
        print(json.dumps([value for _, value in raw_rows(name)]))
    except DataError as error:
        print(json.dumps(str(error)))
"""


def test_data_sets_come_through_the_hub_and_those_of_a_script_from_its_copy(tmp_path: Path) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    plain, made, copy = (tmp_path / name for name in ("plain", "made", "copy"))
    rows = {split: [{"text": f"{split} {index}"} for index in range(2)] for split in ("train", "test")}
    for split, own in rows.items():
        for folder, name in ((plain, f"data/{split}.parquet"), (copy, f"hard/{split}/0000.parquet")):
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            pq.write_table(pa.Table.from_pylist(own), folder / name)
    made.mkdir()
    (made / "made.py").write_text("raise SystemExit('nobody runs this')")
    names = ["who/plain:test", *2 * ["who/made:hard:test"], "who/made:test", "who/none:test"]
    repositories = {
        "datasets/who/plain": plain,
        "datasets/who/made": made,
        "datasets/who/made@refs/convert/parquet": copy,
    }
    with running_hub(repositories) as hub:
        done = run(ROWS_PROGRAM, hub.address, tmp_path / "home", names)
    found = [json.loads(line) for line in done.stdout.splitlines()]
    assert found[:3] == 3 * [rows["test"]]
    assert "who/made:CONFIGURATION:SPLIT" in found[3]
    assert found[4].startswith("`who/none:test` is no file here and cannot be had from the hub")
    assert "who/made is made by a script: reading the hub's copy in refs/convert/parquet" in done.stderr
