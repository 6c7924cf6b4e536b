"""The true log-probs: plain forward passes of transformers, one unpadded row at a time, in float64.

Sums over the answer's tokens and its end of turn, per pair `[chosen, rejected]`. Every row of the table
is held against these.

    python -m benchmarks.truth --model FOLDER --pairs F.jsonl --out TRUTH.json
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from benchmarks.common import parser, read_rows


def answer_log_prob(model: Any, prompt: list[int], answer: list[int]) -> float:
    """`log π(answer | prompt)` in nats."""
    import torch

    row = torch.tensor([prompt + answer])
    with torch.no_grad():
        logits = model(input_ids=row, use_cache=False).logits[0, len(prompt) - 1 : -1]
        logps = logits.double().log_softmax(-1)
        return float(logps.gather(1, torch.tensor(answer)[:, None]).sum())


def main() -> None:
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    arguments = parser(__doc__)
    arguments.add_argument("--pairs", required=True, type=Path)
    options = arguments.parse_args()
    torch.set_num_threads(options.threads)
    tokenizer = AutoTokenizer.from_pretrained(options.model)
    model = AutoModelForCausalLM.from_pretrained(options.model, dtype=torch.float64).eval()

    def tokens(text: str) -> list[int]:
        return list(tokenizer(text, add_special_tokens=False)["input_ids"])

    log_probs, counts = [], []
    for row in read_rows(options.pairs):
        prompt = tokens(row["prompt"])
        answers = [[*tokens(row[side]), tokenizer.eos_token_id] for side in ("chosen", "rejected")]
        log_probs.append([answer_log_prob(model, prompt, answer) for answer in answers])
        counts.append([len(prompt), *map(len, answers)])
    options.out.write_text(json.dumps({"log_probs": log_probs, "token_counts": counts}))


if __name__ == "__main__":
    main()
