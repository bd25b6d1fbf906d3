"""How good the averaged weights are, each time on the same few pictures: it chooses the best of a run."""

import copy
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from avcall.errors import InputError
from models.generator import Picture
from models.layers import resize
from models.network import Network
from models.priors import PRIOR_SIZE_PX
from models.second_look import as_tensors
from models.sight import Sight
from models.training.data import Clip, load_clips
from models.training.drawing import prior_channels, sight_of

MAX_CLIPS = 32  # spread over the folder
FRAMES_A_CLIP = 2  # one in the middle, and the last with a face
MAX_PSNR_DB = 100.0


@dataclass(frozen=True, slots=True)
class Example:
    """The keyframe of a clip and one frame that it is to become.

    `pictures` (2, 3, 256, 256) uint8, `priors` (2, 2, 64, 64) uint8, `mel` (80, 16), `gate` (1,), and what a
    sender sees of the frame beside the keyframe.
    """

    pictures: Tensor
    priors: Tensor
    mel: Tensor
    gate: Tensor
    sight: Sight


def examples_of(clip: Clip) -> list[Example]:
    """The first frame with a face is the keyframe; none where no other frame shows a face."""
    seen = [index for index in range(len(clip)) if clip.landmarks(index).any()]
    if len(seen) < 2:
        return []
    driving = sorted({seen[len(seen) // 2], seen[-1]})[-FRAMES_A_CLIP:]
    return [
        Example(
            torch.from_numpy(np.stack([clip.picture(i) for i in (seen[0], index)])).permute(0, 3, 1, 2),
            torch.from_numpy(np.stack([prior_channels(clip, i) for i in (seen[0], index)])),
            torch.from_numpy(clip.mel(index)),
            torch.tensor([float(len(clip.pcm) > 0)]),
            as_tensors(sight_of(clip, index, seen[0])),
        )
        for index in driving
    ]


class Validation:
    """The pictures to draw, from a folder of prepared clips. Raises InputError when it holds none.

    With `warped`, for a run that draws nothing, it is the moved keyframe that is measured.
    """

    def __init__(self, folder: Path, *, warped: bool = False) -> None:
        self.warped = warped
        clips = load_clips(folder, at_most=MAX_CLIPS)
        self.examples = [example for clip in clips for example in examples_of(clip)]
        if not self.examples:
            raise InputError(f"no clip in {folder} shows a face twice; give another --validate")

    @torch.no_grad()
    def psnr(self, network: Network, weights: dict[str, Tensor]) -> float:
        """Mean PSNR in dB at 256x256 with `weights` in place of the network's own, which stay as they are.

        Draws no random number: training goes on as if nothing had been asked.
        """
        judged = copy.deepcopy(network).eval()
        judged.load_state_dict(weights)
        device = next(judged.parameters()).device
        return float(np.mean([self._psnr(judged, example, device) for example in self.examples]))

    def _psnr(self, network: Network, example: Example, device: torch.device) -> float:
        drawn = _drawn(network, example, device)
        shown = drawn.warped if self.warped else drawn.image
        error = float((shown.clamp(0, 1) - example.pictures[1:].to(device).float() / 255).square().mean())
        return min(-10 * float(np.log10(max(error, 1e-12))), MAX_PSNR_DB)


def _drawn(network: Network, example: Example, device: torch.device) -> Picture:
    pictures = example.pictures.to(device).float() / 255
    priors = example.priors.to(device).float() / 255
    small = resize(pictures, PRIOR_SIZE_PX)
    (source, driving) = (network.detect(small[i : i + 1], priors[i : i + 1]) for i in (0, 1))
    keyframe = network.encode_keyframe(pictures[:1], source)
    sight = Sight(*(part.to(device) for part in example.sight))
    driving = network.look_again(keyframe.small, source, driving, sight, small[1:], keyframe.parts)
    speech = example.mel[None].to(device), example.gate[None].to(device)
    drawn: Picture = network(keyframe, source, driving, *speech)
    return drawn
