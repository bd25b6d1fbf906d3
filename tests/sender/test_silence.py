"""The silence gate on made-up rooms: what is sent of them, and when."""

import numpy as np
import pytest

from avcall.bitstream.audio import SILENCE_EVERY_MS, is_silence
from avcall.types import SAMPLE_RATE_HZ, AccessUnit, Pcm
from sender.silence import HANGOVER_MS, SilenceGate, SilenceStats, level_db
from tests.clips import tone
from tests.units import audio_unit

CHUNK_MS = 40
SAMPLES = CHUNK_MS * SAMPLE_RATE_HZ // 1000


def room(duration_ms: int, noise: float = 0.0, seed: int = 1) -> Pcm:
    """Nobody speaks; `noise` is its standard deviation in steps of int16."""
    samples = duration_ms * SAMPLE_RATE_HZ // 1000
    return np.random.default_rng(seed).normal(0, noise, samples).astype(np.int16)


def sent(pcm: Pcm, gate: SilenceGate | None = None) -> list[AccessUnit]:
    gate = gate or SilenceGate()
    units = []
    for number in range(len(pcm) // SAMPLES):
        chunk = pcm[number * SAMPLES : (number + 1) * SAMPLES]
        units += gate.push(audio_unit(number * CHUNK_MS), chunk)
    return units


def test_level_is_that_of_the_loudest_10_ms() -> None:
    pcm = np.zeros(SAMPLES, np.int16)
    assert level_db(pcm) == -np.inf
    pcm[320:480] = 3277
    assert level_db(pcm) == pytest.approx(-20, abs=0.01)


def test_speech_passes_unchanged() -> None:
    units = sent(tone(300, 2000))
    assert [unit.pts_ms for unit in units] == list(range(0, 2000, CHUNK_MS))
    assert not any(is_silence(unit.payload) for unit in units)


@pytest.mark.parametrize("noise", [0.0, 3.0, 60.0, 300.0])
def test_a_pause_is_a_marker_now_and_then(noise: float) -> None:
    settle = room(12_000, noise)
    pcm = np.concatenate([settle, tone(300, 400) + room(400, noise, 2), room(2400, noise, 3)])
    units = [unit for unit in sent(pcm) if unit.pts_ms >= 12_400]
    spoken = [unit for unit in units if not is_silence(unit.payload)]
    markers = [unit.pts_ms for unit in units if is_silence(unit.payload)]
    assert len(spoken) <= HANGOVER_MS // CHUNK_MS + 1  # the hangover
    assert markers[0] <= 12_400 + HANGOVER_MS + CHUNK_MS
    assert set(np.diff(markers)) == {SILENCE_EVERY_MS}
    assert all(len(unit.payload) == 1 for unit in units if unit.pts_ms in markers)


def test_a_word_keeps_the_chunk_before_its_first_loud_one() -> None:
    pcm = np.concatenate([room(1200), tone(300, 400)])
    units = sent(pcm)
    spoken = [unit.pts_ms for unit in units if not is_silence(unit.payload) and unit.pts_ms >= 1000]
    assert spoken[0] == 1200 - CHUNK_MS
    assert spoken == list(range(spoken[0], 1600, CHUNK_MS))
    pts = [unit.pts_ms for unit in units]
    assert pts == sorted(set(pts))


def test_short_gaps_between_words_are_sent() -> None:
    word = tone(300, 200)
    units = sent(np.concatenate([word, room(160), word, room(120), word]))
    assert len(units) == 22 and not any(is_silence(unit.payload) for unit in units)


def test_a_quiet_voice_in_a_quiet_room_is_speech() -> None:
    quiet = (tone(300, 400) // 100).astype(np.int16)
    assert -56 < level_db(quiet) < -45
    units = sent(np.concatenate([room(2000, 3.0), quiet]))
    assert [u.pts_ms for u in units if u.pts_ms >= 2000 and not is_silence(u.payload)] == list(
        range(2000, 2400, CHUNK_MS)
    )


def test_a_room_that_grows_noisy_is_silent_again_after_a_while() -> None:
    pcm = np.concatenate([room(2000, 3.0), room(20_000, 100.0)])
    late = [unit for unit in sent(pcm) if unit.pts_ms >= 18_000]
    assert late and all(is_silence(unit.payload) for unit in late)


def test_steady_loud_sound_is_not_taken_for_the_noise_of_a_room() -> None:
    units = sent(np.tile(tone(300, 1000), 40))
    assert len(units) == 1000 and not any(is_silence(unit.payload) for unit in units)


def test_stats_add_up() -> None:
    gate = SilenceGate()
    sent(np.concatenate([tone(300, 400), room(1000), tone(300, 200)]), gate)
    assert gate.stats() == SilenceStats(speech_ms=400 + 160 + 40 + 200, silence_ms=800)
