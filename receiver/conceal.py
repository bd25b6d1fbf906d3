"""What to show and play when a unit did not arrive: pure maths on what came before."""

import numpy as np

from avcall.types import SAMPLE_RATE_HZ, F32Array, Keypoints, Pcm

MIN_PITCH_SAMPLES = SAMPLE_RATE_HZ // 400  # highest voice that the pitch search follows, 400 Hz
MAX_PITCH_SAMPLES = SAMPLE_RATE_HZ // 66  # lowest, 66 Hz
MATCH_SAMPLES = SAMPLE_RATE_HZ // 50  # 20 ms: the stretch that is compared with its own past
HISTORY_SAMPLES = MATCH_SAMPLES + MAX_PITCH_SAMPLES  # what `conceal_audio` looks at
HOLD_SAMPLES = SAMPLE_RATE_HZ // 100  # 10 ms at full level: shorter gaps are common and unheard
FADE_SAMPLES = SAMPLE_RATE_HZ * 60 // 1000  # then silence by 70 ms (ITU-T G.711 Appendix I mutes at 60 ms)
MOTION_DAMPING = 0.5  # a head that moved goes on by half a step, then a quarter, and so stops within one
MAX_VALUE = 1.5  # the range that the bitstream allows for a keypoint


def conceal_audio(history: Pcm, count: int, concealed: int = 0) -> Pcm:
    """`count` samples that go on from `history`: its last pitch period repeated, fading into silence.

    `history` is (n,) int16, the newest sample last; `concealed` samples of this gap were already made up from
    the same history, so that a long gap fades once. Returns (count,) int16.
    """
    if not len(history):
        return np.zeros(count, np.int16)
    period = history[-_pitch_samples(history) :].astype(np.float32)
    position = concealed + np.arange(count)
    gain = np.clip(1.0 - (position - HOLD_SAMPLES) / FADE_SAMPLES, 0.0, 1.0)
    return np.asarray(np.rint(period[position % len(period)] * gain), dtype=np.int16)


def _pitch_samples(history: Pcm) -> int:
    """The lag at which the last 20 ms resemble their past most (normalised correlation)."""
    recent = history[-HISTORY_SAMPLES:].astype(np.float64)
    longest = min(MAX_PITCH_SAMPLES, len(recent) - MATCH_SAMPLES)
    if longest < MIN_PITCH_SAMPLES:
        return len(recent)
    match = recent[-MATCH_SAMPLES:]
    past = recent[-MATCH_SAMPLES - longest : -MIN_PITCH_SAMPLES]
    dots = np.correlate(past, match)  # lags longest .. MIN_PITCH_SAMPLES
    squares = np.cumsum(np.concatenate([[0.0], past**2]))
    energy = squares[MATCH_SAMPLES:] - squares[:-MATCH_SAMPLES]
    score = dots / np.sqrt(energy + 1.0)
    return longest - int(np.argmax(score))


def crossfade(outgoing: Pcm, incoming: Pcm) -> Pcm:
    """`incoming`, whose head blends in from `outgoing` (a shorter or equal run of samples)."""
    count = min(len(outgoing), len(incoming))
    weight = (np.arange(count) + 1.0) / (count + 1.0)
    mixed = incoming.copy()
    mixed[:count] = np.rint(outgoing[:count] * (1.0 - weight) + incoming[:count] * weight).astype(np.int16)
    return mixed


def conceal_motion(last: Keypoints, before: Keypoints | None, steps: int) -> Keypoints:
    """The keypoints `steps` >= 1 frames after `last`: on from `before`, ever slower, until they hold.

    Jacobians and lattice are held: an extrapolated jacobian may turn singular. Without `before`, everything
    is held.
    """
    if before is None:
        return last
    # Sum of damping + damping^2 + ...: the movement so far, never more than one step for a damping of 0.5.
    reach = MOTION_DAMPING * (1.0 - MOTION_DAMPING**steps) / (1.0 - MOTION_DAMPING)
    moved = last.values + reach * (last.values - before.values)
    values: F32Array = np.clip(moved, -MAX_VALUE, MAX_VALUE).astype(np.float32)
    return Keypoints(values, last.jacobians, last.lattice)
