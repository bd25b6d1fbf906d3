"""Batches from workers: the same ones however many there are, and failing where they are asked for."""

import os
import signal
from pathlib import Path

import cv2
import pytest
import torch

from avcall.errors import AvcallError, InputError
from models.training import feed as module
from models.training.data import Batch, DataConfig, PairSampler, load_clips
from models.training.feed import Feed, default_workers
from tests.models.tiny import write_prepared

WORKERS = pytest.mark.parametrize("workers", [0, 1, 2])


@pytest.fixture
def sampler(tmp_path: Path) -> PairSampler:
    write_prepared(tmp_path / "a.npz", seed=1)
    write_prepared(tmp_path / "b.npz", seed=2)
    return PairSampler(load_clips(tmp_path), DataConfig(), 64, seed=5)


def same(a: Batch, b: Batch) -> bool:
    return all(torch.equal(x, y) for x, y in zip(a, b, strict=True))


@WORKERS
def test_any_number_of_workers_gives_the_same_batches_in_their_order(
    sampler: PairSampler, workers: int
) -> None:
    with Feed(sampler, 2, 3, workers=workers) as feed:
        assert feed.size_px == 64
        fed = [feed.next() for _ in range(3)]
        expected = [sampler.batch(2, number) for number in (3, 4, 5)]
    assert all(map(same, fed, expected))
    assert not same(fed[0], fed[1])
    assert fed[0].pictures.dtype == fed[0].priors.dtype == torch.uint8
    assert fed[0].pictures.stride()[2:] == (1, 3 * 64, 3)  # channels last


@WORKERS
def test_feeding_draws_no_random_number_of_the_run_and_leaves_opencv_as_it_was(
    sampler: PairSampler, workers: int
) -> None:
    state, threads = torch.get_rng_state(), cv2.getNumThreads()
    with Feed(sampler, 2, workers=workers) as feed:
        feed.next()
    assert torch.equal(torch.get_rng_state(), state)
    assert cv2.getNumThreads() == threads


@WORKERS
@pytest.mark.parametrize(("error", "message"), [(InputError, r"^a broken clip$"), (ValueError, "a broken")])
def test_what_fails_in_a_worker_is_raised_by_next(
    sampler: PairSampler,
    monkeypatch: pytest.MonkeyPatch,
    workers: int,
    error: type[Exception],
    message: str,
) -> None:
    def fail(_count: int, _number: int) -> Batch:
        raise error("a broken clip")

    monkeypatch.setattr(sampler, "batch", fail)
    with Feed(sampler, 2, workers=workers) as feed, pytest.raises(error, match=message):
        feed.next()


def processes(feed: Feed) -> list[int]:
    return [worker.pid for worker in feed._batches._workers]


def test_workers_outlive_requests_to_stop_and_end_with_the_feed(sampler: PairSampler) -> None:
    with Feed(sampler, 2, workers=2) as feed:
        feed.next()
        feed.next()  # each has made one: both are ready for signals
        for pid in processes(feed):
            os.kill(pid, signal.SIGINT)
            os.kill(pid, signal.SIGTERM)
        for _ in range(2 * module.PREFETCHED_A_WORKER + 2):  # more than was made before
            feed.next()
        workers = feed._batches._workers
    assert not any(worker.is_alive() for worker in workers)
    assert [worker.exitcode for worker in workers] == [0, 0]


def test_a_worker_that_dies_is_one_line(sampler: PairSampler, monkeypatch: pytest.MonkeyPatch) -> None:
    def die(_count: int, _number: int) -> Batch:
        os.kill(os.getpid(), signal.SIGKILL)
        raise AssertionError

    monkeypatch.setattr(sampler, "batch", die)
    with (
        Feed(sampler, 2, workers=1) as feed,
        pytest.raises(AvcallError, match=r"died.*fewer --workers$") as caught,
    ):
        feed.next()
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("cores", "processes", "expected"), [(1, 1, 1), (2, 1, 1), (16, 1, 15), (16, 4, 3), (200, 1, 32)]
)
def test_workers_leave_a_core_to_the_training(
    monkeypatch: pytest.MonkeyPatch, cores: int, processes: int, expected: int
) -> None:
    monkeypatch.setattr(module, "FORKS", True)
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: range(cores), raising=False)
    assert default_workers(processes) == expected


def test_without_fork_the_process_makes_its_own_pairs(
    sampler: PairSampler, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "FORKS", False)
    assert default_workers() == 0
    with Feed(sampler, 2, workers=3) as feed:
        assert same(feed.next(), sampler.batch(2, 0))
