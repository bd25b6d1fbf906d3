"""What an error of the sixty numbers does to the picture: the metric in which coded motion is quantised.

A jacobian at a shoulder turns a quarter of the picture, one at an eyelid a few pixels, and an error of a
plain wall's motion is not seen at all. So each number is moved a little, and what the dense motion makes of
it is weighed as the second look weighs a miss: by the frame's texture, and at the landmarks.
"""

from collections.abc import Iterable

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from avcall.bitstream.motion_coded import NUMBERS, SCALES, VALUES
from models.keypoint_detector import INPUT_SIZE_PX
from models.layers import at_places, resize
from models.network import KeypointTensors, Network
from models.second_look import as_tensors, miss_weights, texture_of
from models.sight import Sight
from models.training.data import Clip
from models.training.drawing import sight_of
from models.training.quantise import picture_tensor, prior_tensor, sampled_frames

FRAMES_PER_CLIP = 2
NUDGE = 0.004  # of each number: half a pixel, about what quantising does
RIDGE = 0.002  # of the mean sensitivity: no number is free, for masks and faces differ from those seen here


@torch.no_grad()
def motion_metric(network: Network, clips: Iterable[Clip]) -> NDArray[np.float64]:
    """(60, 60): e @ metric @ e is the mean squared miss, in half widths, that an error e of a frame makes.

    e is weighted as in `motion_coded.flatten`. Frames are taken beside the first one of their clip.
    """
    found: list[NDArray[np.float64]] = []
    for clip in clips:
        found += [_frame_metric(network, clip, index) for index in sampled_frames(clip, FRAMES_PER_CLIP)]
    if not found:
        return np.eye(NUMBERS)
    metric: NDArray[np.float64] = np.mean(found, 0)
    return metric + RIDGE * np.trace(metric) / NUMBERS * np.eye(NUMBERS)


def _frame_metric(network: Network, clip: Clip, index: int) -> NDArray[np.float64]:
    still, camera = (_small(clip, i) for i in (0, index))
    source, driving = (
        network.detect(small, prior_tensor(clip, i)) for small, i in ((still, 0), (camera, index))
    )
    sight = as_tensors(sight_of(clip, index, 0))
    parts = network.dense_motion.parts(still, source)
    driving = network.look_again(still, source, driving, sight, camera, parts)
    flows = _flows(network, (still, parts), source, _nudged(driving), sight)  # (61, P, 2)
    change = (flows[1:] - flows[:1]).double() / NUDGE
    sure = torch.ones(1, INPUT_SIZE_PX**2)
    xx, xy, yy = miss_weights(sure, texture_of(camera).flatten(2), sight)[0, :, : change.shape[1]].double()
    x, y = change.unbind(-1)
    cross = (x * xy) @ y.T
    metric: NDArray[np.float64] = ((x * xx) @ x.T + (y * yy) @ y.T + cross + cross.T).numpy()
    return metric


def _flows(
    network: Network,
    keyframe: tuple[Tensor, Tensor | None],
    source: KeypointTensors,
    driving: KeypointTensors,
    sight: Sight,
) -> Tensor:
    """(N, 4096 + 478, 2): where N poses lead each place of the picture, and the landmarks."""
    n = len(driving[0])
    still, parts = keyframe
    alike = (source[0].expand(n, -1, -1), source[1].expand(n, -1, -1, -1))
    many = None if parts is None else parts.expand(n, -1, -1, -1)
    flow = network.dense_motion(still.expand(n, -1, -1, -1), alike, driving, many).flow
    led = at_places(flow, sight.landmarks[:, 1].expand(n, -1, -1))
    return torch.cat([flow.flatten(1, 2), led], 1)


def _nudged(driving: KeypointTensors) -> KeypointTensors:
    """The keypoints as they are, then with each of their numbers moved: (61, K, 2), (61, K, 2, 2)."""
    numbers = torch.cat([driving[0].flatten(1), driving[1].flatten(1)], 1)
    nudges = torch.cat([torch.zeros(1, NUMBERS), torch.diag(NUDGE / torch.from_numpy(SCALES))])
    moved = numbers + nudges
    shapes = [(-1, *part.shape[1:]) for part in driving]
    return moved[:, :VALUES].reshape(shapes[0]), moved[:, VALUES:].reshape(shapes[1])


def _small(clip: Clip, index: int) -> Tensor:
    return resize(picture_tensor(clip.picture(index)), INPUT_SIZE_PX)
