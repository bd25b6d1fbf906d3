"""Both trunks of ST-LPIPS side by side, and how many threads torch takes."""

from dataclasses import dataclass

import torch
from torch import Tensor

from avcall.types import FRAME_SIZE_PX, U8Image
from models.metrics.picture import Box
from models.metrics.stlpips import StLpips


def one_thread() -> None:
    """Let torch use one thread in this thread: whoever calls it runs as many of them as there are cores."""
    torch.set_num_threads(1)


@dataclass(frozen=True, slots=True)
class PairFeatures:
    """Features of one picture by both trunks."""

    vgg: list[Tensor]
    alex: list[Tensor]


class PerceptualPair:
    """ST-LPIPS with VGG16 and with AlexNet; may be used from several threads."""

    def __init__(self) -> None:
        self._vgg, self._alex = StLpips("vgg"), StLpips("alex")
        for network in (self._vgg, self._alex):
            network.to(memory_format=torch.channels_last)  # a third faster on a CPU

    def features(self, rgb: U8Image, *, half: bool = False) -> PairFeatures:
        """Features of (H, W, 3) uint8; `half` keeps them in half precision, for those that wait long."""
        kind = torch.float16 if half else torch.float32
        vgg, alex = self._vgg.features(rgb), self._alex.features(rgb)
        return PairFeatures([level.to(kind) for level in vgg], [level.to(kind) for level in alex])

    def distances(self, a: PairFeatures, b: PairFeatures, boxes: dict[str, Box]) -> dict[str, float]:
        """`st_lpips_vgg`, `st_lpips_alex`, and VGG's within each box, named after it."""
        whole = Box(0, 0, FRAME_SIZE_PX, FRAME_SIZE_PX)
        found = self._within(self._vgg, a.vgg, b.vgg, {"st_lpips_vgg": whole} | _named(boxes))
        return found | self._within(self._alex, a.alex, b.alex, {"st_lpips_alex": whole})

    @torch.no_grad()
    def _within(
        self, network: StLpips, a: list[Tensor], b: list[Tensor], boxes: dict[str, Box]
    ) -> dict[str, float]:
        """The distance averaged over a box of the picture, level by level; the whole picture is ST-LPIPS."""
        sums = dict.fromkeys(boxes, 0.0)
        for weigh, x, y in zip(network.network.lins, a, b, strict=True):
            local = weigh((x.float() - y.float()) ** 2)[0, 0]
            for name, box in boxes.items():
                sums[name] += float(_scaled(box, local.shape[0]).cut(local).mean())
        return sums


def _named(boxes: dict[str, Box]) -> dict[str, Box]:
    return {f"{name}_lpips": box for name, box in boxes.items()}


def _scaled(box: Box, size_px: int) -> Box:
    """A box of the picture as one of a square level of features; never empty."""
    ratio = size_px / FRAME_SIZE_PX
    left, top = int(box.left * ratio), int(box.top * ratio)
    return Box(left, top, max(left + 1, round(box.right * ratio)), max(top + 1, round(box.bottom * ratio)))
