import threading

import pytest

from sender.background import Background


def test_at_once_a_result_is_there_and_is_taken_once() -> None:
    jobs: Background[int] = Background()
    jobs.submit(lambda: 1)
    jobs.submit(lambda: 2)
    assert not jobs.idle
    assert [jobs.take(), jobs.take(), jobs.take()] == [1, 2, None]
    assert jobs.idle
    jobs.close()


def test_in_a_thread_the_owner_does_not_wait() -> None:
    jobs: Background[int] = Background(threaded=True)
    gate = threading.Event()
    jobs.submit(lambda: gate.wait(5) and threading.get_ident())
    assert jobs.take() is None and not jobs.idle
    gate.set()
    jobs._jobs[0].result(5)
    assert jobs.take() not in (None, threading.get_ident())
    assert jobs.idle
    jobs.close()


@pytest.mark.parametrize("threaded", [False, True])
def test_an_error_is_raised_where_the_result_is_taken(threaded: bool) -> None:
    jobs: Background[int] = Background(threaded=threaded)
    jobs.submit(lambda: 1 // 0)
    jobs.submit(lambda: 7)
    jobs._jobs[1].result(5)
    with pytest.raises(ZeroDivisionError):
        jobs.take()
    assert jobs.take() == 7
    jobs.close()


def test_closing_drops_what_waits() -> None:
    jobs: Background[int] = Background(threaded=True)
    gate, done = threading.Event(), []
    jobs.submit(lambda: gate.wait(5) and 1)
    jobs.submit(lambda: done.append(1) or 2)
    threading.Timer(0.05, gate.set).start()
    jobs.close()
    assert done == [] and jobs.idle
