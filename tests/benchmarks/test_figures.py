"""The pure parts of the benchmark: FLOP counts, deviations, ratios and the written table."""

import csv
import json
from collections import Counter
from random import Random

import pytest

from benchmarks.figures import Machine, Outcome, agreement, figures, ratios
from benchmarks.memory import fixed_state
from benchmarks.rates import Shapes, shapes_of, tree_sizes, work
from benchmarks.rows import Measured, deviation, error_interval, likelier, rows, trl
from benchmarks.tables import write_outcome

SMOLLM2 = Shapes(
    Counter({(576, 576): 60, (576, 192): 60, (576, 1536): 60, (1536, 576): 30}),
    (576, 49152),
)
TRUTH = {"token_counts": [[100, 50, 50]] * 24, "log_probs": [[-100.0, -80.0]] * 24}


def result(
    reference: float | None, training: float, peak: float, error: float, pairs: int
) -> dict[str, object]:
    return {
        "reference_seconds": reference,
        "training_seconds": training,
        "step_seconds": [training],
        "peak_bytes": int(peak * 1e9),
        "log_probs": [[-100.0 + error, -80.0 - error]] * pairs,
        "first_loss": 0.693147,
        "first_grad_norm": 14.0,
    }


@pytest.fixture
def outcome() -> Outcome:
    machine = Machine(
        shapes=SMOLLM2,
        parameters=134_515_008,
        rates={"bfloat16": [1e12, 3e12, 2e12], "float32": [3e11]},
        threads=2,
        pairs={"source": "24 made pairs", "mean_tokens": {"prompt": 100.0, "chosen": 50.0, "rejected": 50.0}},
    )
    measured = [
        Measured(trl("hh", 24, 1, 8, rounds=2), [result(10, 30, 6, 0.5, 24), result(20, 30, 6.2, 0.5, 24)]),
        Measured(trl("hh", 8, 8, 1, reference="fly", precision="float32"), [result(None, 80, 16, 1e-4, 8)]),
        Measured(likelier("hh", 24, 8), [result(2, 6, 3.6, 0.25, 24)]),
        Measured(likelier("hh", 8, 8, precision="float32", agreement=True), [result(2, 6, 4, 0.0, 8)]),
        Measured(trl("group-short", 24, 4, 3), [result(4, 8, 6, 0.0, 24)]),
        Measured(likelier("group-short", 24, 12), [result(0.5, 1, 4, 0.0, 24)]),
    ]
    return Outcome(measured, TRUTH, machine)


def test_work_of_an_hh_pair_is_two_hundred_gflop() -> None:
    assert SMOLLM2.body_parameters == 106_168_320  # By hand: 30 · 576 · (2 · 576 + 2 · 192 + 3 · 1536).
    needed = work(SMOLLM2, tree_sizes([[125, 40, 50]]))
    assert needed.training == 6 * (106_168_320 * 215 + 28_311_552 * 90)
    assert needed.reference == needed.training / 3
    assert needed.training + needed.reference == pytest.approx(203e9, rel=0.005)


def test_shapes_count_every_linear_layer_but_the_head() -> None:
    from transformers import LlamaConfig, LlamaForCausalLM

    config = LlamaConfig(
        vocab_size=11,
        hidden_size=8,
        intermediate_size=12,
        num_hidden_layers=3,
        num_attention_heads=4,
        num_key_value_heads=2,
    )
    shapes = shapes_of(LlamaForCausalLM(config))
    assert shapes.body == Counter({(8, 8): 6, (8, 4): 6, (8, 12): 6, (12, 8): 3})
    assert shapes.head == (8, 11)


def test_fixed_state_is_sixteen_bytes_a_parameter() -> None:
    state = fixed_state(1000)
    assert (state.weights, state.gradients, state.optimizer, state.total) == (4000, 4000, 8000, 16000)


def test_deviation_is_the_root_mean_square_over_answers() -> None:
    found = deviation([[-3.0, -4.0], [-1.0, 0.0]], [[-3.0, -4.0], [0.0, 1.0]])
    assert found.rms == pytest.approx((2 / 4) ** 0.5)
    assert found.relative == pytest.approx((2 / 26) ** 0.5)
    assert found.largest == 1.0


def test_figures_take_medians_and_count_the_reference(outcome: Outcome) -> None:
    line = figures(outcome.measured[0], outcome)
    assert line.pairs_per_second == pytest.approx(24 / 45)
    assert line.cached_pairs_per_second == pytest.approx(24 / 30)
    assert line.peak_gb == pytest.approx(6.2)
    assert line.above_fixed_gb == pytest.approx(6.2 - 16 * 134_515_008 / 1e9)
    floor = 24 * 8 * (106_168_320 * 200 + 28_311_552 * 100) / 2e12
    assert line.flop_share == pytest.approx(floor / 45)
    assert figures(outcome.measured[1], outcome).cached_pairs_per_second is None


def test_a_group_counts_its_prompt_once(outcome: Outcome) -> None:
    line = figures(outcome.measured[4], outcome)
    assert line.tokens_per_second == pytest.approx(4 * (6 + 4 * 45) / 12)
    assert line.error_nats is None


def test_ratios_are_against_the_fastest_and_the_leanest(outcome: Outcome) -> None:
    found = {ratio.name: ratio for ratio in ratios(outcome)}
    speed = found["speed over TRL's best, HH pairs"]
    assert speed.value == pytest.approx(45 / 8)
    assert speed.met
    leanest = found["memory of TRL's least"]
    assert leanest.value == pytest.approx(3.6 / 6.2)
    batch_8 = found["memory of TRL at batch 8, reference on the fly, float32"]
    assert batch_8.value == pytest.approx(3.6 / 16)
    error = found["rms log-prob error of TRL's autocast"]
    assert (error.value, error.low, error.high) == pytest.approx((0.5, 0.5, 0.5))
    assert error.met
    short = found["speed over TRL's best, six pairs of four answers, prompt 6 tokens, answers 45"]
    assert short.value == pytest.approx(8.0)
    assert short.met


def test_interval_of_an_error_ratio_holds_the_ratio_and_narrows_with_rows() -> None:
    random = Random(1)
    true = [[0.0, 0.0]] * 400
    ours = [[random.gauss(0, 1), random.gauss(0, 1)] for _ in true]
    theirs = [[random.gauss(0, 1), random.gauss(0, 1)] for _ in true]
    low, high = error_interval(ours, theirs, true)
    assert low < 1.0 < high
    few_low, few_high = error_interval(ours[:20], theirs[:20], true[:20])
    assert high - low < 0.4 < few_high - few_low


def test_agreement_compares_the_same_pairs(outcome: Outcome) -> None:
    found = agreement(outcome)
    assert found is not None
    assert found["first_loss"] == [0.693147, 0.693147]
    assert found["log_probs"]["largest"] == pytest.approx(1e-4)


def test_the_table_is_written_in_all_its_forms(outcome: Outcome, tmp_path) -> None:
    page = write_outcome(outcome, tmp_path).read_text(encoding="utf-8")
    assert "| likelier, 8 pairs a step, bfloat16 | 3.00 | 4.00 | 5.62 |" in page
    assert "loss 0.693147 and 0.693147" in page
    with (tmp_path / "benchmark.csv").open(encoding="utf-8") as file:
        assert len(list(csv.DictReader(file))) == 5
    written = json.loads((tmp_path / "benchmark.json").read_text())
    assert written["machine"]["fixed_state_bytes"]["weights"] == 4 * 134_515_008
    assert (tmp_path / "benchmark.png").stat().st_size > 10_000
    assert (tmp_path / "benchmark.svg").read_text().startswith("<?xml")


def test_rows_have_names_of_their_own_and_whole_steps() -> None:
    table = rows(2)
    assert len({row.key for row in table}) == len(table)
    assert all(row.pairs % row.step_pairs == 0 for row in table)
