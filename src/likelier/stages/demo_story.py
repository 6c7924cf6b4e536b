"""What the demo says in the terminal while it runs: the method, with this run's own numbers."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from statistics import fmean
from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.padding import Padding
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table

from likelier.engines.sampling import SampledPrompt
from likelier.report.comparison import Change, Comparison
from likelier.report.dial import Dial
from likelier.report.page import Example, interval, interval_percent, number, percent, plural, signed
from likelier.report.rounds import Labelling, Round
from likelier.stages.demo_prompts import last_turn
from likelier.stages.label_outcome import Labelled


class Story:
    """Tells the demo to a console; bars only where it is a terminal."""

    def __init__(self, console: Console | None = None) -> None:
        self.console = console or Console(stderr=True, highlight=False)
        self.seconds: dict[str, float] = {}
        self._begun = time.perf_counter()

    @property
    def total_seconds(self) -> float:
        """Since the beginning."""
        return time.perf_counter() - self._begun

    def say(self, text: str) -> None:
        """A paragraph of rich markup."""
        self.console.print(Padding(text, (0, 0, 0, 2), expand=False))

    def _columns(self, rows: Sequence[tuple[str, ...]]) -> None:
        """Rows whose last column wraps within itself."""
        table = Table.grid(padding=(0, 2, 0, 0))
        for _ in rows[0]:
            table.add_column(justify="right" if len(rows[0]) == 3 and len(table.columns) == 1 else "left")
        for row in rows:
            table.add_row(*row)
        self.console.print(Padding(table, (0, 0, 0, 4), expand=False))

    @contextmanager
    def step(self, title: str, *, total: int | None = None) -> Iterator[Callable[[int], None]]:
        """A step with its title and, on a terminal, a bar; yields what advances it."""
        self.console.print(f"\n[bold]{title}[/bold]")
        begun = time.perf_counter()
        columns = (BarColumn(), MofNCompleteColumn(), TextColumn("left:"), TimeRemainingColumn())
        with Progress(
            *columns,
            console=self.console,
            transient=True,
            disable=total is None or not self.console.is_terminal,
        ) as progress:
            task = progress.add_task(title, total=total)
            yield lambda count: progress.advance(task, count)
        self.seconds[title] = time.perf_counter() - begun
        self.say(f"[dim]{self.seconds[title]:.1f} s[/dim]")

    def opening(self, *, model: str, reward: str) -> None:
        """What will happen."""
        self.console.print("[bold]likelier demo[/bold]: makes the answers people prefer likelier")
        self.say(f"model {escape(model)}, reward {escape(reward)}")

    def expects(self, minutes: float) -> None:
        """How long it will take."""
        time = f"{minutes:.0f} minutes" if minutes >= 1.5 else f"{max(10, round(6 * minutes) * 10)} seconds"
        self.say(f"This takes about [bold]{time}[/bold] here and uses no network.")

    def sampled(self, prompts: list[SampledPrompt]) -> None:
        """One prompt with what was drawn for it."""
        first, count = prompts[0], sum(len(prompt.completions) for prompt in prompts)
        self.say(f"{count} answers. To “{_line(last_turn(first.prompt))}” it said:")
        self._columns([("[dim]·[/dim]", _line(answer.text)) for answer in first.completions])

    def labelled(self, labelled: Labelled, example: Example) -> None:
        """The preference data, and the pair that carries the story."""
        left_out = [
            f"{plural(labelled.undecided, 'prompt')} whose answers all scored alike",
            f"{plural(labelled.skipped, 'prompt')} with an empty answer",
        ]
        counts = (labelled.undecided, labelled.skipped)
        without = " and ".join(text for text, count in zip(left_out, counts, strict=True) if count)
        self.say(
            f"{plural(labelled.pairs, 'pair')} on {plural(labelled.prompts, 'prompt')}"
            + (f"; left out: {without}" if without else "")
            + ". One of them, y_w ≻ y_l (y_w is preferred):"
        )
        self._columns(
            [
                ("[dim]x[/dim]", "", _line(example.prompt)),
                ("[blue]y_w[/blue]", number(example.chosen_score), _line(example.chosen)),
                ("[yellow]y_l[/yellow]", number(example.rejected_score), _line(example.rejected)),
            ]
        )

    def before_training(self, example: Example) -> None:
        """Where training starts: u = 0."""
        chosen, rejected = example.reference_logps
        self.say(
            f"log π_ref(y_w) = {number(chosen)}, log π_ref(y_l) = {number(rejected)}. The policy π_θ starts "
            "as π_ref: the margin u is 0, every pair pulls with σ(−u) = ½, the loss is log 2 = 0.693."
        )

    def trained(self, metrics: list[dict[str, Any]], example: Example) -> None:
        """Where it ended, for all pairs and for the one."""
        last = metrics[-max(1, len(metrics) // 4) :]
        loss, accuracy = (fmean(line[key] for line in last) for key in ("loss", "rewards/accuracies"))
        self.say(
            f"{plural(len(metrics), 'step')}: loss {number(metrics[0]['loss'], 3)} at the first, "
            f"{number(loss, 3)} over the last quarter, whose pairs were ranked rightly in {percent(accuracy)} "
            "of cases before they were trained on."
        )
        self.say(
            f"Our pair, β = {example.beta}: log-ratios {signed(example.log_ratios[0])} and "
            f"{signed(example.log_ratios[1])}, so u = β × difference = {signed(example.margin, 3)}; "
            f"it now pulls with σ(−u) = {number(example.weight, 3)}."
        )

    def noticed(self, notes: Sequence[str]) -> None:
        """What training said in words: rows that it left out or saw, early signs of trouble."""
        if notes:
            self.say("Training noticed:")
            self._columns([("[dim]·[/dim]", _line(note)) for note in notes])

    def measured(self, comparison: Comparison) -> None:
        """The result, with intervals."""
        table = Table(box=None, pad_edge=False)
        for name in ("", "before", "after", "change", "95 % interval"):
            table.add_column(name, justify="left" if not name else "right")
        reward, length = comparison.reward, comparison.length
        for change, digits in (
            (reward, 3),
            (length, 1),
            (comparison.repetition, 3),
            (comparison.stop_rate, 3),
        ):
            table.add_row(*_row(change, digits))
        self.console.print(Padding(table, (0, 0, 0, 2), expand=False))
        self.say(
            f"win rate {percent(comparison.win_rate.value)} {interval_percent(comparison.win_rate)}, "
            f"KL(π_θ ‖ π_ref) {number(comparison.kl.value)} {interval(comparison.kl)} nats per answer"
        )
        if length.change.excludes(0.0) and length.change.value > 0 and comparison.verdict == "gain":
            self.say("The answers became longer: part of the gain may be length.")
        verdicts = {
            "gain": "[bold green]The gain is significant.[/bold green]",
            "loss": "[bold red]The answers became significantly worse.[/bold red]",
            "none": "[bold yellow]No significant change in this run: {why}.[/bold yellow]",
        }
        why = "the interval holds 0" if reward.change.interval else "one prompt allows no interval"
        self.say(verdicts[comparison.verdict].format(why=why))

    def dialled(self, dial: Dial) -> None:
        """Reward and KL at every strength, in a line."""
        shown = " · ".join(
            f"{one.strength:g}: {number(one.point.reward.value)} at {number(one.point.distance.value, 1)}"
            for one in dial.settings
        )
        self.say(
            f"Next tokens of π_ref and π_θ mixed at strength λ, {plural(len(dial.prompts), 'prompt')}; "
            f"λ: mean reward at KL: {shown}"
        )

    def command(self, command: str) -> None:
        """A stage's command, before it runs."""
        self.console.print(f"  [dim]$ {escape(command)}[/dim]", soft_wrap=True)

    def labellings(self, labellings: Sequence[Labelling]) -> None:
        """Who else labelled, and what came of it."""
        self._columns([(f"[bold]{one.who}[/bold]", "", escape(one.result)) for one in labellings])

    def rounds(self, rounds: Sequence[Round], learned: Sequence[Sequence[float]]) -> None:
        """The result of every round, against the start."""
        table = Table(box=None, pad_edge=False)
        for name in ("round", "pairs", "mean reward", "gain over the start", "KL", "length", "reward model"):
            table.add_column(name, justify="right")
        for one, values in zip(rounds, learned, strict=True):
            table.add_row(*_round_row(one), number(fmean(values)))
        self.console.print(Padding(table, (1, 0, 0, 2), expand=False))

    def ends(self, page: str) -> None:
        """Where the page is."""
        self.console.print(f"\n[bold]The page[/bold]  {escape(page)}", soft_wrap=True)
        self.say(f"[dim]{self.total_seconds / 60:.1f} minutes in all[/dim]")

    def closing(self, page: str, commands: list[tuple[str, str]]) -> None:
        """Where the page is, and what to do next."""
        self.ends(page)
        self.console.print("\n[bold]Next[/bold]")
        for what, command in commands:
            self.say(f"[dim]# {escape(what)}[/dim]")
            self.console.print(f"  {escape(command)}", soft_wrap=True)


def _row(change: Change, digits: int) -> list[str]:
    before, after = number(change.before.value, digits), number(change.after.value, digits)
    return [change.name, before, after, signed(change.change.value, digits), interval(change.change, digits)]


def _round_row(one: Round) -> list[str]:
    compared = one.comparison
    if compared is None:
        return ["before", "", number(one.reward.value), "", "0", ""]
    gain, length = compared.reward.change, compared.length
    return [
        str(one.number),
        f"{one.pairs:,}",
        number(one.reward.value),
        f"{signed(gain.value)} {interval(gain)}",
        number(compared.kl.value, 1),
        f"{number(length.before.value, 1)} → {number(length.after.value, 1)}",
    ]


def _line(text: str) -> str:
    """Text of a prompt or model on one line: brackets are no markup, control characters no commands."""
    shown = " ".join("".join(letter if letter.isprintable() else " " for letter in text).split())
    return escape(shown)
