"""Several processes that train as one, and a run that is asked to stop: decisions that all of them share."""

import signal
import threading
from collections.abc import Callable
from types import FrameType, TracebackType
from typing import Any, Self

import torch
import torch.distributed
from lightning_fabric import Fabric

from avcall.errors import AvcallError

SEED_STRIDE = 1_000_003  # between the seeds of two processes, wider than seeds that people choose


def rank_seed(seed: int, fabric: Fabric) -> int:
    """A seed of this process's own; the first process has `seed` itself."""
    return seed + SEED_STRIDE * int(fabric.global_rank)


def agree(fabric: Fabric, *votes: bool) -> tuple[bool, ...]:
    """Each vote as it stands in all processes together: true where any of them says so."""
    if fabric.world_size == 1:
        return votes
    counted = fabric.all_reduce(
        torch.tensor(votes, dtype=torch.float32, device=fabric.device), reduce_op="sum"
    )
    assert isinstance(counted, torch.Tensor)
    return tuple(bool(count > 0) for count in counted)


def gather(fabric: Fabric, own: Any) -> list[Any]:
    """What each process holds, in their order."""
    if fabric.world_size == 1:
        return [own]
    held: list[Any] = [None] * fabric.world_size
    torch.distributed.all_gather_object(held, own)
    return held


def first_does(fabric: Fabric, work: Callable[[], None]) -> None:
    """The first process works while the others wait; an AvcallError of it is raised in all of them."""
    failure: AvcallError | None = None
    if fabric.is_global_zero:
        try:
            work()
        except AvcallError as error:
            failure = error
    if fabric.world_size > 1:
        failure = fabric.broadcast(failure)
    if failure is not None:
        raise failure


class StopRequest:
    """A context in which Ctrl-C and SIGTERM only ask to stop; a second one ends the process as ever."""

    def __init__(self) -> None:
        self.made = False
        self._before: dict[int, Any] = {}

    def __enter__(self) -> Self:
        if threading.current_thread() is threading.main_thread():
            for number in (signal.SIGINT, signal.SIGTERM):
                self._before[number] = signal.signal(number, self._note)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._restore()

    def _note(self, _number: int, _frame: FrameType | None) -> None:
        self.made = True
        self._restore()

    def _restore(self) -> None:
        while self._before:
            number, handler = self._before.popitem()
            signal.signal(number, handler)
