"""The demo: a whole call on this machine, as two real processes, and a picture of how it went.

`receive` and `send` run as a user would start them, over WebRTC on the loopback. Afterwards the sender's own
tracker cuts the original again, so that original and received stand side by side, moment by moment.
"""

import json
import secrets
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from typing import Any

import av
import cv2
import numpy as np
from rich.console import Console

from avcall.errors import AvcallError, RecordingError
from avcall.sample import build_sample
from avcall.stats import Bill
from avcall.summary import rates_table
from avcall.types import FRAME_MS, FRAME_SIZE_PX, SAMPLE_RATE_HZ, Pcm, U8Image, VideoFrame
from receiver.record import AAC_PRIMING_SAMPLES, Mp4Writer
from sender.capture import check_camera, read_video
from sender.media_file import probe_video
from sender.track import FaceTracker

START_TIMEOUT_S = 120.0  # the first start of a fresh installation compiles the networks
END_TIMEOUT_S = 60.0  # on top of the length of the call
STRIP_MOMENTS = 6
GAP_PX = 4


@dataclass(frozen=True, slots=True)
class DemoFiles:
    """Where the demo leaves its results."""

    folder: Path

    def __getitem__(self, name: str) -> Path:
        return self.folder / name


def run_demo(
    console: Console,
    *,
    camera: Path | None,
    out: Path,
    seconds: float,
    tick_ms: int,
    source: Path | None,
    weights: Path | None,
) -> None:
    """Make the call and its pictures. Raises AvcallError in one line when either end fails."""
    files = DemoFiles(out)
    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise RecordingError(
            f"--out {out} cannot be made ({error.strerror}); choose another folder"
        ) from None
    if camera is None:
        console.print("making the sample: a talking face and generated speech")
        camera = build_sample(files["sample.mp4"], seconds)
    check_camera(str(camera))
    sender_options = [
        "--camera",
        str(camera),
        "--loop",
        "--seconds",
        f"{seconds:g}",
        "--tick-ms",
        str(tick_ms),
    ]
    if source is not None:
        sender_options += ["--source", str(source)]
    if weights is not None:
        sender_options += ["--weights", str(weights)]
    with console.status(f"calling for {seconds:g} s"):
        statistics = call_processes(files, sender_options, seconds, weights)
    with console.status("putting original and received side by side"):
        compose(camera, files, statistics["receiver"]["recording_start_ms"] or 0)
    files["call.json"].write_text(json.dumps(statistics, indent=2) + "\n")
    report(console, files, statistics)


def report(console: Console, files: DemoFiles, statistics: dict[str, Any]) -> None:
    """The table of rates, the pictures a second, and where everything lies."""
    bill = dict(statistics["sender"]["bill"])
    bill.pop("headers_bytes")
    console.print(rates_table(Bill(**bill)))
    receiver = statistics["receiver"]
    pictures, playout = receiver["snapshot"]["pictures"], receiver["snapshot"]["playout"]
    console.print(
        f"received {receiver['fps']:.1f} pictures a second, {playout['concealed_frames']} of "
        f"{pictures['shown']} without motion of their own; playout delay "
        f"{playout['jitter']['playout_delay_ms']:.0f} ms; A/V skew {pictures['skew_ms']:+.0f} ms "
        f"(worst {pictures['worst_skew_ms']:+.0f} ms); drawn in {pictures['draw_ms']:.0f} ms "
        f"on {receiver['provider']}",
        highlight=False,
    )
    for name, what in (
        ("call.mp4", "original | received, with the received sound"),
        ("call.png", "a strip of it"),
        ("call.json", "all statistics"),
    ):
        console.print(f"  {files[name]}  {what}", highlight=False, soft_wrap=True)


def call_processes(
    files: DemoFiles, sender_options: list[str], seconds: float, weights: Path | None
) -> dict[str, dict[str, Any]]:
    """Run both ends; returns their statistics. Raises AvcallError with an end's own words when it fails."""
    token, port = secrets.token_urlsafe(12), _free_port()
    received, stats = files["received.mp4"], {end: files[f"{end}.json"] for end in ("sender", "receiver")}
    for stale in (received, *stats.values()):
        stale.unlink(missing_ok=True)
    receive = ["receive", "--listen", f"127.0.0.1:{port}", "--display", "none", "--speaker", "none"]
    receive += ["--record", str(received), "--token", token, "--stats", str(stats["receiver"])]
    if weights is not None:
        receive += ["--weights", str(weights)]
    send = ["send", "--peer", f"http://127.0.0.1:{port}/call", "--token", token, *sender_options]
    send += ["--stats", str(stats["sender"])]
    receiver = _start(receive)
    try:
        _wait_until_listening(port, receiver)
        sender = _start(send)
        try:
            _finish(sender, "send", seconds + END_TIMEOUT_S)
        finally:
            sender.kill()
        _finish(receiver, "receive", END_TIMEOUT_S)
    finally:
        receiver.kill()
    return {end: json.loads(path.read_text()) for end, path in stats.items()}


def _start(arguments: list[str]) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "avcall", *arguments]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)


def _finish(process: subprocess.Popen[str], name: str, timeout_s: float) -> None:
    """Wait for an end to finish well; its last line is the error otherwise."""
    try:
        output, _ = process.communicate(timeout=timeout_s)
    except subprocess.TimeoutExpired:
        process.kill()
        raise AvcallError(
            f"avcall {name} did not end within {timeout_s:.0f} s; run it by hand to see why"
        ) from None
    if process.returncode != 0:
        lines = [line for line in output.splitlines() if line.strip()] or ["no output"]
        raise AvcallError(f"avcall {name} failed: {lines[-1].removeprefix('avcall: ')}")


def _wait_until_listening(port: int, receiver: subprocess.Popen[str]) -> None:
    deadline_s = time.monotonic() + START_TIMEOUT_S
    while time.monotonic() < deadline_s:
        if receiver.poll() is not None:
            _finish(receiver, "receive", 1.0)
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{port}/health", timeout=2):
                return
        except (urllib.error.URLError, OSError):
            time.sleep(0.1)
    raise AvcallError(
        f"avcall receive did not listen within {START_TIMEOUT_S:.0f} s; run it by hand to see why"
    )


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def compose(camera: Path, files: DemoFiles, start_ms: int) -> None:
    """call.mp4 and call.png from the clip that was sent and the recording of the receiver.

    `start_ms` is the media time at which the recording starts.
    """
    writer = Mp4Writer(files["call.mp4"], width_px=2 * FRAME_SIZE_PX + GAP_PX, height_px=FRAME_SIZE_PX)
    pairs: list[U8Image] = []
    for pts_ms, pair in side_by_side(camera, files["received.mp4"], start_ms):
        writer.add_video(pair, pts_ms)
        pairs.append(pair)
    if not pairs:
        raise AvcallError("no picture was received; is the machine busy with something else?")
    for pts_ms, pcm in recorded_sound(files["received.mp4"]):
        writer.add_audio(pcm, start_ms + pts_ms)
    writer.close()
    chosen = [pairs[round(i)] for i in np.linspace(len(pairs) * 0.1, len(pairs) - 1, STRIP_MOMENTS)]
    halves = [
        np.concatenate([pair[:, :FRAME_SIZE_PX], pair[:, FRAME_SIZE_PX + GAP_PX :]], 0) for pair in chosen
    ]
    cv2.imwrite(str(files["call.png"]), cv2.cvtColor(np.concatenate(halves, 1), cv2.COLOR_RGB2BGR))


def side_by_side(camera: Path, received: Path, start_ms: int) -> Iterator[tuple[int, U8Image]]:
    """(pts_ms, original | received) for every received picture; (256, 516, 3) uint8."""
    gap = np.zeros((FRAME_SIZE_PX, GAP_PX, 3), np.uint8)
    originals = _crops(camera)
    original = next(originals)
    for elapsed_ms, picture in recorded_pictures(received):
        pts_ms = start_ms + elapsed_ms
        while original.pts_ms + FRAME_MS <= pts_ms:
            original = next(originals)
        yield pts_ms, np.concatenate([original.rgb, gap, picture], 1)


def _crops(camera: Path) -> Iterator[VideoFrame]:
    """The clip as the sender's tracker cuts it, over and over; without a face the last crop stays."""
    duration_ms = probe_video(camera).duration_ms
    tracker = FaceTracker()
    last = np.zeros((FRAME_SIZE_PX, FRAME_SIZE_PX, 3), np.uint8)
    for turn in count():
        for frame in read_video(camera):
            if frame.pts_ms >= duration_ms:
                break
            moved = VideoFrame(frame.rgb, frame.pts_ms + turn * duration_ms)
            crop = tracker.crop(moved)
            last = last if crop is None else crop.rgb
            yield VideoFrame(last, moved.pts_ms)


def recorded_pictures(path: Path) -> Iterator[tuple[int, U8Image]]:
    """(ms since the start of the recording, picture) of an MP4; the first stands from the start on."""
    with av.open(str(path)) as container:
        start_s = _start_s(container)
        for frame in container.decode(video=0):
            yield (
                max(0, round(((frame.time or 0.0) - start_s) * 1000)),
                np.asarray(frame.to_ndarray(format="rgb24"), np.uint8),
            )


def recorded_sound(path: Path) -> Iterator[tuple[int, Pcm]]:
    """(ms since the start of the recording, samples) of an MP4, as 16 kHz mono.

    The first come from before the start: the encoder's priming, which is silence.
    """
    with av.open(str(path)) as container:
        start_s = _start_s(container)
        resampler = av.AudioResampler("s16", "mono", SAMPLE_RATE_HZ)
        for frame in container.decode(audio=0):
            at_ms = round(((frame.time or 0.0) - start_s) * 1000)
            for out in resampler.resample(frame):
                yield at_ms, out.to_ndarray()[0]


def _start_s(container: av.container.InputContainer) -> float:
    """The file's time of the first moment of the recording: sound begins with the encoder's priming."""
    return AAC_PRIMING_SAMPLES / SAMPLE_RATE_HZ if container.streams.audio else 0.0
