"""Batches made ahead by worker processes: the same ones in the same order, however many there are."""

import itertools
import os
import signal
import sys
from types import TracebackType
from typing import Self

import cv2
import torch
from torch.utils.data import DataLoader, Dataset

from avcall.errors import AvcallError
from models.training.data import Batch, PairSampler

FORKS = sys.platform == "linux"  # workers share the clips in memory; elsewhere there are none
DEFAULT_MOST = 32
PREFETCHED_A_WORKER = 4
PREFETCHED_MOST = 48  # of all workers: each tensor on its way is an open file, and 1024 are allowed
DIED = "DataLoader worker (pid"  # how torch begins to say so


def default_workers(processes: int = 1) -> int:
    """Worker processes for each of `processes` that train side by side: all cores but one, shared out."""
    if not FORKS:
        return 0
    return min(max((len(os.sched_getaffinity(0)) - 1) // processes, 1), DEFAULT_MOST)


class _Numbered(Dataset):
    """Batches by number. An AvcallError is given back: raised, torch would make a traceback of it."""

    def __init__(self, sampler: PairSampler, count: int) -> None:
        self._sampler, self._count = sampler, count

    def __getitem__(self, number: int) -> Batch | AvcallError:
        try:
            return self._sampler.batch(self._count, number)
        except AvcallError as error:
            return error


def _ignore_signals(_worker: int) -> None:
    """Ctrl-C and SIGTERM may go to all processes: the main one finishes its step, then ends its workers."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_IGN)


class Feed:
    """Batches of `count` pairs from number `first` on, made by `workers` processes, or by this one if 0.

    `pinned` batches go to a GPU while it computes. While a feed is open OpenCV keeps to one thread: its
    optical flow depends on their number, and workers must not be forked from a process with several.
    """

    def __init__(
        self, sampler: PairSampler, count: int, first: int = 0, *, workers: int = 0, pinned: bool = False
    ) -> None:
        self.size_px = sampler.size_px
        self._workers = workers if FORKS else 0
        ahead = min(PREFETCHED_A_WORKER, max(PREFETCHED_MOST // self._workers, 1)) if self._workers else None
        self._threads_before = cv2.getNumThreads()
        cv2.setNumThreads(1)
        loader = DataLoader(
            _Numbered(sampler, count),
            batch_size=None,
            sampler=itertools.count(first),
            num_workers=self._workers,
            prefetch_factor=ahead,
            pin_memory=pinned,
            worker_init_fn=_ignore_signals,
            multiprocessing_context="fork" if self._workers else None,
            generator=torch.Generator(),  # otherwise it draws from the global one, which the run resumes
        )
        self._batches = iter(loader)

    def next(self) -> Batch:
        """The next batch; raises what went wrong when it was made, and AvcallError when a worker died."""
        try:
            made = next(self._batches)
        except RuntimeError as error:
            if not str(error).startswith(DIED):
                raise
            raise AvcallError(
                "a process that makes pairs died, perhaps for want of memory or of room in /dev/shm; "
                "go on from the last checkpoint with --resume and fewer --workers"
            ) from error
        if isinstance(made, AvcallError):
            raise made
        return made

    def close(self) -> None:
        """End the workers."""
        if self._workers:
            self._batches._shutdown_workers()  # private; left to `del`, they would outlive it in a traceback
        cv2.setNumThreads(self._threads_before)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()
