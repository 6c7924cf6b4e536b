"""Run folders as they are read: whole, damaged, unfinished, resumed, and evaluations beside them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import yaml

from likelier.config import read_yaml
from likelier.report.frontier import Point, report_frontier
from likelier.report.past_evaluations import evaluations_in, evaluations_near, in_short
from likelier.report.past_runs import is_run, read_run, short_names
from likelier.report.run_curves import curve_of, panels
from likelier.report.run_samples import side_by_side
from likelier.report.run_tables import Cell, compare_settings, data_table, results_table
from likelier.report.run_warnings import warnings_of
from likelier.stats import Estimate
from tests.report.run_folders import evaluation, step, write_run, write_winrate


def test_a_finished_run(tmp_path: Path) -> None:
    run = read_run(write_run(tmp_path / "a"), name="a")
    assert (run.stage, run.state, run.last_step, run.faults) == ("dpo", "finished", 5, ())
    assert [len(run.steps), len(run.evaluations)] == [5, 1]
    assert run.inputs == {"train": "aa" * 32, "eval": "bb" * 32}


def test_the_half_written_last_line_of_a_killed_run(tmp_path: Path) -> None:
    folder = write_run(tmp_path / "a", finished=False)
    with (folder / "metrics.jsonl").open("ab") as file:
        file.write(b'{"step": 6, "lo\xff')
    run = read_run(folder, name="a")
    assert (run.state, run.last_step) == ("not finished", 5)
    assert run.faults == (
        "the last line of metrics.jsonl (7) is half written: the run was killed, or goes on",
    )


def test_damaged_lines_in_the_middle_are_numbered(tmp_path: Path) -> None:
    folder = write_run(tmp_path / "a")
    lines = (folder / "metrics.jsonl").read_text().splitlines()
    damaged = [lines[0], "{", "[1]", '{"loss": 1}', '{"step": true, "loss": 1}', *lines[1:]]
    (folder / "metrics.jsonl").write_text("\n".join(damaged) + "\n")
    (fault,) = read_run(folder, name="a").faults
    assert fault == "metrics.jsonl: 4 of 10 lines are damaged and left out: 2, 3, 4, 5"


@pytest.mark.parametrize(
    ("settings", "stage"),
    [
        ({"reference": None}, "dpo"),
        ({"rollout_epochs": 4, "reference": None}, "ppo"),
        ({"centre": True}, "reward"),
        ({"on": "chosen"}, "sft"),
        ({}, "run"),
    ],
)
def test_an_unfinished_run_is_known_by_what_only_its_stage_has(
    tmp_path: Path, settings: dict[str, object], stage: str
) -> None:
    folder = write_run(tmp_path / "a", finished=False)
    (folder / "config.yaml").write_text("".join(f"{k}: {str(v).lower()}\n" for k, v in settings.items()))
    assert read_run(folder, name="a").stage == stage


def test_what_is_missing_or_damaged_is_named(tmp_path: Path) -> None:
    folder = write_run(tmp_path / "a")
    (folder / "manifest.json").write_text("[")
    (folder / "config.yaml").write_text("a: [")
    (folder / "metrics.jsonl").unlink()
    faults = read_run(folder, name="a").faults
    assert [fault.split(" ")[0] for fault in faults] == ["config.yaml", "manifest.json", "metrics.jsonl"]
    assert faults[2] == "metrics.jsonl is missing"


def test_another_programs_manifest_is_no_run(tmp_path: Path) -> None:
    (tmp_path / "manifest.json").write_text('{"name": "an app"}')
    assert not is_run(tmp_path)


def test_names_as_short_as_tells_them_apart() -> None:
    assert short_names([Path("/x/a/run"), Path("/y/a/run"), Path("/y/b")]) == ["x/a/run", "y/a/run", "b"]


# Curves


def test_missing_steps_and_missing_values_break_a_curve(tmp_path: Path) -> None:
    lines = [step(1), step(2, loss=None), step(5), step(6)]
    run = read_run(write_run(tmp_path / "a", metrics=lines), name="a")
    curve = curve_of(run, "loss")
    assert list(curve.steps) == [1, 2, 3, 5, 6]
    assert list(curve.values) == [pytest.approx(0.69), None, None, pytest.approx(0.65), pytest.approx(0.64)]
    said = [warning.text for warning in warnings_of([run])]
    assert any("steps are missing from metrics.jsonl (3 to 4)" in text for text in said)
    assert any("no finite loss" in text for text in said)


def test_of_a_step_logged_twice_the_later_line_counts(tmp_path: Path) -> None:
    lines = [step(1), step(2, loss=9.0), step(3, loss=9.0), step(2, loss=0.5), step(3, loss=0.4)]
    run = read_run(write_run(tmp_path / "a", metrics=lines), name="a")
    assert [line["loss"] for line in run.steps] == [pytest.approx(0.69), 0.5, 0.4]
    assert "2 steps were logged twice" in run.faults[0]


def test_a_long_curve_is_drawn_by_means_of_neighbours(tmp_path: Path) -> None:
    run = read_run(
        write_run(tmp_path / "a", metrics=[step(n, loss=float(n)) for n in range(1, 321)]), name="a"
    )
    curve = curve_of(run, "loss")
    assert list(curve.steps[:2]) == list(curve.values[:2]) == [1.5, 3.5]
    assert len(curve.steps) == 160


def test_losses_of_unlike_kinds_have_panels_of_their_own(tmp_path: Path) -> None:
    runs = [
        read_run(write_run(tmp_path / loss, settings={"loss": loss}), name=loss)
        for loss in ("sigmoid", "ipo")
    ]
    titles = [panel.title for panel in panels(runs)]
    assert titles[:3] == ["Loss (dpo, sigmoid)", "Loss (dpo, ipo)", "Margin"]
    assert "Reward" not in titles


def test_rewards_of_unlike_units_have_panels_of_their_own(tmp_path: Path) -> None:
    """A log-probability lies at −60 where a log-ratio is 0: on one axis all log-ratios were one line."""
    written = [
        write_run(tmp_path / "a"),
        write_run(tmp_path / "b", manifest={"reference": ""}),
        write_run(tmp_path / "c", manifest={"stage": "reward"}),
        write_run(tmp_path / "d", metrics=[{"step": 1, "loss": 2.0}], manifest={"stage": "sft"}),
    ]
    runs = [read_run(run, name=run.name) for run in written]
    kinds = ("losses with reference", "losses without reference", "reward models")
    titles = [panel.title for panel in panels(runs)]
    assert [title for title in titles if title.startswith("Margin")] == [f"Margin ({one})" for one in kinds]
    zero = "dotted: 0, where the policy is its reference"
    drawn = {panel.title: zero in panel.caption for panel in panels(runs)}
    assert [drawn[f"Margin ({one})"] for one in kinds] == [True, False, False]
    assert "Accuracy" in titles
    assert "Margin" in [panel.title for panel in panels([runs[1], runs[3]])]


def test_every_run_of_twenty_has_a_line_of_its_own(tmp_path: Path) -> None:
    runs = [read_run(write_run(tmp_path / str(n)), name=str(n)) for n in range(20)]
    loss = panels(runs)[0].svg
    assert all(f'id="curves0x0-line-{n}"' in loss for n in range(1, 21))
    from likelier.report.run_curves import look

    looks = [look(n) for n in range(28)]
    assert len({(one.color, str(one.dashes)) for one in looks}) == 28
    assert all(a.mark != b.mark for a in looks for b in looks if a is not b and a.color == b.color)


def test_a_run_of_ppo_shows_reward_and_kl_with_intervals(tmp_path: Path) -> None:
    def line(number: int) -> dict[str, Any]:
        own = {
            "reward/mean": 0.1 * number,
            "reward/mean/low": 0.0,
            "reward/mean/high": 1.0,
            "kl": 0.01 * number,
        }
        return {"step": number, "answers_seen": 8 * number, "loss": 0.0, "entropy": 3.0, **own}

    folder = write_run(tmp_path / "a", metrics=[line(n) for n in range(1, 5)], manifest={"stage": "ppo"})
    drawn = {panel.title: panel.svg for panel in panels([read_run(folder, name="a")])}
    assert [*drawn] == ["Loss", "Reward", "KL to the reference", "Entropy"]
    assert ("band-1" in drawn["Reward"], "band-1" in drawn["KL to the reference"]) == (True, False)


# Tables


def test_settings_that_differ_are_marked_against_what_most_have(tmp_path: Path) -> None:
    betas = (0.1, 0.5, 0.1)
    runs = [
        read_run(write_run(tmp_path / str(n), settings={"beta": b}), name=str(n)) for n, b in enumerate(betas)
    ]
    found = compare_settings(runs)
    ((name, cells),) = found.rows
    assert (name, [(cell.text, cell.odd) for cell in cells]) == (
        "beta",
        [("0.1", False), ("0.5", True), ("0.1", False)],
    )
    assert ("learning_rate", "1e-06") in found.shared
    assert not any(name in ("out", "resume") for name, _ in found.shared)


def test_what_a_stage_does_not_have_is_no_difference(tmp_path: Path) -> None:
    """Of three kinds of run: what only some have is odd among those alone, and elsewhere beside the point."""
    own: dict[str, dict[str, Any]] = {
        "a": {"beta": 0.1, "stage": "dpo"},
        "b": {"beta": 0.5, "stage": "dpo"},
        "c": {"beta": 0.1, "stage": "dpo"},
        "d": {"on": "chosen", "stage": "sft"},
    }
    runs = []
    for name, settings in own.items():
        stage = settings.pop("stage")
        folder = write_run(tmp_path / name, settings=settings, manifest={"stage": stage})
        kept = read_yaml(folder / "config.yaml")
        if stage == "sft":
            del kept["beta"], kept["loss"], kept["reference"]
        (folder / "config.yaml").write_text(yaml.safe_dump(kept))
        runs.append(read_run(folder, name=name))
    found = compare_settings(runs)
    assert dict(found.rows)["beta"] == [
        Cell("0.1", False), Cell("0.5", True), Cell("0.1", False), Cell("—", False),
    ]  # fmt: skip
    assert {*dict(found.rows)} == {"stage", "beta"}
    assert {*found.only_some} == {
        ("loss", "sigmoid", "dpo"),
        ("reference", "none", "dpo"),
        ("on", "chosen", "sft"),
    }
    assert not {"loss", "on"} & {name for name, _ in found.shared}


def test_where_nothing_is_usual_nothing_is_odd(tmp_path: Path) -> None:
    runs = [read_run(write_run(tmp_path / str(n), settings={"seed": n}), name=str(n)) for n in range(3)]
    assert [[cell.odd for cell in cells] for _, cells in compare_settings(runs).rows] == [[False] * 3]
    assert [[cell.odd for cell in cells] for _, cells in compare_settings(runs[:2]).rows] == [[False, True]]


def test_many_runs_stand_in_rows(tmp_path: Path) -> None:
    runs = [read_run(write_run(tmp_path / str(n), settings={"seed": n}), name=str(n)) for n in range(6)]
    found = compare_settings(runs)
    assert found.by_run
    assert list(found.header) == ["run", "seed"]
    assert [name for name, _ in found.rows] == list("012345")


def test_the_same_rows_have_the_same_letter(tmp_path: Path) -> None:
    other = {"inputs": {"train": "cc" * 32, "eval": "bb" * 32}}
    runs = [
        read_run(write_run(tmp_path / "a"), name="a"),
        read_run(write_run(tmp_path / "b", manifest=other), name="b"),
    ]
    table = data_table(runs)
    assert [(row.run, row.use, row.letter) for row in table] == [
        ("a", "train", "A"), ("a", "eval", "B"), ("b", "train", "C"), ("b", "eval", "B"),
    ]  # fmt: skip
    assert table[0].left_out == ["left out as unusable: chosen equals rejected 2"]
    assert [table[0].count, table[1].count] == ["20 pairs seen in 0.5 epochs", "12 pairs, 11 prompts"]


def test_results_are_the_last_figures_with_their_intervals(tmp_path: Path) -> None:
    lines = [step(1), evaluation(1), step(2), evaluation(2, **{"eval/rewards/accuracies": 0.65})]
    header, (row,) = results_table([read_run(write_run(tmp_path / "a", metrics=lines), name="a")])
    assert header == ["loss", "held-out loss", "held-out accuracy"]
    assert row[0] == pytest.approx(0.68)
    assert isinstance(row[2], Estimate)
    assert (row[2].value, row[2].interval) == (0.65, (0.5, 0.7))


# Warnings


def test_what_makes_runs_hard_to_compare_is_said(tmp_path: Path) -> None:
    other = {"inputs": {"train": "cc" * 32, "eval": "dd" * 32}, "start": "22" * 32, "reference": "33" * 32}
    unlike = write_run(tmp_path / "b", manifest=other, settings={"loss": "ipo", "batch_size": 8})
    runs = [read_run(write_run(tmp_path / "a"), name="a"), read_run(unlike, name="b")]
    said = " ".join(warning.text for warning in warnings_of(runs))
    for words in (
        "trained on different rows: a | b",
        "evaluated on different held-out rows",
        "started from different weights",
        "have different references",
        "have different losses",
        "different batch sizes",
    ):
        assert words in said
    assert "versions" not in said


def test_one_run_under_several_settings_is_said(tmp_path: Path) -> None:
    """As where a controller never came near its targets; runs of the same settings, or of other steps, are none."""

    def steps(shift: float, rate: float) -> list[dict[str, Any]]:
        return [step(n, loss=0.5 + shift, tokens_per_second=rate) for n in (1, 2)]

    made = {"a": (3, 0.0), "b": (6, 0.0), "c": (6, 0.1), "d": (6, 0.0)}
    runs = [
        read_run(
            write_run(tmp_path / name, settings={"target_kl": target}, metrics=steps(shift, 10.0 * number)),
            name=name,
        )
        for number, (name, (target, shift)) in enumerate(made.items(), 1)
    ]
    (told,) = (one for one in warnings_of(runs) if "same steps" in one.text)
    assert told.runs == ("a", "b", "d")
    assert "target_kl made no difference" in told.text
    assert not [one for one in warnings_of([runs[1], runs[3]]) if "same steps" in one.text]


def test_prompts_are_no_other_rows_than_preferences(tmp_path: Path) -> None:
    other = {"stage": "ppo", "inputs": {"train": "cc" * 32}}
    runs = [
        read_run(write_run(tmp_path / "a"), name="a"),
        read_run(write_run(tmp_path / "b", manifest=other), name="b"),
    ]
    assert "rows" not in " ".join(warning.text for warning in warnings_of(runs))
    another = {**other, "inputs": {"train": "dd" * 32}}
    runs.append(read_run(write_run(tmp_path / "c", manifest=another), name="c"))
    assert [one.text for one in warnings_of(runs) if "different" in one.text] == [
        "these runs answered different prompts: b | c"
    ]


def test_a_reward_models_new_head_is_no_other_start(tmp_path: Path) -> None:
    reward = write_run(tmp_path / "b", manifest={"stage": "reward", "start": "22" * 32})
    runs = [read_run(write_run(tmp_path / "a"), name="a"), read_run(reward, name="b")]
    assert "different weights" not in " ".join(warning.text for warning in warnings_of(runs))


def test_like_runs_are_not_warned_of_but_for_what_they_said(tmp_path: Path) -> None:
    runs = [read_run(write_run(tmp_path / name), name=name) for name in "ab"]
    assert [(warning.runs, warning.text) for warning in warnings_of(runs)] == [
        (("a", "b"), "answers grow: 90 tokens")
    ]


def test_an_unfinished_runs_curves_are_read_for_signs(tmp_path: Path) -> None:
    still = [step(n, **{"rewards/margins": 0.0, "loss": 0.693}) for n in range(1, 31)]
    run = read_run(write_run(tmp_path / "a", metrics=still, finished=False), name="a")
    said = [warning.text for warning in warnings_of([run])]
    assert said[0].startswith("the run has not finished (its last line is step 30)")
    assert said[1].startswith("the policy has not moved in 10 steps")


def test_a_run_that_stopped_early_says_why(tmp_path: Path) -> None:
    stopped = {"result": {"stopped": "no better held-out loss in 3 evaluations"}}
    run = read_run(write_run(tmp_path / "a", manifest=stopped), name="a")
    assert run.state == "stopped early"
    assert "no better held-out loss" in warnings_of([run])[0].text


# Evaluations and answers


def test_evaluations_in_a_run_and_beside_it_are_found(tmp_path: Path) -> None:
    run = read_run(write_run(tmp_path / "a"), name="a")
    inside = write_winrate(tmp_path / "a" / "held-out", runs=["a"])
    beside = write_winrate(tmp_path / "compared", runs=["runs/a", "runs/b"])
    write_winrate(tmp_path / "others", runs=["runs/c"])
    assert [*evaluations_near([run])] == [inside, beside]


def test_runs_bear_their_short_names_in_an_evaluation_too(tmp_path: Path) -> None:
    """Whole names alone: `x/ab` is not what `x/a` begins."""
    runs = [read_run(write_run(tmp_path / "x" / name), name=f"short {name}") for name in ("a", "ab")]
    write_winrate(tmp_path / "won", runs=["x/a", "x/ab"], who="x/a")
    told = json.loads((tmp_path / "won" / "winrate.json").read_text())
    told["comparisons"] += [{**told["comparisons"][0], "first": "x/ab, mixed", "second": "x/abc"}]
    (tmp_path / "won" / "winrate.json").write_text(json.dumps(told))
    (found,) = evaluations_in(tmp_path / "won", [])
    assert [row[0] for row in in_short(found, runs)] == ["short a against b", "short ab, mixed against x/abc"]
    assert [row[1:] for row in in_short(found, runs)] == [list(row[1:]) for row in found.rows]


def test_an_evaluations_figures(tmp_path: Path) -> None:
    faults: list[str] = []
    (found,) = evaluations_in(write_winrate(tmp_path, runs=["a"]), faults)
    assert faults == []
    name, rate, alone, counts, unjudged = found.rows[0]
    assert isinstance(rate, Estimate)
    assert (name, rate.interval, alone, counts, unjudged) == (
        "a against b",
        (0.625, 0.875),
        None,
        "5, 2, 1",
        "3",
    )
    assert found.picture is not None
    assert found.picture.startswith("data:image/svg+xml;base64,")


def test_what_is_known_of_a_kl_is_said_in_its_cell(tmp_path: Path) -> None:
    def point(run: str, reward: float, kl: float, **how: Any) -> Point:
        rows = {name: [[value], [value + 0.5]] for name, value in (("rewards", reward), ("lengths", 4.0))}
        return Point(run=run, step=None, kl=[[kl], [kl]], cut=0.0, compute={}, **rows, **how)

    points = [
        point("reference", 0.0, 0.0),
        point("a", 1.5, 2.0),
        point("best of 4", 2.0, 3.0, kl_is="upper bound"),
        point("a, reweighted", 3.0, 0.25, kl_is="rough estimate"),
    ]
    told = {**report_frontier(points).as_dict(), "reward": {"name": "length"}}
    (tmp_path / "frontier.json").write_text(json.dumps(told))
    (found,) = evaluations_in(tmp_path, [])
    assert [row[2] for row in found.rows[2:]] == ["at most 3", "roughly 0.25"]
    assert [row[-1] for row in found.rows] == [*["on the envelope"] * 3, "no envelope rests on it"]


@pytest.mark.parametrize("text", ["{", "[]", "{}", '{"comparisons": [{"first": "a"}]}', '{"comparisons": 3}'])
def test_a_damaged_evaluation_is_named(tmp_path: Path, text: str) -> None:
    (tmp_path / "winrate.json").write_text(text)
    faults: list[str] = []
    assert evaluations_in(tmp_path, faults) == []
    assert f"{tmp_path / 'winrate.json'} is not as `likelier evaluate` writes it" in faults[0]


def test_first_and_last_answers_stand_side_by_side(tmp_path: Path) -> None:
    def said(number: int, text: str) -> dict[str, object]:
        return {"step": number, "id": "1", "prompt": "Go on:", "completion": text, "finish": "length"}

    runs = [
        read_run(
            write_run(tmp_path / "a", samples=[said(0, "same"), said(2, "mid"), said(4, "A")]), name="a"
        ),
        read_run(write_run(tmp_path / "b", samples=[said(0, "same"), said(4, "B")]), name="b"),
    ]
    evaluations = evaluations_in(write_winrate(tmp_path / "w", runs=["runs/a"]), [])
    (asked,) = side_by_side(runs, evaluations, []).prompts
    assert [(one.who, one.place, one.text, one.last) for one in asked.answers] == [
        (("a", "b"), "step 0", "same", False),
        (("a",), "step 4", "A", True),
        (("b",), "step 4", "B", True),
        (("a",), "winrate", "Gladly.", True),
    ]


def test_prompts_for_which_there_is_no_room_are_counted(tmp_path: Path) -> None:
    lines = [{"step": 1, "prompt": f"prompt {n}", "completion": "x"} for n in range(70)]
    samples = side_by_side([read_run(write_run(tmp_path / "a", samples=lines), name="a")], [], [])
    assert (len(samples.prompts), samples.left_out) == (60, 10)


def test_an_evaluation_and_samples_of_one_step_are_two_lines(tmp_path: Path) -> None:
    lines = [step(1), evaluation(1), {"step": 1, "samples/length": 9.0}]
    run = read_run(write_run(tmp_path / "a", metrics=lines), name="a")
    assert (len(run.metrics), run.faults) == (3, ())
