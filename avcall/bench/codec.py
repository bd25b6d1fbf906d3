"""What the comparison asks of a codec: frames to bytes, bytes to frames, and a count of the bytes."""

from dataclasses import dataclass
from typing import Protocol

from avcall.bench.clip import Clip
from avcall.stats import Bill
from avcall.types import U8Image


@dataclass(frozen=True, slots=True)
class Coded:
    """A coded clip: `data` is all that `decode` gets, `bill` what it costs, by kind.

    `command` is what made it, exactly; `encode_s` how long that took on one core.
    """

    data: bytes
    bill: Bill
    command: str
    encode_s: float


@dataclass(frozen=True, slots=True)
class Decoded:
    """The frames that came back, (frames, 256, 256, 3) uint8; `held` of them repeat the one before, because
    nothing came for them in time."""

    frames: U8Image
    held: int = 0


class Codec(Protocol):
    """One codec at one setting."""

    @property
    def name(self) -> str:
        """The codec, for a legend: 'h266-lowdelay'."""
        ...

    @property
    def setting(self) -> str:
        """The setting, for a row: 'qp45'."""
        ...

    @property
    def identity(self) -> str:
        """Everything beside the clip that decides the result: program, version, options, weights."""
        ...

    def encode(self, clip: Clip) -> Coded:
        """Code the clip. Raises AvcallError in one line."""
        ...

    def decode(self, data: bytes) -> Decoded:
        """The frames of what `encode` returned. Raises AvcallError in one line."""
        ...
