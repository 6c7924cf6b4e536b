"""The pages as HTML: templates with everything escaped but what `rendering.py` made."""

from __future__ import annotations

from functools import cache
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup
from starlette.responses import HTMLResponse

from likelier.labelling.assignment import Plan
from likelier.labelling.export import Exported
from likelier.labelling.items import MAX_RANKED
from likelier.labelling.rendering import as_markdown
from likelier.labelling.results import results
from likelier.labelling.state import State
from likelier.stats import Estimate

MAX_CONTESTED = 200


def label_page(plan: Plan, *, guidelines: str) -> HTMLResponse:
    """The page on which people label."""
    told = Markup(as_markdown(guidelines)) if guidelines else None
    return _page("label.html", plan=plan, guidelines=told, max_ranked=MAX_RANKED)


def results_page(state: State, exported: Exported) -> HTMLResponse:
    """The page with the figures."""
    return _page("results.html", results=results(state), exported=exported, max_contested=MAX_CONTESTED)


def entered_page() -> HTMLResponse:
    """Leads on from the link to the page, so that the address with the token is not kept."""
    return _page("entered.html")


def message_page(message: str, *, status: int) -> HTMLResponse:
    """A sentence in place of a page."""
    return _page("message.html", status=status, code=status, message=message)


def percent(estimate: Estimate | None) -> str:
    """A share in per cent with its interval.

    >>> percent(Estimate(value=0.5, low=0.2, high=0.8, n=9, clusters=9))
    '50 % [20, 80]'
    >>> percent(Estimate(value=1.0, n=1, clusters=1)), percent(None)
    ('100 % (n = 1)', '–')
    """
    if estimate is None:
        return "–"
    if estimate.interval is None:
        return f"{100 * estimate.value:.0f} % (n = {estimate.n})"
    low, high = estimate.interval
    return f"{100 * estimate.value:.0f} % [{100 * low:.0f}, {100 * high:.0f}]"


def coefficient(estimate: Estimate | None) -> str:
    """A coefficient with its interval.

    >>> coefficient(Estimate(value=0.5, low=-0.25, high=0.8, n=9, clusters=9))
    '0.50 [−0.25, 0.80]'
    """
    if estimate is None:
        return "–"
    if estimate.interval is None:
        return _signed(estimate.value)
    low, high = estimate.interval
    return f"{_signed(estimate.value)} [{_signed(low)}, {_signed(high)}]"


def _signed(value: float) -> str:
    return f"{value:.2f}".replace("-", "−")


def duration(seconds: float | None) -> str:
    """Seconds as people say them.

    >>> duration(8.25), duration(75), duration(None)
    ('8.2 s', '1 min 15 s', '–')
    """
    if seconds is None:
        return "–"
    if seconds < 60:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes} min {rest} s"


@cache
def _environment() -> Environment:
    environment = Environment(
        loader=PackageLoader("likelier.labelling", "templates"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters.update(percent=percent, coefficient=coefficient, duration=duration)
    return environment


def _page(name: str, *, status: int = 200, **values: Any) -> HTMLResponse:
    return HTMLResponse(_environment().get_template(name).render(**values), status)
