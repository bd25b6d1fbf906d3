"""ST-LPIPS, the shift-tolerant perceptual distance, from the package `stlpips_pytorch`.

That package imports torchvision, IPython and torchsummary at its top, for parts that are not used here; they
are not installed. This file is the one place that gets around it.
"""

import contextlib
import importlib.util
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any, Literal

import torch
from torch import Tensor, nn

from avcall.errors import InputError
from avcall.types import U8Image

Trunk = Literal["vgg", "alex"]
NOT_NEEDED = ("torchvision", "IPython", "torchsummary")


def trunk_weights(trunk: Trunk) -> dict[str, Tensor]:
    """The weights that the package ships for a trunk. Raises InputError when it is not installed."""
    spec = importlib.util.find_spec("stlpips_pytorch")
    if spec is None or spec.origin is None:
        raise InputError("ST-LPIPS needs stlpips-pytorch; install it with: pip install 'avcall[train]'")
    path = Path(spec.origin).parent / "weights" / "vST0.0" / f"{trunk}_shift_tolerant.pth"
    state: dict[str, Tensor] = torch.load(path, map_location="cpu", weights_only=True)
    return state


class _StandIn(ModuleType):
    """Whatever is imported from it is None."""

    def __getattr__(self, name: str) -> None:
        if name.startswith("__"):
            raise AttributeError(name)


@contextlib.contextmanager
def _stand_ins() -> Iterator[None]:
    added = [name for name in NOT_NEEDED if name not in sys.modules]
    sys.modules.update({name: _StandIn(name) for name in added})
    try:
        yield
    finally:
        for name in added:
            del sys.modules[name]


def _load(trunk: Trunk) -> Any:
    state = trunk_weights(trunk)
    with _stand_ins():
        from stlpips_pytorch.stlpips import LPIPS
    with torch.device("meta"):  # VGG's 120 million classifier weights are made and thrown away
        network = LPIPS(pretrained=False, net=trunk, variant="shift_tolerant", verbose=False)
    network.load_state_dict(state, strict=False, assign=True)  # not strict: some parts have two names
    if any(t.is_meta for t in (*network.parameters(), *network.buffers())):
        raise InputError("this stlpips-pytorch has other weights than avcall knows; install version 0.0.2")
    return network.eval().requires_grad_(False)


class StLpips(nn.Module):
    """The distance for one trunk. Features of a picture can be kept and compared several times."""

    def __init__(self, trunk: Trunk) -> None:
        super().__init__()
        self.network = _load(trunk)

    @torch.no_grad()
    def features(self, rgb: U8Image) -> list[Tensor]:
        """Unit-length features of (H, W, 3) uint8 at every level."""
        return self._levels(torch.from_numpy(rgb).permute(2, 0, 1)[None].float() / 127.5 - 1)

    def _levels(self, pictures: Tensor) -> list[Tensor]:
        """Of (N, 3, H, W) in [-1, 1]."""
        levels = self.network.net(self.network.scaling_layer(pictures))
        return [nn.functional.normalize(level, dim=1, eps=1e-10) for level in levels]

    def forward(self, output: Tensor, target: Tensor) -> Tensor:
        """The mean distance of pictures (N, 3, H, W) in [0, 1]; it has a gradient for `output`."""
        with torch.no_grad():
            wanted = self._levels(target * 2 - 1)
        parts = zip(self.network.lins, self._levels(output * 2 - 1), wanted, strict=True)
        return torch.stack([weigh((x - y) ** 2).mean() for weigh, x, y in parts]).sum()

    @torch.no_grad()
    def distance(self, a: list[Tensor], b: list[Tensor]) -> float:
        """The distance of two pictures by their features; 0 for the same picture."""
        parts = zip(self.network.lins, a, b, strict=True)
        return sum(float(weigh((x - y) ** 2).mean()) for weigh, x, y in parts)
