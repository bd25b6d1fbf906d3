"""The files of tests/golden pin the wire format byte by byte.

A change that breaks one breaks calls between versions. To write them anew after a deliberate change of the
protocol (and of its version): AVCALL_WRITE_GOLDEN=1 pytest tests/avcall/bitstream/test_golden.py
"""

import dataclasses
import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from avcall.bitstream import control, keyframe, packet
from avcall.bitstream.control import Bye, Hello, KeyframeAck, KeyframeRequest, Ping, Pong, Report
from avcall.bitstream.keyframe import CodedKeyframe, KeyframeAssembler, StillCodec
from avcall.bitstream.motion import MotionMode, decode, encode
from avcall.bitstream.motion_coded import MotionCoder, MotionTables
from avcall.bitstream.packet import CodedMotion, MediaPacket
from avcall.types import AccessUnit, Keypoints, MediaKind
from tests.units import make_still

GOLDEN = Path(__file__).resolve().parents[2] / "golden"


def pinned_keypoints() -> Keypoints:
    """Keypoints that half floats hold exactly."""
    steps = np.arange(10, dtype=np.float32)
    values = np.stack([steps / 16 - 0.25, 0.5 - steps / 8], axis=1)
    jacobians = np.tile(np.array([[1.5, -0.25], [0.125, 0.75]], np.float32), (10, 1, 1))
    return Keypoints(values, jacobians)


def pinned_packet() -> MediaPacket:
    payload = encode(MotionMode.FP16, pinned_keypoints())
    return MediaPacket(
        sequence=0xABCD,
        pts_ms=0x01020304,
        motion=(
            AccessUnit(MediaKind.MOTION, 0x01020304, 40, payload, 3),
            AccessUnit(MediaKind.MOTION, 0x01020304 + 40, 40, payload, 4),
        ),
        audio=(
            AccessUnit(MediaKind.AUDIO, 0x01020304 + 120, 40, bytes([0x50]) + bytes(range(49))),
            AccessUnit(MediaKind.AUDIO, 0x01020304 + 260, 60, bytes([0x58]) + bytes(range(256))),
        ),
    )


def pinned_coder() -> MotionCoder:
    """With tables of its own: those of the weights change with them."""
    return MotionCoder(MotionTables.from_bytes((GOLDEN / "motion_tables.safetensors").read_bytes()))


def pinned_frames() -> list[Keypoints]:
    """Three frames that move away from the pinned keypoints."""
    still = pinned_keypoints()
    return [Keypoints(still.values + step / 64, still.jacobians * (1 + step / 32)) for step in (1, 2, 4)]


def pinned_coded_packet() -> MediaPacket:
    payload = pinned_coder().encode(pinned_frames(), pinned_keypoints(), 2)
    coded = CodedMotion((0x0105, 0x0105 + 40, 0x0105 + 73), 3, 2, payload)
    speech = AccessUnit(MediaKind.AUDIO, 0x0100, 40, bytes([0x50]) + bytes(range(29)))
    return MediaPacket(sequence=7, pts_ms=0x0100, audio=(speech,), coded=coded)


def pinned_deformed_packet() -> MediaPacket:
    """The same frames with a lattice that goes to the right in its lower right corner."""
    lattice = np.zeros((10, 10, 2), np.float32)
    lattice[7:, 6:, 0] = 3 / 128
    frames = [dataclasses.replace(frame, lattice=lattice) for frame in pinned_frames()]
    told = pinned_coder().lattice(frames, 2)
    payload = pinned_coder().encode(frames, pinned_keypoints(), 2, told)
    coded = CodedMotion((0x0105, 0x0105 + 40, 0x0105 + 73), 3, 2, payload, deformed=True)
    return dataclasses.replace(pinned_coded_packet(), coded=coded)


def pinned_keyframe() -> CodedKeyframe:
    image = (GOLDEN / "still.obu").read_bytes()
    return CodedKeyframe(7, StillCodec.AVIF, image, pinned_keypoints())


def pinned_slices() -> bytes:
    """The slices one after the other, the size of each before it in two bytes."""
    slices = keyframe.slice_keyframe(keyframe.serialize(pinned_keyframe()), 7)
    return b"".join(len(message).to_bytes(2, "big") + message for message in slices)


FILES: dict[str, Callable[[], bytes]] = {
    "motion_fp16.bin": lambda: encode(MotionMode.FP16, pinned_keypoints()),
    "media.bin": lambda: packet.serialize(pinned_packet()),
    "motion_coded.bin": lambda: pinned_coder().encode(pinned_frames(), pinned_keypoints(), 2),
    "media_coded.bin": lambda: packet.serialize(pinned_coded_packet()),
    "media_deformed.bin": lambda: packet.serialize(pinned_deformed_packet()),
    "keyframe.bin": lambda: keyframe.serialize(pinned_keyframe()),
    "keyframe_slices.bin": pinned_slices,
    "control_hello.bin": lambda: control.serialize(Hello(1, "receiver", "avcall 0.1.0", "0123456789abcdef")),
    "control_keyframe_ack.bin": lambda: control.serialize(KeyframeAck(200)),
    "control_keyframe_request.bin": lambda: control.serialize(KeyframeRequest()),
    "control_report.bin": lambda: control.serialize_report(
        Report(70000, 300, 2, 12.5, 85.0, 65000, 9_000_000, 35.5, 4464, 8.5), 0xABCD, 0x01020304
    ),
    "control_ping.bin": lambda: control.serialize(Ping(1234.5)),
    "control_pong.bin": lambda: control.serialize(Pong(1234.5)),
    "control_bye.bin": lambda: control.serialize(Bye("done")),
}


@pytest.fixture(scope="module", autouse=True)
def written_when_asked() -> None:
    if os.environ.get("AVCALL_WRITE_GOLDEN") != "1":
        return
    still = GOLDEN / "still.obu"
    if not still.exists():
        still.write_bytes(keyframe.encode_still(make_still(), 1500))
    for name, make in FILES.items():
        (GOLDEN / name).write_bytes(make())


@pytest.mark.parametrize("name", FILES)
def test_what_we_send_is_pinned(name: str) -> None:
    assert FILES[name]() == (GOLDEN / name).read_bytes()


def test_the_pinned_motion_is_read() -> None:
    decoded = decode(MotionMode.FP16, (GOLDEN / "motion_fp16.bin").read_bytes())
    np.testing.assert_array_equal(decoded.values, pinned_keypoints().values)
    np.testing.assert_array_equal(decoded.jacobians, pinned_keypoints().jacobians)


def test_the_pinned_packet_is_read() -> None:
    assert packet.parse((GOLDEN / "media.bin").read_bytes()) == pinned_packet()


def test_the_pinned_deformation_is_read() -> None:
    read = packet.parse((GOLDEN / "media_deformed.bin").read_bytes())
    assert read == pinned_deformed_packet()
    assert read.coded is not None
    decoded = pinned_coder().decode(read.coded.payload, 3, pinned_keypoints(), read.coded.step, deformed=True)
    lattice = decoded[2].lattice
    assert lattice is not None
    assert np.abs(lattice[7:, 6:, 0] - 3 / 128).max() < 0.012
    assert np.count_nonzero(lattice) == 12


def test_the_pinned_coded_packet_is_read() -> None:
    read = packet.parse((GOLDEN / "media_coded.bin").read_bytes())
    assert read == pinned_coded_packet()
    assert read.coded is not None
    assert read.coded.payload == (GOLDEN / "motion_coded.bin").read_bytes()
    decoded = pinned_coder().decode(read.coded.payload, 3, pinned_keypoints(), read.coded.step)
    for frame, wanted in zip(decoded, pinned_frames(), strict=True):
        assert np.abs(frame.values - wanted.values).max() < 0.02


def test_the_pinned_slices_make_the_pinned_keyframe() -> None:
    data = (GOLDEN / "keyframe_slices.bin").read_bytes()
    assembler, found = KeyframeAssembler(), None
    while data:
        size_bytes = int.from_bytes(data[:2], "big")
        found = assembler.push(data[2 : 2 + size_bytes])
        data = data[2 + size_bytes :]
    assert found is not None
    assert keyframe.serialize(found) == (GOLDEN / "keyframe.bin").read_bytes()
    rgb = keyframe.decode_still(found.codec, found.image)
    assert np.abs(rgb.astype(int) - make_still()).mean() < 6


@pytest.mark.parametrize("name", [name for name in FILES if name.startswith("control_")])
def test_the_pinned_control_messages_are_read(name: str) -> None:
    data = (GOLDEN / name).read_bytes()
    message = control.parse(data)
    if isinstance(message, Report):
        assert control.serialize_report(message, 0xABCD, 0x01020304) == data
    else:
        assert control.serialize(message) == data


def test_the_first_bytes_of_a_packet_are_where_the_protocol_says() -> None:
    data = (GOLDEN / "media.bin").read_bytes()
    assert data[:8] == bytes([0x80, 97, 0xAB, 0xCD, 1, 2, 3, 4])
    assert data[8:13] == b"avca" + bytes([0b00_010_010])
    assert data[13:15] == bytes([0, 3])
    assert data[135:137] == bytes([40, 4])
    assert data[257:259] == bytes([120, 50])
    assert data[309:313] == bytes([252, 2, 253, 1])  # 260 = 252 + 4*2, 257 = 253 + 4*1
