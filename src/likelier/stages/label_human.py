"""Preferences by people: a page on this machine, a store of what they said, and the files that follow from it.

    likelier label samples.jsonl --with human --out preferences.jsonl

Beside `preferences.jsonl` lie `preferences.labels.sqlite` (the labels; a killed server goes on from it),
`preferences.events.jsonl` (what happened, as it happened) and `preferences.sft.jsonl` (better answers that people
wrote). All but the labels are written when the server stops, or from its results page, or with `--export-only`.
"""

from __future__ import annotations

import sys
import threading
import webbrowser
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

from likelier.data.output import JsonLines
from likelier.data.reading import load_records
from likelier.errors import DataError, UsageError
from likelier.labelling.assignment import Plan
from likelier.labelling.desk import Desk
from likelier.labelling.export import Exported, export
from likelier.labelling.items import build_items
from likelier.labelling.state import State
from likelier.labelling.store import Store
from likelier.labelling.turns import MAX_NAME, clean_name
from likelier.manifest import write_manifest
from likelier.stages.label_config import LabelConfig

LEFT_OUT = "left out"
"""Where the store keeps which rows make no item."""


@dataclass(frozen=True, slots=True)
class Files:
    """What lies where."""

    preferences: Path
    store: Path
    events: Path
    better_answers: Path

    @classmethod
    def beside(cls, out: Path) -> Files:
        """The files of a labelling, named by its output.

        >>> Files.beside(Path("a/prefs.jsonl")).events.name
        'prefs.events.jsonl'
        """
        return cls(
            out,
            out.with_name(f"{out.stem}.labels.sqlite"),
            out.with_name(f"{out.stem}.events.jsonl"),
            out.with_name(f"{out.stem}.sft.jsonl"),
        )


def label_human(config: LabelConfig) -> int:
    """Serves the page until it is stopped, then writes the files; with `--export-only` only writes them.

    Raises:
        UsageError: settings that cannot be used, or a file in the place of the output that is not ours.
        DataError: rows that make no item, or a store that cannot be used.
        WorkError: a disk that takes no more.
    """
    assert config.out is not None  # the configuration refuses
    files = Files.beside(config.out)
    _check_places(config, files)
    guidelines = _guidelines(config.guidelines)
    store = Store(files.store)
    try:
        if not config.export_only:
            _set_items(config, store)
        desk = _desk(config, store)
        if not config.export_only:
            _serve(config, files, desk, guidelines)
        _say(_write(config, files, desk))
    finally:
        store.close()
    return 0


def _check_places(config: LabelConfig, files: Files) -> None:
    out, store = files.preferences, files.store
    if config.export_only and not store.exists():
        raise UsageError(f"--export-only: there is no {store}; nothing has been labelled into {out} yet")
    if out.exists() and not store.exists():
        raise UsageError(f"{out} exists and was not made by labelling: choose another --out, or move it away")
    out.parent.mkdir(parents=True, exist_ok=True)


def _guidelines(path: Path | None) -> str:
    if path is None:
        return ""
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or "it is not UTF-8"
        raise UsageError(f"--guidelines {path} cannot be read: {reason}") from None


def _set_items(config: LabelConfig, store: Store) -> None:
    records, faults = load_records(config.samples, skip_bad_rows=True)
    for fault in faults[:3]:
        _say(str(fault))
    built = build_items(
        [*records, *faults], rank=config.rank, pairs_per_prompt=config.pairs_per_prompt, seed=config.seed
    )
    if not built.items:
        raise DataError(f"{config.samples}: nothing to choose between ({_counted(built.left_out)})")
    if built.left_out:
        _say(f"rows of {config.samples} that nobody is asked about: {_counted(built.left_out)}")
    store.set_items(built.items)
    store.set_about(LEFT_OUT, built.left_out)


def _desk(config: LabelConfig, store: Store) -> Desk:
    plan = Plan(
        overlap=config.overlap,
        repeat_share=config.repeat_share,
        seed=config.seed,
        strength=config.strength,
        annotators=tuple(map(_annotator, config.annotators)),
    )
    return Desk(store, State(store.items(), overlap=config.overlap, events=store.events()), plan)


def _annotator(given: str) -> str:
    cleaned = clean_name(given)
    if cleaned is None:
        raise UsageError(f"--annotators {given!r}: a name has 1 to {MAX_NAME} printable characters")
    return cleaned


def _serve(config: LabelConfig, files: Files, desk: Desk, guidelines: str) -> None:
    # Only here: the other labellers need no web server.
    from likelier.labelling.safety import Sessions, require_loopback
    from likelier.labelling.server import Page, bind, build_app, serve

    listening = bind(require_loopback(config.host), config.port)
    port = listening.getsockname()[1]
    shown = f"[{config.host}]" if ":" in config.host else config.host
    links: list[str] = []

    def on_link(token: str) -> None:
        links.append(f"http://{shown}:{port}/enter?token={token}")
        if len(links) > 1:
            _say(f"for one more browser: {links[-1]}")

    sessions = Sessions(desk.store, on_link=on_link)
    page = Page(
        guidelines=guidelines,
        exported=lambda: _exported(config, desk),
        write=lambda: _write(config, files, desk),
        say=_say,
    )
    app = build_app(desk, page, sessions=sessions, port=port)
    state = desk.state
    _say(f"{len(state.items)} items, {len(state.wanting)} of them still want labels; open {links[0]}")
    _say(f"Ctrl-C stops and writes {files.preferences}; each label is kept at once in {files.store}")
    if config.browser:
        threading.Thread(target=webbrowser.open, args=(links[0],), daemon=True).start()
    with listening:
        serve(app, listening)


def _exported(config: LabelConfig, desk: Desk) -> Exported:
    with desk.lock:
        return export(desk.state, ties=config.ties, disagreements=config.disagreements)


def _write(config: LabelConfig, files: Files, desk: Desk) -> str:
    """Writes the files, the manifest last; gives the line that says what is in them."""
    with desk.lock:
        exported = _exported(config, desk)
        events = [event.row() for event in desk.state.events]
    _write_rows(files.events, events)
    if exported.better_answers or files.better_answers.exists():
        _write_rows(files.better_answers, exported.better_answers)
    _write_rows(files.preferences, exported.preferences)
    write_manifest(
        files.preferences,
        stage="label",
        config=config.model_dump(),
        inputs={"samples": config.samples},
        labels="by people; rows that differ are treated as `disagreements` and `ties` of the configuration say",
        rows=len(exported.preferences),
        better_answers=len(exported.better_answers),
        events=len(events),
        left_out=dict(exported.left_out),
        no_items=desk.store.about(LEFT_OUT),
        with_fewer_labels=exported.incomplete,
    )
    return _summary(exported, files, len(events))


def _write_rows(path: Path, rows: list[dict[str, object]]) -> None:
    with JsonLines(path) as file:
        for row in rows:
            file.write(row)


def _summary(exported: Exported, files: Files, events: int) -> str:
    told = f"{len(exported.preferences)} preferences in {files.preferences}"
    if exported.incomplete:
        told += f" ({exported.incomplete} with fewer labels than --overlap)"
    if exported.left_out:
        told += f"; left out: {_counted(exported.left_out)}"
    if exported.better_answers:
        told += f"; {len(exported.better_answers)} better answers in {files.better_answers}"
    return f"{told}; {events} events in {files.events}"


def _counted(reasons: Counter[str]) -> str:
    return ", ".join(f"{reason}: {count}" for reason, count in reasons.most_common())


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)
