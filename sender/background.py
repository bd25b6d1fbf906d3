"""Background: jobs that are too slow for the picture's thread run beside it, one after the other."""

from collections import deque
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Generic, TypeVar

T = TypeVar("T")


class Background(Generic[T]):
    """Runs jobs in a thread of its own, or at once when it is not `threaded`, as tests and the benchmark do.

    All methods belong to one thread, the owner's.
    """

    def __init__(self, *, threaded: bool = False) -> None:
        self._executor = ThreadPoolExecutor(1, "background") if threaded else None
        self._jobs: deque[Future[T]] = deque()

    @property
    def idle(self) -> bool:
        """Whether nothing runs, waits, or is still to be taken."""
        return not self._jobs

    def submit(self, job: Callable[[], T]) -> None:
        """Run a job when those before it are done."""
        if self._executor is not None:
            self._jobs.append(self._executor.submit(job))
            return
        done: Future[T] = Future()
        try:
            done.set_result(job())
        except Exception as error:  # raised by `take`, as for a job in a thread
            done.set_exception(error)
        self._jobs.append(done)

    def take(self) -> T | None:
        """The result of the oldest job, once; None while it runs. Raises what the job raised."""
        if not self._jobs or not self._jobs[0].done():
            return None
        return self._jobs.popleft().result()

    def close(self) -> None:
        """Forget the jobs that wait; returns when the running one is done."""
        self._jobs.clear()
        if self._executor is not None:
            self._executor.shutdown(cancel_futures=True)
