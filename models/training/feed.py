"""Batches made ahead by a thread, each with the random state that follows it: a run then resumes exactly."""

import json
import queue
import threading
from dataclasses import dataclass
from types import TracebackType
from typing import Self

from models.training.data import Batch, PairSampler

PREFETCHED_BATCHES = 4
POLL_S = 0.5  # how often the thread looks whether it should end


@dataclass(frozen=True, slots=True)
class Fed:
    """A batch, and the sampler's state (JSON) from which the next one follows."""

    batch: Batch
    state_after: str


class Feed:
    """Batches of `count` pairs from one background thread, so that decoding overlaps with the step.

    `state` is where the sampler starts, or None for where it stands.
    """

    def __init__(self, sampler: PairSampler, count: int, state: str | None = None) -> None:
        if state is not None:
            sampler.rng.bit_generator.state = json.loads(state)
        self._sampler, self._count = sampler, count
        self._ready: queue.Queue[Fed | Exception] = queue.Queue(PREFETCHED_BATCHES)
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._work, name="feed", daemon=True)
        self._thread.start()

    @property
    def size_px(self) -> int:
        """Side of the pictures."""
        return self._sampler.size_px

    def _make(self) -> Fed | Exception:
        try:
            batch = self._sampler.batch(self._count)
        except Exception as error:  # it is raised where the batch is asked for
            return error
        return Fed(batch, json.dumps(self._sampler.rng.bit_generator.state))

    def _work(self) -> None:
        while not self._stop.is_set():
            made = self._make()
            while not self._stop.is_set():
                try:
                    self._ready.put(made, timeout=POLL_S)
                    break
                except queue.Full:
                    continue
            if isinstance(made, Exception):
                return

    def next(self) -> Fed:
        """The next batch; raises what went wrong when it was made."""
        made = self._ready.get()
        if isinstance(made, Exception):
            raise made
        return made

    def close(self) -> None:
        """End the thread."""
        self._stop.set()
        self._thread.join()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()
