#!/bin/sh
# Summarisation of Reddit posts, arXiv 2305.18290 section 6.2. Not run here: it wants a GPU of 80 GB, the hub, and a judge
# behind an address. Every command takes --dry-run. Run it from the folder in which runs/ is to lie.
set -eu
here=$(dirname "$0")
out=runs/summarization

likelier sft --config "$here/sft.yaml" --out $out/sft
likelier sft --config "$here/preferred-ft.yaml" --out $out/preferred-ft
likelier dpo --config "$here/dpo.yaml" --out $out/dpo
likelier reward --config "$here/reward.yaml" --out $out/reward
likelier ppo --config "$here/ppo.yaml" --out $out/ppo

likelier sample --config "$here/best-of-n.yaml" --model $out/sft/model --out $out/64.jsonl
likelier label $out/64.jsonl --with reward --reward $out/reward/model --pairs best-worst --out $out/best-of-64.jsonl

likelier evaluate temperature $out/sft $out/preferred-ft $out/dpo $out/ppo --config "$here/temperature.yaml" \
    --best-of 64 --chooser $out/reward/model --rubric "$here/rubric.txt" --out $out/temperature
likelier evaluate winrate $out/dpo $out/ppo --config "$here/winrate.yaml" --prompts $out/best-of-64.jsonl \
    --rubric "$here/rubric.txt" --out $out/against-best-of-64
likelier report $out/sft $out/preferred-ft $out/dpo $out/reward $out/ppo $out/temperature --out $out/report.html
