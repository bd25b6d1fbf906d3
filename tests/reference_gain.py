"""What new keyframes gain: the sender's choice of references on real clips, and the picture that it leads to.

    python -m tests.reference_gain [--every 15] [--frames 250] CLIP...

For each policy the sender's reference logic runs over the clip, with keyframes of the default size that are
acknowledged 1.2 s after their order; every n-th frame is drawn from the reference in use and compared with
the camera's (ST-LPIPS, AlexNet). Also printed: how well the preview's error and the distance of the keypoints
predict ST-LPIPS, and the numbers that sender/references.py is fitted with.
"""

import argparse
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from avcall.config import SendConfig
from avcall.types import FRAME_MS, FaceCrop, Keypoints
from models.config import MEL_BANDS, MEL_STEPS
from models.metrics.stlpips import StLpips
from models.runtime import Device, ModelRuntime
from sender.detect import Detector
from sender.encode import EncodedKeyframe, KeyframeEncoder
from sender.picture import PREVIEW_EVERY
from sender.preview import Previewer
from sender.references import KeyframeBudget, ReferenceSet, distance
from tests.call_rate import crops

ACKNOWLEDGED_AFTER_MS = 1_200
POLICIES = ("none", "keypoints", "preview")
SILENCE = np.zeros((MEL_BANDS, MEL_STEPS), np.float32)


@dataclass(slots=True)
class Outcome:
    """One clip under one policy; `samples` are (preview's error, keypoints' distance, ST-LPIPS)."""

    st_lpips: list[float] = field(default_factory=list)
    changes: int = 0
    bits: int = 0
    samples: list[tuple[float, float, float]] = field(default_factory=list)


class Trial:
    """The clips' frames and the networks, for every policy."""

    def __init__(self, runtime: ModelRuntime, every: int) -> None:
        self._runtime, self._every = runtime, every
        self._detector = Detector(runtime)
        self._judge = StLpips("alex")
        self._config = SendConfig(peer="")

    def run(self, faces: list[FaceCrop], poses: list[Keypoints], policy: str) -> Outcome:
        """One clip."""
        outcome, previewer = Outcome(), Previewer(self._runtime)
        budget = 0 if policy == "none" else self._config.keyframe_budget_bits
        size_bytes = self._config.keyframe_bytes
        references = ReferenceSet(KeyframeBudget(budget), size_bytes)
        encoder = KeyframeEncoder(self._detector, size_bytes)
        sent: dict[int, EncodedKeyframe] = {}
        due: list[tuple[int, int]] = []

        def send(face: FaceCrop, number: int | None, pts_ms: int) -> None:
            made = encoder.encode(face, number)
            sent[made.index] = made
            references.push(made, pts_ms)
            due.append((pts_ms + (ACKNOWLEDGED_AFTER_MS if pts_ms else 0), made.index))

        send(faces[0], None, 0)
        current = None
        for frame, (face, pose) in enumerate(zip(faces, poses, strict=True)):
            pts_ms = frame * FRAME_MS
            for at_ms, index in [entry for entry in due if entry[0] <= pts_ms]:
                references.acknowledge(index, pts_ms)
                due.remove((at_ms, index))
            chosen = references.choose(pose, pts_ms)
            assert chosen is not None
            outcome.changes += current is not None and chosen != current
            current = chosen
            if policy == "preview" and frame % PREVIEW_EVERY == 0:
                refined = self._detector.beside(sent[chosen].held, face)
                references.measured(previewer.estimate(face.rgb, refined, references.candidates))
            ordered = references.order(pts_ms)
            if ordered is not None:
                send(face, ordered, pts_ms)
                outcome.bits += 8 * sum(map(len, sent[ordered].slices))
            if frame and frame % self._every == 0:
                self._compare(outcome, face, sent[chosen])
        return outcome

    def _compare(self, outcome: Outcome, face: FaceCrop, reference: EncodedKeyframe) -> None:
        pose = self._detector.beside(reference.held, face)
        self._runtime.set_keyframe(0, reference.rgb, reference.keypoints)
        drawn = self._runtime.synthesize(0, pose, SILENCE, speech=False)
        st_lpips = self._judge.distance(self._judge.features(face.rgb), self._judge.features(drawn))
        (estimate,) = Previewer(self._runtime).estimate(face.rgb, pose, (reference,))
        outcome.st_lpips.append(st_lpips)
        outcome.samples.append((estimate.error, distance(reference.keypoints, pose), st_lpips))


def main() -> None:
    """Print the table and the fit."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("clips", nargs="+", type=Path)
    parser.add_argument("--every", type=int, default=15)
    parser.add_argument("--frames", type=int, default=250)
    options = parser.parse_args()
    runtime = ModelRuntime(device=Device.CPU, threads=2)
    trial, detector = Trial(runtime, options.every), Detector(runtime)
    outcomes: dict[str, list[Outcome]] = {policy: [] for policy in POLICIES}
    for clip in options.clips:
        faces = crops(clip)[: options.frames]
        poses = [detector.keypoints(face) for face in faces]
        for policy in POLICIES:
            outcomes[policy].append(trial.run(faces, poses, policy))
        means = (float(np.mean(outcomes[policy][-1].st_lpips)) for policy in POLICIES)
        print(clip.stem, *(f"{mean:.4f}" for mean in means), sep="\t", flush=True)  # noqa: T201 (a tool)
    for policy, found in outcomes.items():
        values = np.concatenate([outcome.st_lpips for outcome in found])
        changes, bits = (np.mean([getattr(o, name) for o in found]) for name in ("changes", "bits"))
        line = f"mean {values.mean():.4f}  p90 {np.quantile(values, 0.9):.4f}"
        print(f"{policy}\t{line}  changes {changes:.1f}  kbit {bits / 1000:.0f}")  # noqa: T201
    error, apart, st_lpips = np.array([s for o in outcomes["none"] for s in o.samples]).T
    slope, base = np.polyfit(apart, error, 1)
    correlations = (np.corrcoef(other, st_lpips)[0, 1] for other in (error, apart))
    print("correlation with ST-LPIPS: preview {:.2f}, keypoints {:.2f}".format(*correlations))  # noqa: T201
    steepness = np.polyfit(error, st_lpips, 1)[0]
    print(f"ST-LPIPS grows by {steepness:.2f} for an error of 1")  # noqa: T201
    print(f"error = {base:.4f} + {slope:.4f} * distance; quartiles {np.quantile(error, (0.25, 0.5, 0.75))}")  # noqa: T201


if __name__ == "__main__":
    main()
