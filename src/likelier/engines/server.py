"""Answers from an OpenAI-compatible server (vLLM, SGLang, llama.cpp, `transformers serve`, OpenAI), many at once.

    server = Server("http://127.0.0.1:8000/v1", "my/model")
    for index, reply in server.map(Request(prompt=text, max_tokens=64) for text in texts): ...

A server may be slow, busy, or broken for a while: what fails is tried again with growing pauses, a bounded number of
times, and then given up as a `Failure`, one request at a time. Only what no retry can mend (a wrong key, an unknown
model) stops the work.
"""

from __future__ import annotations

import asyncio
import random
from collections import Counter
from collections.abc import Iterable, Iterator
from typing import Any, Self

from likelier.engines.asking import Asking, Numbered
from likelier.engines.protocol import (
    FORM_NAMES,
    FULL,
    ONE_AT_A_TIME,
    Failure,
    Reply,
    Request,
    Unusable,
    read_reply,
)
from likelier.engines.server_settings import ServerSettings, checked_address, key_in
from likelier.engines.troubles import Refused, Trouble, of_connection, of_status, said

LONGEST_PAUSE = 60.0
"""Seconds; a longer Retry-After is not waited for in full."""
CONNECT = 20.0
"""Seconds to reach the server at all."""
GIVE_UP = 3
"""Times `concurrency`: so many failed requests in a row, and the rest is not asked."""


class Server:
    """A model behind an address.

    Args:
        base_url: with its version, as `http://127.0.0.1:8000/v1`; no key in it.
        model: its name there.
        api_key_variable: the environment variable that holds the key; without one, none is sent.
        concurrency: requests under way at once.
        retries: times a failed request is sent again before it is given up.
        timeout: seconds for one whole answer.
        backoff: seconds before the first repetition; doubled for each further one, with jitter.

    Raises:
        UsageError: an address that is none, or a variable that is not set.

    >>> Server("127.0.0.1:8000", "m")
    Traceback (most recent call last):
    likelier.errors.UsageError: --base-url 127.0.0.1:8000 is no address: it begins with http:// or https://
    """

    def __init__(
        self,
        base_url: str,
        model: str,
        *,
        api_key_variable: str | None = None,
        concurrency: int = 8,
        retries: int = 5,
        timeout: float = 600.0,
        backoff: float = 0.5,
    ) -> None:
        self.base_url = checked_address(base_url)
        self.model = model
        self.concurrency = concurrency
        self.retries = retries
        self.timeout = timeout
        self.backoff = backoff
        self.troubles: Counter[str] = Counter()
        """Failed attempts by reason, those that were mended by another included."""
        self._key_variable = api_key_variable
        self._key = key_in(api_key_variable)
        self._form = FULL
        self._short = 0
        self._failed_in_a_row = 0

    @classmethod
    def of(cls, settings: ServerSettings, model: str) -> Self:
        """The server that a stage's settings name."""
        assert settings.base_url is not None  # a stage asks for it where it needs one
        return cls(
            settings.base_url,
            model,
            api_key_variable=settings.api_key_variable,
            concurrency=settings.concurrency,
            retries=settings.retries,
            timeout=settings.timeout,
        )

    @property
    def notes(self) -> list[str]:
        """What a person should know of the answers so far, a line each."""
        notes = []
        if self.troubles:
            counts = ", ".join(f"{reason}: {count}" for reason, count in self.troubles.most_common())
            notes.append(f"the server failed {self.troubles.total()} times ({counts}); each was tried again")
        if self._form in FORM_NAMES:
            notes.append(f"the server refuses {FORM_NAMES[self._form]}: asked without")
        if self._short and self._form != ONE_AT_A_TIME:
            notes.append(
                f"the server gave fewer answers than asked for {self._short} times; the rest was asked anew"
            )
        return notes

    def map(self, requests: Iterable[Request]) -> Iterator[Numbered]:
        """`(index, reply or failure)` of each request, as they are finished.

        Stop reading, and what is under way is dropped.

        Raises:
            UsageError: the server knows neither the key nor the model nor the address (401, 403, 404).
        """
        run = Asking(self, requests)
        try:
            yield from run.results()
        finally:
            run.stop()

    def client(self) -> Any:
        """A connection of openai's client, which retries nothing by itself."""
        from openai import AsyncOpenAI, Timeout

        return AsyncOpenAI(
            base_url=self.base_url,
            api_key=self._key or "none",
            max_retries=0,
            timeout=Timeout(self.timeout, connect=min(CONNECT, self.timeout)),
        )

    async def answer(self, client: Any, request: Request) -> Reply | Failure:
        """Asks until all `n` answers are there, or the attempts are used up."""
        if self._failed_in_a_row >= GIVE_UP * self.concurrency:
            detail = f"not asked: the {self._failed_in_a_row} requests before it failed"
            return Failure(reason="not asked", detail=detail, attempts=0)
        had = Reply(choices=[])
        attempts = failed = 0
        while len(had.choices) < request.n:
            attempts += 1
            try:
                had = _joined(had, await self._once(client, request, len(had.choices)), request.n)
                self._short += len(had.choices) < request.n
                failed = 0  # what was had is kept: only the rest is asked for, from the first attempt on
            except Refused as refusal:
                return Failure(
                    reason=refusal.reason, detail=str(refusal), attempts=attempts, choices=had.choices
                )
            except Trouble as trouble:
                failed += 1
                self.troubles[trouble.reason] += 1
                if failed > self.retries:
                    self._failed_in_a_row += 1
                    return Failure(
                        reason=trouble.reason, detail=str(trouble), attempts=attempts, choices=had.choices
                    )
                await asyncio.sleep(self._pause(failed, trouble.retry_after))
        self._failed_in_a_row = 0
        return had

    async def _once(self, client: Any, request: Request, had: int) -> Reply:
        """One answer of the server, in the fullest form that it takes."""
        form = self._form
        while True:
            try:
                text = await self._post(client, request, request.body(self.model, had=had, form=form))
            except Refused as refusal:
                plainer = request.plainer(form) if refusal.plainer_may_help else None
                if plainer is None:
                    raise
                form = plainer
                continue
            # Remembered only when the plainer form was taken: else the request itself was at fault.
            self._form = max(self._form, form)
            try:
                return read_reply(text, chat=request.chat)
            except Unusable as error:
                raise Trouble(error.reason, self._redacted(str(error))) from None

    async def _post(self, client: Any, request: Request, body: dict[str, Any]) -> str:
        """The text of a successful answer; else `Trouble`, `Refused` or, for good, `UsageError`."""
        import openai

        resource = (client.chat.completions if request.chat else client.completions).with_raw_response
        named = {key: body.pop(key) for key in ("model", "messages", "prompt") if key in body}
        try:
            async with asyncio.timeout(self.timeout):
                response = await resource.create(**named, extra_body=body)
                return str(response.text)
        except TimeoutError:
            raise Trouble("timeout", f"no whole answer within {self.timeout:g} s") from None
        except openai.APIStatusError as error:
            raise of_status(error, self._redacted(said(error)), self._where, self._key_variable) from None
        except (openai.OpenAIError, UnicodeDecodeError, LookupError) as error:
            raise of_connection(error, self._redacted(str(error.__cause__ or error))) from None

    @property
    def _where(self) -> str:
        return f"`{self.model}` at {self.base_url}"

    def _pause(self, failed: int, retry_after: float | None) -> float:
        """Seconds before the next attempt: doubled each time, jittered, and no less than the server asks for."""
        growing = min(self.backoff * 2.0 ** (failed - 1), LONGEST_PAUSE)
        return min(retry_after or 0.0, LONGEST_PAUSE) + growing * random.uniform(0.5, 1.0)

    def _redacted(self, text: str) -> str:
        """One short line without the key: servers quote it."""
        line = " ".join(text.split())
        return (line.replace(self._key, "…") if self._key else line)[:300]


def _joined(had: Reply, more: Reply, n: int) -> Reply:
    return Reply(
        choices=[*had.choices, *more.choices][:n],
        prompt_tokens=had.prompt_tokens + more.prompt_tokens,
        completion_tokens=had.completion_tokens + more.completion_tokens,
    )
