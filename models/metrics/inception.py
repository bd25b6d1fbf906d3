"""Features of an Inception network that the user brings, for FID proper.

No package ships Inception's FID weights. The file is TorchScript, such as the `inception-2015-12-05.pt` that
StyleGAN2-ADA and StyleGAN3 use: called with (N, 3, H, W) uint8 it resizes by itself and returns (N, 2048).
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from avcall.errors import InputError
from avcall.types import F32Array, U8Image

FEATURES = 2048


class Inception:
    """The user's network. Raises InputError when the file is none."""

    def __init__(self, path: Path) -> None:
        self._path = path
        try:
            self._network: Any = torch.jit.load(str(path), map_location="cpu").eval()
        except (RuntimeError, OSError, ValueError):
            raise InputError(
                f"--inception {path} is no TorchScript network; give inception-2015-12-05.pt of StyleGAN3"
            ) from None

    @torch.no_grad()
    def features(self, pictures: Sequence[U8Image]) -> F32Array:
        """(N, 2048) of pictures (H, W, 3) uint8. Raises InputError when the network gives something else."""
        batch = torch.from_numpy(np.stack(pictures)).permute(0, 3, 1, 2)
        try:
            found = self._network(batch, return_features=True)
        except RuntimeError:  # a plain script without that switch
            found = self._network(batch)
        if tuple(found.shape) != (len(pictures), FEATURES):
            raise InputError(
                f"--inception {self._path} gives {tuple(found.shape)} for {len(pictures)} pictures, "
                f"not ({len(pictures)}, {FEATURES})"
            )
        return np.asarray(found.float().numpy())
