"""Runs TRL's own loss code on fixed inputs and writes what it gives to `trl_numbers.json`.

    python tests/objectives/make_trl_numbers.py tests/objectives/trl_numbers.json

in an environment of its own that holds `trl==1.16.*` (not a dependency of likelier). The tests read the JSON
alone. TRL's methods are called on a stand-in trainer, with a stand-in model that answers given log-probs, one
pair at a time, so that TRL's batch mean is that pair's loss; float64 where TRL allows it.

To add a loss: a line in `DPO_LOSSES`.
"""

import json
import random
import sys
from collections import defaultdict
from pathlib import Path
from types import SimpleNamespace

import torch
import trl
from trl.experimental.cpo import CPOTrainer
from trl.experimental.orpo import ORPOTrainer
from trl.trainer.dpo_trainer import DPOTrainer

DPO_LOSSES = [
    ("sigmoid", {}),
    ("hinge", {}),
    ("ipo", {}),
    ("robust", {"label_smoothing": 0.0}),
    ("robust", {"label_smoothing": 0.1}),
    ("robust", {"label_smoothing": 0.3}),
    ("sigmoid", {"label_smoothing": 0.2}),
]
BETAS = [0.05, 0.1, 1.0]
PROMPT_TOKENS = 3


def make_pairs(count=8):
    """Per-token log-probs of policy and reference; the lengths of the two sides differ."""
    draw = random.Random(20240613)
    pairs = []
    for _ in range(count):
        lengths = [draw.randint(1, 12), draw.randint(1, 12)]
        reference = [[-draw.expovariate(0.5) for _ in range(n)] for n in lengths]
        policy = [[value + draw.gauss(0.0, 0.7) for value in side] for side in reference]
        pairs.append({"policy": [[min(v, -1e-3) for v in side] for side in policy], "reference": reference})
    return pairs


def padded(sides, fill=0.0):
    """Log-probs of the positions after the first, prompt in front, as TRL's model output has them."""
    width = max(map(len, sides))
    rows = [[fill] * (PROMPT_TOKENS - 1) + side + [fill] * (width - len(side)) for side in sides]
    return torch.tensor(rows, dtype=torch.float64)


def stand_in_trainer(loss, beta, options):
    same = SimpleNamespace(
        device="cpu", gather_for_metrics=lambda x: x, gather=lambda x: x, unwrap_model=lambda m: m
    )
    return SimpleNamespace(
        model=SimpleNamespace(training=True),
        accelerator=same,
        aux_loss_enabled=False,
        ld_alpha=None,
        precompute_ref_logps=True,
        f_divergence_type="reverse_kl",
        loss_types=[loss],
        loss_weights=[1.0],
        beta=beta,
        label_smoothing=options.get("label_smoothing", 0.0),
        use_weighting=False,
        _metrics={"train": defaultdict(list), "eval": defaultdict(list)},
        _total_train_tokens=0,
        _tp_size=1,
        args=SimpleNamespace(),
    )


def run_dpo(loss, beta, options, pairs):
    """TRL's DPO loss over a batch of pairs, its slope by each log-prob, and its logged metrics."""
    chosen_first = [pair["policy"][side] for side in (0, 1) for pair in pairs]
    lengths = [len(side) for side in chosen_first]
    log_probs = padded(chosen_first).requires_grad_()
    width = log_probs.shape[1] + 1
    mask = torch.zeros(len(lengths), width, dtype=torch.long)
    for row, length in enumerate(lengths):
        mask[row, PROMPT_TOKENS : PROMPT_TOKENS + length] = 1
    nothing = torch.zeros_like(log_probs)
    outputs = SimpleNamespace(
        log_probs=log_probs, entropy=nothing, mean_logits=nothing, is_top1=nothing.bool()
    )
    reference = torch.tensor(
        [[sum(pair["reference"][side]) for side in (0, 1)] for pair in pairs], dtype=torch.float64
    )
    inputs = {
        "input_ids": torch.ones_like(mask),
        "attention_mask": torch.ones_like(mask),
        "completion_mask": mask,
        "ref_chosen_logps": reference[:, 0],
        "ref_rejected_logps": reference[:, 1],
    }
    trainer = stand_in_trainer(loss, beta, options)
    value = DPOTrainer._compute_loss(trainer, lambda **_: outputs, inputs, False)
    value.backward()
    slopes = [log_probs.grad[row, PROMPT_TOKENS - 1].item() for row in range(len(lengths))]
    metrics = {name: values[0] for name, values in trainer._metrics["train"].items() if "rewards/" in name}
    return value.item(), slopes, metrics


def dpo_cases(pairs):
    for loss, options in DPO_LOSSES:
        for beta in BETAS:
            runs = [run_dpo(loss, beta, options, [pair]) for pair in pairs]
            yield {
                "trl": f"DPOTrainer {loss}",
                "loss": loss,
                "beta": beta,
                "options": options,
                "losses": [value for value, _, _ in runs],
                "slopes": [slopes for _, slopes, _ in runs],
                "margins": [metrics["rewards/margins"] for _, _, metrics in runs],
            }


def mean_log_probs(pairs, dtype):
    means = [[sum(side) / len(side) for side in pair["policy"]] for pair in pairs]
    return torch.tensor(means, dtype=dtype)


def simpo_cases(pairs):
    means = mean_log_probs(pairs, torch.float64)
    for beta in [2.0, 2.5]:
        for gamma in [0.0, 0.5, 1.4]:
            trainer = SimpleNamespace(
                alpha=0.0, accelerator=SimpleNamespace(device="cpu"), loss_type="simpo", simpo_gamma=gamma
            )
            trainer.beta, trainer.label_smoothing = beta, 0.0
            losses, chosen, rejected = CPOTrainer.cpo_loss(trainer, means[:, 0], means[:, 1])
            yield {
                "trl": "CPOTrainer simpo",
                "loss": "simpo",
                "beta": beta,
                "options": {"gamma": gamma},
                "losses": losses.tolist(),
                "margins": (chosen - rejected).tolist(),
            }


def orpo_cases(pairs):
    """TRL's `beta` is the paper's λ; it returns λ log σ(log odds ratio) alone, in float32."""
    means = mean_log_probs(pairs, torch.float64)
    for weight in [0.1, 1.0]:
        trainer = SimpleNamespace(beta=weight, accelerator=SimpleNamespace(device="cpu"))
        term, *_ = ORPOTrainer.odds_ratio_loss(trainer, means[:, 0], means[:, 1])
        yield {
            "trl": "ORPOTrainer odds_ratio_loss",
            "loss": "orpo",
            "options": {"odds_weight": weight},
            "odds_terms": term.tolist(),
        }


def main(path):
    pairs = make_pairs()
    cases = [*dpo_cases(pairs), *simpo_cases(pairs), *orpo_cases(pairs)]
    step_loss, _, _ = run_dpo("sft", 0.1, {}, pairs)
    found = {"trl_version": trl.__version__, "pairs": pairs, "cases": cases, "sft_step_loss": step_loss}
    Path(path).write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main(sys.argv[1])
