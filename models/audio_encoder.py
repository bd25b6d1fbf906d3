"""Speech into the face: Enc_aud, the attention encoder and the attention map (AVFR section 3.2, eq. 2)."""

import torch
from torch import Tensor, nn

from models.config import AudioConfig
from models.layers import ConvBlock, conv, resize

CONDITION_SIZE_PX = 64  # h/4 x w/4
SEED_SIZE_PX = 8  # side of the map that Enc_aud grows from


class MelEncoder(nn.Sequential):
    """2-D CNN on a mel window: (N, 1, 80, 16) -> (N, 4 * width)."""

    def __init__(self, width: int) -> None:
        super().__init__(
            ConvBlock(1, width, 3, 2),
            ConvBlock(width, width * 2, 3, 2),
            ConvBlock(width * 2, width * 4, 3, 2),
            ConvBlock(width * 4, width * 4, 3, 2),
            nn.AdaptiveAvgPool2d(1),
            nn.Flatten(),
        )


class AudioEncoder(nn.Module):
    """Mel window -> Enc_aud (N, c, 64, 64) and Enc_query (N, c).

    The paper gives Enc_aud's size but not how it is grown; here a linear layer seeds an 8x8 map that two
    convolutions refine on the way up.
    """

    def __init__(self, config: AudioConfig) -> None:
        super().__init__()
        c = config.channels
        self.encoder = MelEncoder(config.width)
        self.seed = nn.Linear(config.width * 4, c * SEED_SIZE_PX**2)
        self.grow = nn.ModuleList([ConvBlock(c, c), ConvBlock(c, c)])
        self.query_encoder = MelEncoder(config.width)
        self.query = nn.Linear(config.width * 4, c)

    def forward(self, mel: Tensor, gate: Tensor) -> tuple[Tensor, Tensor]:
        """`mel` (N, 80, 16) in [0, 1]; `gate` (N, 1) is 0 where there is no speech to go by."""
        x = mel[:, None]
        maps = self.seed(self.encoder(x)).view(x.shape[0], -1, SEED_SIZE_PX, SEED_SIZE_PX)
        for block in self.grow:
            maps = block(resize(maps, maps.shape[-1] * 2))
        maps = resize(maps, CONDITION_SIZE_PX)
        return maps * gate[:, :, None, None], self.query(self.query_encoder(x)) * gate


class AudioVisualCondition(nn.Module):
    """concat(Enc_motion, Enc_aud, Enc_attn), projected: what modulates the generator."""

    def __init__(self, motion_channels: int, config: AudioConfig, outputs: int, *, use_audio: bool) -> None:
        super().__init__()
        self.motion = conv(motion_channels, config.channels, 1)
        self.audio = AudioEncoder(config) if use_audio else None
        inputs = config.channels * 2 + 1 if use_audio else config.channels
        self.project = ConvBlock(inputs, outputs)

    def forward(self, motion_features: Tensor, mel: Tensor, gate: Tensor) -> Tensor:
        """(N, outputs, 64, 64)."""
        enc_motion = self.motion(motion_features)
        if self.audio is None:
            return self.project(enc_motion)
        enc_aud, query = self.audio(mel, gate)
        # Eq. 2: the query against Enc_motion at every location, squashed.
        attention = torch.sigmoid((enc_motion * query[:, :, None, None]).sum(1, keepdim=True))
        return self.project(torch.cat([enc_motion, enc_aud, attention], 1))
