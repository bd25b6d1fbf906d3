"""Batches from a thread: the same ones, resumable, and failing where they are asked for."""

from pathlib import Path

import pytest
import torch

from models.training.data import Batch, DataConfig, PairSampler, load_clips
from models.training.feed import Feed
from tests.models.tiny import write_prepared


@pytest.fixture
def sampler(tmp_path: Path) -> PairSampler:
    write_prepared(tmp_path / "a.npz", seed=1)
    write_prepared(tmp_path / "b.npz", seed=2)
    return PairSampler(load_clips(tmp_path), DataConfig(), 64, seed=5)


def fresh(sampler: PairSampler, seed: int) -> PairSampler:
    return PairSampler(sampler._clips, DataConfig(), 64, seed=seed)


def same(a: Batch, b: Batch) -> bool:
    return torch.equal(a.pictures, b.pictures) and torch.equal(a.mel, b.mel)


def test_it_gives_what_the_sampler_gives_in_its_order(sampler: PairSampler) -> None:
    expected = [fresh(sampler, 5).batch(2)]
    with Feed(sampler, 2) as feed:
        assert feed.size_px == 64
        first, second = feed.next(), feed.next()
    assert same(first.batch, expected[0])
    assert not same(second.batch, expected[0])


def test_a_state_leads_to_the_batch_that_came_after_it(sampler: PairSampler) -> None:
    with Feed(sampler, 2) as feed:
        first, second = feed.next(), feed.next()
    with Feed(fresh(sampler, 99), 2, first.state_after) as feed:
        assert same(feed.next().batch, second.batch)


def test_what_fails_in_the_thread_is_raised_by_next(
    sampler: PairSampler, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(_count: int) -> Batch:
        raise ValueError("a broken clip")

    monkeypatch.setattr(sampler, "batch", fail)
    with Feed(sampler, 2) as feed, pytest.raises(ValueError, match="a broken clip"):
        feed.next()
