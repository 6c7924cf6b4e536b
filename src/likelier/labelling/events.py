"""What happened, as it is kept: events are added and never changed; everything else follows from them."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, Literal

Kind = Literal["shown", "answer", "undo", "flag"]
Role = Literal["label", "repeat", "adjudication"]
Verdict = Literal["preference", "tie", "both_bad", "skip"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Event:
    """One thing that a person did, or was shown.

    `body` by kind:
    - `shown`: `item`, `role`, `order` (which answer stood where, from the left);
    - `answer`: `verdict`, `ranking` (indices of the item's answers, best group first; none for a skip),
      and what was given of `strength`, `reason`, `edit`, `seconds`;
    - `undo`: `event`, the number of the answer that is taken back;
    - `flag`: `reason`.
    """

    seq: int
    time: str
    kind: Kind
    annotator: str
    showing: str
    key: str | None = None
    """What the page calls its request by: sent twice, it happens once."""
    body: dict[str, Any] = field(default_factory=dict)

    def row(self) -> dict[str, Any]:
        """The event as a line of the events' file."""
        return {
            "seq": self.seq,
            "time": self.time,
            "kind": self.kind,
            "annotator": self.annotator,
            "showing": self.showing,
            **self.body,
        }

    def payload(self) -> str:
        """`body` as ASCII JSON."""
        return json.dumps(self.body)


def now() -> str:
    """The time in UTC to the millisecond, as events carry it."""
    return datetime.now(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
