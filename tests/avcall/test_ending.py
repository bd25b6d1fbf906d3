import asyncio
import logging
import threading

import pytest

from avcall.ending import Ending
from avcall.errors import AvcallError, CameraError


async def test_the_first_end_counts() -> None:
    ending = Ending("sender")
    ending.end("the video ended")
    ending.end("the time is up")
    ending.fail(CameraError("gone"), "picture")
    assert await ending.reason == "the video ended"


async def test_an_error_of_a_thread_ends_the_call() -> None:
    ending, error = Ending("sender"), CameraError("camera 0 is gone")

    def work() -> None:
        raise error

    thread = ending.thread("picture", work)
    with pytest.raises(CameraError) as raised:
        await asyncio.wait_for(ending.reason, 5)
    assert raised.value is error
    thread.join()


async def test_an_error_of_a_task_ends_the_call() -> None:
    ending = Ending("receiver")

    async def work() -> None:
        raise CameraError("gone")

    task = ending.task("receiving", work)
    with pytest.raises(CameraError):
        await ending.reason
    await task


@pytest.mark.parametrize("error", [StopIteration(1), KeyError("x"), ValueError("one\ntwo " * 100)])
async def test_a_mistake_is_logged_whole_and_told_in_one_line(
    error: Exception, caplog: pytest.LogCaptureFixture
) -> None:
    ending = Ending("receiver")

    def work() -> None:
        raise error

    with caplog.at_level(logging.ERROR):
        ending.thread("picture", work).join()
        with pytest.raises(AvcallError) as raised:
            await asyncio.wait_for(ending.reason, 5)
    text = str(raised.value)
    assert text.startswith(f"the picture of the receiver failed ({type(error).__name__}: ")
    assert "\n" not in text and len(text) < 300
    assert caplog.records[0].exc_info is not None and caplog.records[0].exc_info[1] is error


async def test_a_cancelled_task_is_no_error() -> None:
    ending = Ending("sender")
    task = ending.task("sending", lambda: asyncio.sleep(60))
    await asyncio.sleep(0)
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    assert not ending.reason.done()
    ending.end("done")
    await ending.reason


def test_a_thread_that_outlives_the_loop_is_quiet() -> None:
    async def begin() -> Ending:
        return Ending("sender")

    ending = asyncio.run(begin())
    failures: list[BaseException] = []

    def late() -> None:
        try:
            ending.post(print, "never")
        except BaseException as error:
            failures.append(error)

    thread = threading.Thread(target=late)
    thread.start()
    thread.join()
    assert failures == []
