"""How one end of a call ends: settled once, by any of its tasks and threads, and never in silence."""

import asyncio
import contextlib
import logging
import threading
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any

from avcall.errors import AvcallError

MAX_REASON_CHARACTERS = 200
STATUS_EVERY_S = 0.5

logger = logging.getLogger("avcall")


class Ending:
    """The end of the call as a future, and the tasks and threads that may bring it about.

    Made on the event loop; `post` and `thread` carry what happens in other threads over to it.
    """

    def __init__(self, side: str) -> None:
        """`side` is 'sender' or 'receiver', for messages."""
        self._side = side
        self._loop = asyncio.get_running_loop()
        self.reason: asyncio.Future[str] = self._loop.create_future()

    def end(self, reason: str) -> None:
        """The call is over, and well. The first end counts."""
        if not self.reason.done():
            self.reason.set_result(reason)

    def fail(self, error: Exception, part: str) -> None:
        """The call is over because of an error in `part` of this side.

        What is no AvcallError is a mistake of ours: it is logged whole and becomes one line.
        """
        if self.reason.done():
            return
        if not isinstance(error, AvcallError):
            logger.error("the %s of the %s failed", part, self._side, exc_info=error)
            what = " ".join(f"{type(error).__name__}: {error}".split())[:MAX_REASON_CHARACTERS]
            error = AvcallError(f"the {part} of the {self._side} failed ({what}); please report this")
        self.reason.set_exception(error)

    def post(self, work: Callable[..., object], *arguments: object) -> None:
        """Have the loop call `work`; for threads."""
        with contextlib.suppress(RuntimeError):  # the loop is gone: nobody is left to tell
            self._loop.call_soon_threadsafe(work, *arguments)

    def thread(self, part: str, work: Callable[[], None]) -> threading.Thread:
        """Run `work` in a thread whose error ends the call."""

        def guarded() -> None:
            try:
                work()
            except Exception as error:
                self.post(self.fail, error, part)

        thread = threading.Thread(target=guarded, name=part, daemon=True)
        thread.start()
        return thread

    def task(self, part: str, work: Callable[[], Coroutine[Any, Any, None]]) -> asyncio.Task[None]:
        """Run `work` in a task whose error ends the call."""

        async def guarded() -> None:
            try:
                await work()
            except Exception as error:
                self.fail(error, part)

        return asyncio.create_task(guarded(), name=part)


async def watched(work: Awaitable[str], show: Callable[[], None]) -> str:
    """Await a pipeline's `work` while `show` is called twice a second."""
    task = asyncio.ensure_future(work)
    try:
        while not task.done():
            await asyncio.wait({task}, timeout=STATUS_EVERY_S)
            show()
        return task.result()
    finally:
        if not task.done():
            task.cancel()
        with contextlib.suppress(asyncio.CancelledError, Exception):
            await task
