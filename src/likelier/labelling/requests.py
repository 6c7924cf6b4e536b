"""What the page may send: small JSON bodies, each with a known form."""

from __future__ import annotations

from typing import Annotated, TypeVar

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError
from starlette.requests import Request

from likelier.labelling.events import Verdict
from likelier.labelling.items import MAX_RANKED
from likelier.labelling.turns import RefusalError

MAX_BODY = 1_000_000
"""Bytes."""


def _without_nul(text: str) -> str:
    if "\0" in text:
        raise ValueError("holds a NUL byte")
    return text


Name = Annotated[str, Field(max_length=200)]
Identifier = Annotated[str, Field(pattern=r"^[A-Za-z0-9_-]{1,64}$")]
Note = Annotated[str, Field(max_length=4_000), AfterValidator(_without_nul)]
Text = Annotated[str, Field(max_length=200_000), AfterValidator(_without_nul)]
Count = Annotated[int, Field(ge=0, lt=2**53)]


class Body(BaseModel):
    """A request: exact types, no other keys."""

    model_config = ConfigDict(extra="forbid", strict=True)


class NextBody(Body):
    """The next item, or one to decide."""

    annotator: Name
    tab: Identifier
    item: Identifier | None = None


class AnswerBody(Body):
    """An answer to what is shown."""

    annotator: Name
    tab: Identifier
    key: Identifier
    showing: Identifier
    version: Count
    verdict: Verdict
    ranking: Annotated[
        list[Annotated[list[Annotated[int, Field(ge=0, lt=MAX_RANKED)]], Field(max_length=MAX_RANKED)]],
        Field(max_length=MAX_RANKED),
    ]
    strength: Annotated[int, Field(ge=1, le=3)] | None = None
    reason: Note = ""
    edit: Text = ""


class UndoBody(Body):
    """An answer to be taken back."""

    annotator: Name
    tab: Identifier
    key: Identifier
    event: Count


class FlagBody(Body):
    """A note that something is wrong."""

    annotator: Name
    key: Identifier
    showing: Identifier
    reason: Note


class LeaveBody(Body):
    """A page goes away."""

    tab: Identifier
    showing: Identifier


class EmptyBody(Body):
    """Nothing."""


B = TypeVar("B", bound=Body)


async def body_of(request: Request, form: type[B]) -> B:
    """The request's body, read no further than it may be long.

    Raises:
        RefusalError: not JSON, too long, or not of this form.
    """
    if request.headers.get("content-type", "").split(";")[0].strip().lower() != "application/json":
        raise RefusalError(415, "Send JSON.")
    declared = request.headers.get("content-length", "0")
    if not declared.isascii() or not declared.isdigit() or int(declared) > MAX_BODY:
        raise RefusalError(413, f"At most {MAX_BODY:,} bytes.")
    body = bytearray()
    async for chunk in request.stream():
        body += chunk
        if len(body) > MAX_BODY:
            raise RefusalError(413, f"At most {MAX_BODY:,} bytes.")
    try:
        return form.model_validate_json(bytes(body))
    except ValidationError as error:
        raise RefusalError(400, _in_words(error)) from None


def _in_words(error: ValidationError) -> str:
    fault = error.errors(include_url=False, include_input=False)[0]
    where = ".".join(str(part)[:40] for part in fault["loc"])
    return f"{where or 'body'}: {fault['msg']}"
