#!/bin/sh
# From prompts to a better model, stage by stage, each in its own file: likelier demo --stages walks the same way and
# measures it. Runs in a few minutes on two cores; MODEL, REWARD and OUT may be set.
set -eu
here=$(dirname "$0")
MODEL=${MODEL:-smollm2} REWARD=${REWARD:-vader} OUT=${OUT:-runs/way}
mkdir -p "$OUT"

# 1. The model answers each prompt four times.
likelier sample --model "$MODEL" --prompts "$here/prompts.jsonl" --n 4 --max-new-tokens 32 --out "$OUT/samples.jsonl"

# 2. Somebody says which answers are better: a rule, a language model, or people
#    (likelier label "$OUT/samples.jsonl" --with human --out "$OUT/by-people.jsonl" opens a page).
likelier label "$OUT/samples.jsonl" --with reward --reward "$REWARD" --out "$OUT/preferences.jsonl"
likelier label "$OUT/samples.jsonl" --with judge --judge-model "$MODEL" --verdict log-odds --pairs adjacent \
    --out "$OUT/by-judge.jsonl"

# 3. A look before it costs anything.
likelier check --data "$OUT/preferences.jsonl" --model "$MODEL"

# 4. A reward model, and the policy itself.
likelier reward --config "$here/reward.yaml" --model "$MODEL" --data "$OUT/preferences.jsonl" --out "$OUT/reward"
likelier dpo --config "$here/dpo.yaml" --model "$MODEL" --data "$OUT/preferences.jsonl" --out "$OUT/dpo"

# 5. The new policy answers, the reward model reads the answers, and the next round may begin with them.
likelier sample --model "$OUT/dpo/model" --prompts "$here/prompts.jsonl" --n 4 --max-new-tokens 32 --seed 1 \
    --out "$OUT/samples-2.jsonl"
likelier score --reward "$OUT/reward/model" --data "$OUT/samples-2.jsonl" --skip-bad-rows \
    --out "$OUT/rewards-2.jsonl"
likelier label "$OUT/samples-2.jsonl" --with reward --reward "$REWARD" --out "$OUT/preferences-2.jsonl"
likelier dpo --config "$here/dpo.yaml" --model "$OUT/dpo/model" --data "$OUT/preferences-2.jsonl" --out "$OUT/dpo-2"
