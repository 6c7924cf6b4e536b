#!/bin/sh
# Single-turn dialogue, arXiv 2305.18290 section 6.2. Not run here: it wants a GPU of 80 GB, the hub, and a judge behind an
# address. Every command but python's takes --dry-run. Run it from the folder in which runs/ is to lie.
set -eu
here=$(dirname "$0")
out=runs/dialogue

likelier sft --config "$here/preferred-ft.yaml" --out $out/preferred-ft
likelier dpo --config "$here/dpo.yaml" --out $out/dpo
likelier reward --config "$here/reward.yaml" --out $out/reward
likelier evaluate preferences $out/dpo $out/reward --data Anthropic/hh-rlhf:test --max-length 512 --skip-bad-rows \
    --out $out/preferences

python "$here/single_turn.py" Anthropic/hh-rlhf:test --out $out/single-turn.jsonl
likelier evaluate temperature EleutherAI/pythia-2.8b $out/preferred-ft $out/dpo --config "$here/judged.yaml" \
    --prompts $out/single-turn.jsonl=0.1 --baseline preferred --rubric "$here/rubric.txt" --out $out/temperature

likelier sample --config "$here/best-of-n.yaml" --model $out/preferred-ft/model --prompts $out/single-turn.jsonl=0.1 \
    --out $out/128.jsonl
likelier label $out/128.jsonl --with reward --reward $out/reward/model --pairs best-worst --out $out/best-of-128.jsonl
likelier evaluate winrate $out/dpo --config "$here/judged.yaml" --prompts $out/best-of-128.jsonl --format pairs \
    --baseline chosen --rubric "$here/rubric.txt" --out $out/against-best-of-128
likelier report $out/preferred-ft $out/dpo $out/reward $out/temperature --out $out/report.html
