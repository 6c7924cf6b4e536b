"""One measured row of sampling, in a process of its own: likelier, or `model.generate` of transformers.

Both sides answer the same prompts with K answers each at temperature 1, and stop an answer at its end of turn
or at 64 tokens. What is timed is tokenised prompts to answers as text; not imports, not loading. One short round
before the clock warms up kernels and allocator.

    python -m benchmarks.sampling_side --model FOLDER --prompts F.jsonl --out ROW.json --side generate --batch 8
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from benchmarks.common import parser, peak_bytes, read_rows

Answers = list[list[int]]
"""Token ids of one answer each, prompt after prompt."""


def arguments() -> argparse.Namespace:
    made = parser(__doc__)
    made.add_argument("--prompts", required=True, type=Path)
    made.add_argument("--side", choices=["likelier", "generate"], required=True)
    made.add_argument("--precision", choices=["bfloat16", "float32"], default="bfloat16")
    made.add_argument("--batch", type=int, default=8, help="generate: prompts per call")
    made.add_argument(
        "--cache", choices=["dynamic", "static"], default="dynamic", help="generate: its cache of keys"
    )
    made.add_argument("--answers", type=int, default=4)
    made.add_argument("--max-new-tokens", type=int, default=64)
    return made.parse_args()


def likelier_side(options: argparse.Namespace) -> Callable[[Sequence[str]], Answers]:
    """`likelier sample`'s own engine, with weights in bfloat16 as it has them, or as loaded."""
    from likelier.engines.decoding import generation_copy
    from likelier.engines.prompts import Prompt
    from likelier.engines.sampling import sample
    from likelier.models.loading import load_model

    loaded = load_model(options.model)
    model = generation_copy(loaded.model) if options.precision == "bfloat16" else loaded.model

    def answer(prompts: Sequence[str]) -> Answers:
        asked = [Prompt(id=str(number), content=text) for number, text in enumerate(prompts)]
        sampled = sample(
            model, loaded.tokenizer, asked, n=options.answers, max_new_tokens=options.max_new_tokens
        )
        return [completion.tokens for prompt in sampled for completion in prompt.completions]

    return answer


def generate_side(options: argparse.Namespace) -> Callable[[Sequence[str]], Answers]:
    """`model.generate` with `num_return_sequences`, prompts sorted by length, padded on the left."""
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(options.model, padding_side="left")
    dtype = getattr(torch, options.precision)
    model = AutoModelForCausalLM.from_pretrained(options.model, dtype=dtype).eval()
    stops = {model.generation_config.eos_token_id, tokenizer.eos_token_id}
    torch.manual_seed(0)

    def answer(prompts: Sequence[str]) -> Answers:
        order = sorted(range(len(prompts)), key=lambda number: len(tokenizer(prompts[number])["input_ids"]))
        found: dict[int, Answers] = {}
        for start in range(0, len(order), options.batch):
            numbers = order[start : start + options.batch]
            inputs = tokenizer([prompts[number] for number in numbers], return_tensors="pt", padding=True)
            output = model.generate(
                **inputs,
                do_sample=True,
                temperature=1.0,
                top_p=1.0,
                top_k=0,
                num_return_sequences=options.answers,
                max_new_tokens=options.max_new_tokens,
                cache_implementation=options.cache,
            )
            rows = output[:, inputs["input_ids"].shape[1] :].tolist()
            tokenizer.batch_decode(rows, skip_special_tokens=True)
            for place, number in enumerate(numbers):
                own = rows[place * options.answers : (place + 1) * options.answers]
                found[number] = [_until_stop(row, stops) for row in own]
        return [row for number in range(len(prompts)) for row in found[number]]

    return answer


def _until_stop(row: list[int], stops: set[int]) -> list[int]:
    ends = [place for place, token in enumerate(row) if token in stops]
    return row[: ends[0] + 1] if ends else row


def main() -> None:
    options = arguments()
    import torch

    torch.set_num_threads(options.threads)
    prompts = [row["prompt"] for row in read_rows(options.prompts)]
    answer = likelier_side(options) if options.side == "likelier" else generate_side(options)
    answer(prompts[:1])
    start = time.perf_counter()
    answers = answer(prompts)
    seconds = time.perf_counter() - start
    row = {
        "side": options.side,
        "precision": options.precision,
        "batch": options.batch,
        "cache": options.cache,
        "prompts": len(prompts),
        "answers": len(answers),
        "tokens": sum(map(len, answers)),
        "seconds": seconds,
        "peak_bytes": peak_bytes(),
    }
    options.out.write_text(json.dumps(row))
    print(json.dumps(row), flush=True)


if __name__ == "__main__":
    main()
