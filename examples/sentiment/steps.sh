#!/bin/sh
# Controlled sentiment, arXiv 2305.18290 section 6.1. Not run here: it wants a GPU of 80 GB and the hub. Every command
# but python's takes --dry-run. Run it from the folder in which runs/ is to lie: the settings name what is made there.
set -eu
here=$(dirname "$0")
out=runs/sentiment

likelier sft --config "$here/sft.yaml" --out $out/sft

python "$here/prefixes.py" stanfordnlp/imdb:plain_text:train --model openai-community/gpt2-large --count 25000 \
    --out $out/prompts.jsonl
python "$here/prefixes.py" stanfordnlp/imdb:plain_text:test --model openai-community/gpt2-large --count 512 \
    --out $out/held-out.jsonl
likelier sample --config "$here/sample.yaml" --model $out/sft/model --prompts $out/prompts.jsonl --out $out/samples.jsonl
likelier label --config "$here/label.yaml" $out/samples.jsonl --out $out/pairs.jsonl
likelier check --data $out/pairs.jsonl --model $out/sft/model

for seed in 0 1 2 3; do
    likelier sft --config "$here/preferred-ft.yaml" --seed $seed --out $out/preferred-ft-$seed
done
for alpha in 0.05 0.1 0.5 1; do
    likelier dpo --config "$here/unlikelihood.yaml" --unlikelihood-weight $alpha --out $out/unlikelihood-$alpha
done
for beta in 0.05 0.1 1 5; do
    likelier dpo --config "$here/dpo.yaml" --beta $beta --out $out/dpo-$beta
done
likelier reward --config "$here/reward.yaml" --out $out/reward
for kl in 3 6 9 12; do
    likelier ppo --config "$here/ppo.yaml" --reward $out/reward/model --target-kl $kl --out $out/ppo-$kl
    likelier ppo --config "$here/ppo.yaml" --reward siebert/sentiment-roberta-large-english --target-kl $kl \
        --out $out/ppo-gt-$kl
done

likelier evaluate frontier $out/preferred-ft-* $out/unlikelihood-* $out/dpo-* $out/ppo-* --config "$here/frontier.yaml" \
    --out $out/frontier
likelier report $out/dpo-* $out/ppo-* $out/frontier --out $out/report.html
