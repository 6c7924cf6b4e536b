"""A mirror of what the paper's experiments take from the hub: tiny random models, a few rows in the true fields."""

from __future__ import annotations

import gzip
import json
from pathlib import Path
from typing import Any

WORDS = [
    "the",
    "film",
    "was",
    "a",
    "slow",
    "and",
    "kind",
    "story",
    "of",
    "rain",
    "nobody",
    "had",
    "asked",
    "for",
]


def mirror(root: Path) -> dict[str, Path]:
    """Repositories by name, as `hub_stub.Hub` takes them."""
    found = {name: root / "models" / name for name in MODELS}
    for name, folder in found.items():
        _model(name, folder)
    for name, write in DATA.items():
        found[f"datasets/{name}"] = root / "datasets" / name
        write(found[f"datasets/{name}"])
    found["datasets/openai/summarize_from_feedback@refs/convert/parquet"] = root / "datasets" / "copy"
    _comparisons(root / "datasets" / "copy")
    return found


MODELS = {
    "openai-community/gpt2-large": "gpt2",
    "siebert/sentiment-roberta-large-english": "roberta",
    "EleutherAI/gpt-j-6b": "gptj",
    "EleutherAI/pythia-2.8b": "gpt_neox",
}


def _model(name: str, folder: Path) -> None:
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM, AutoModelForSequenceClassification

    from tests.conftest import build_tokenizer

    tokenizer = build_tokenizer()
    tokenizer.chat_template = None
    torch.manual_seed(0)
    kind = MODELS[name]
    sizes: dict[str, Any] = {
        "gpt2": {"n_embd": 16, "n_layer": 1, "n_head": 2, "n_positions": 2048},
        "gptj": {"n_embd": 16, "n_layer": 1, "n_head": 2, "n_positions": 2048, "rotary_dim": 4},
    }.get(kind) or {
        "hidden_size": 16,
        "num_hidden_layers": 1,
        "num_attention_heads": 2,
        "intermediate_size": 32,
        "max_position_embeddings": 2048,
    }
    ends = {"bos_token_id": 0, "eos_token_id": tokenizer.eos_token_id, "pad_token_id": 0}
    config = AutoConfig.for_model(kind, vocab_size=len(tokenizer), **sizes, **ends)
    if kind == "roberta":
        config.id2label = {0: "NEGATIVE", 1: "POSITIVE"}
        model = AutoModelForSequenceClassification.from_config(config)
    else:
        model = AutoModelForCausalLM.from_config(config)
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)


def _parquet(path: Path, rows: list[dict[str, Any]]) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(pa.Table.from_pylist(rows), path)


def _words(start: int, count: int) -> str:
    return " ".join(WORDS[(start + 5 * index) % len(WORDS)] for index in range(count))


def _imdb(folder: Path) -> None:
    for split in ("train", "test", "unsupervised"):
        rows = [{"text": f"{_words(row, 12)} {row}.", "label": row % 2} for row in range(8)]
        _parquet(folder / f"plain_text/{split}-00000-of-00001.parquet", rows)
    splits = "".join(
        f"  - split: {split}\n    path: plain_text/{split}-*\n" for split in ("train", "test", "unsupervised")
    )
    card = f"---\nconfigs:\n- config_name: plain_text\n  data_files:\n{splits}  default: true\n---\n"
    (folder / "README.md").write_text(card)


def _post(row: int) -> dict[str, Any]:
    return {"subreddit": "tea", "title": _words(row, 3), "post": f"{_words(row, 10)} {row}"}


def _tldr(folder: Path) -> None:
    for split, count in (("train", 8), ("validation", 4), ("test", 120)):
        rows = [{"id": f"t3_{row}", **_post(row), "summary": _words(row + 1, 4)} for row in range(count)]
        _parquet(folder / f"data/{split}-00000-of-00001.parquet", rows)


def _script(folder: Path) -> None:
    folder.mkdir(parents=True)
    (folder / "summarize_from_feedback.py").write_text("raise SystemExit('nobody runs this')\n")


def _comparisons(folder: Path) -> None:
    for split, count in (("train", 8), ("validation", 40)):
        rows: list[dict[str, Any]] = [
            {
                "info": {"id": f"t3_{row}", "post": None, "title": None, "subreddit": None, "site": None}
                | {"article": None, **_post(row)},
                "summaries": [
                    {"text": f" {_words(row, 4)}", "policy": "sup2", "note": None},
                    {"text": f" {_words(row + 3, 5)}", "policy": "ref", "note": None},
                ],
                "choice": row % 2,
                "worker": "w",
                "batch": "batch7",
                "split": split,
                "extra": {"confidence": 5},
            }
            for row in range(count)
        ]
        _parquet(folder / f"comparisons/{split}/0000.parquet", rows)
    _parquet(folder / "axis/test/0000.parquet", [{"info": {"id": "t3_0"}, "summary": {"text": "a"}}])


def _hh(folder: Path) -> None:
    for part in ("harmless-base", "helpful-base"):
        for split, count in (("train", 6), ("test", 40)):
            rows = [_dialogue(row) for row in range(count)]
            path = folder / part / f"{split}.jsonl.gz"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(gzip.compress("".join(json.dumps(row) + "\n" for row in rows).encode()))
    attempts = folder / "red-team-attempts" / "red_team_attempts.jsonl.gz"
    attempts.parent.mkdir()
    attempts.write_bytes(gzip.compress(b'{"transcript": "no preference", "rating": 1}\n'))


def _dialogue(row: int) -> dict[str, str]:
    earlier = f"\n\nHuman: Hi\n\nAssistant: {_words(row, 3)}" if row % 3 == 0 else ""
    prompt = f"{earlier}\n\nHuman: {_words(row, 4)} {row}?\n\nAssistant:"
    return {"chosen": f"{prompt} {_words(row, 5)}", "rejected": f"{prompt} {_words(row + 2, 4)}"}


DATA = {
    "stanfordnlp/imdb": _imdb,
    "vwxyzjn/summarize_from_feedback_tldr_3_filtered": _tldr,
    "openai/summarize_from_feedback": _script,
    "Anthropic/hh-rlhf": _hh,
}
