"""Requests to a server under way, many at once, on an event loop of their own thread."""

from __future__ import annotations

import asyncio
import contextlib
import queue
import threading
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, Any

from likelier.engines.protocol import Failure, Reply, Request

if TYPE_CHECKING:
    from likelier.engines.server import Server

Numbered = tuple[int, Reply | Failure]
"""A request's place among all, and what came of it."""


class Asking:
    """The requests of one call; the thread is their own, since notebooks have a loop running in theirs."""

    def __init__(self, server: Server, requests: Iterable[Request]) -> None:
        self._server = server
        self._requests = iter(enumerate(requests))
        self._finished: queue.SimpleQueue[Numbered | BaseException | None] = queue.SimpleQueue()
        self._loop = asyncio.new_event_loop()
        self._task: asyncio.Task[None] | None = None
        self._thread = threading.Thread(target=self._main, name="likelier-server", daemon=True)

    def results(self) -> Iterator[Numbered]:
        """What is finished, until all is; an error of any request is raised here."""
        self._thread.start()
        while (item := self._finished.get()) is not None:
            if isinstance(item, BaseException):
                raise item
            yield item

    def stop(self) -> None:
        """Drops what is under way and waits a moment for the thread."""
        if not self._thread.is_alive():
            return
        with contextlib.suppress(RuntimeError):  # the loop has just been closed
            self._loop.call_soon_threadsafe(lambda: self._task is not None and self._task.cancel())
        self._thread.join(timeout=5)

    def _main(self) -> None:
        try:
            with asyncio.Runner(loop_factory=lambda: self._loop) as runner:
                runner.run(self._all())
        except BaseExceptionGroup as group:
            self._finished.put(_first(group))
        except asyncio.CancelledError:
            pass
        except BaseException as error:
            self._finished.put(error)
        finally:
            self._finished.put(None)

    async def _all(self) -> None:
        self._task = asyncio.current_task()
        async with self._server.client() as client, asyncio.TaskGroup() as group:
            for _ in range(self._server.concurrency):
                group.create_task(self._work(client))

    async def _work(self, client: Any) -> None:
        for index, request in self._requests:
            self._finished.put((index, await self._server.answer(client, request)))


def _first(error: BaseException) -> BaseException:
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    return error
