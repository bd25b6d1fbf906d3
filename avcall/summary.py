"""What a call cost and how it went: tables for people, JSON for programs."""

import dataclasses
import json
from pathlib import Path
from typing import Any

from rich import box
from rich.table import Table

from avcall.call import ReceiveResult, SendResult
from avcall.errors import RecordingError
from avcall.stats import Bill
from avcall.transport.base import WireCounters
from receiver.pipeline import ReceiverSnapshot
from sender.pipeline import SenderSnapshot

PAPER_MOTION_KBPS = 24.0  # AVFR section 4: 960 bits a frame at 25 frames a second, motion alone


def sender_bill(snapshot: SenderSnapshot, wire: WireCounters) -> Bill:
    """The sender's direction: what it put on the wire, and what came back."""
    stats = snapshot.stats
    return Bill(
        elapsed_ms=snapshot.elapsed_ms,
        frames=stats.motion_units,
        motion_bytes=stats.motion_bytes,
        audio_bytes=stats.audio_bytes,
        keyframe_bytes=stats.keyframe_bytes,
        control_bytes=stats.control_bytes,
        wire_bytes=wire.sent_bytes,
        back_bytes=wire.received_bytes,
        ack_bytes=wire.ack_sent_bytes,
    )


def receiver_bill(snapshot: ReceiverSnapshot, wire: WireCounters) -> Bill:
    """The same direction as the receiver sees it: what came to it, and what it sent back."""
    stats = snapshot.stats
    return Bill(
        elapsed_ms=snapshot.elapsed_ms,
        frames=snapshot.pictures.shown,
        motion_bytes=stats.motion_bytes,
        audio_bytes=stats.audio_bytes,
        keyframe_bytes=stats.keyframe_bytes,
        control_bytes=max(0, wire.control_received_bytes - stats.keyframe_bytes),
        wire_bytes=wire.received_bytes,
        back_bytes=wire.sent_bytes,
        ack_bytes=wire.ack_received_bytes,
    )


def rates_table(bill: Bill) -> Table:
    """The three accountings: motion alone, whole payload, on the wire in both directions."""
    table = Table(title="Rates over the whole call", box=box.SIMPLE_HEAD, title_justify="left")
    for name, justify in (("", "left"), ("kbit/s", "right"), ("BPP", "right"), ("kB", "right")):
        table.add_column(name, justify=justify)  # type: ignore[arg-type]

    payload = bill.motion_bytes + bill.audio_bytes + bill.keyframe_bytes
    rows = [
        ("motion payload", bill.motion_bytes),
        ("keyframe share", bill.keyframe_bytes),
        ("speech", bill.audio_bytes),
        ("= whole payload", payload),
        ("control messages", bill.control_bytes),
        ("packet headers", bill.headers_bytes),
        ("acknowledgements", bill.ack_bytes),
        ("= on the wire", bill.wire_bytes),
        ("on the wire, the other way", bill.back_bytes),
    ]
    for name, size_bytes in rows:
        style = "bold" if name.startswith("=") else ""
        table.add_row(
            name,
            f"{bill.kbps(size_bytes):.1f}",
            f"{bill.bpp(size_bytes):.4f}",
            f"{size_bytes / 1000:.1f}",
            style=style,
        )
    return table


def received_table(result: ReceiveResult) -> Table:
    """How the call looked and sounded at the receiver."""
    snapshot = result.snapshot
    packets, playout, pictures = snapshot.stats.packets, snapshot.playout, snapshot.pictures
    table = Table(title="Received", box=box.SIMPLE_HEAD, show_header=False, title_justify="left")
    table.add_column()
    table.add_column(justify="right")
    dropped = {**packets.dropped, **playout.dropped}
    rows = {
        "pictures": f"{pictures.shown} ({received_fps(result):.1f} a second)",
        "of them concealed": str(playout.concealed_frames),
        "left out, too late to draw": str(pictures.skipped),
        "packets, of them lost": f"{packets.received_packets}, {packets.lost_packets}",
        "late units": str(playout.jitter.late),
        "dropped messages": ", ".join(f"{k} {v}" for k, v in sorted(dropped.items())) or "none",
        "concealed speech": f"{playout.concealed_audio_ms} ms",
        "playout delay": f"{playout.jitter.playout_delay_ms:.0f} ms",
        "A/V skew, mean and worst": f"{pictures.skew_ms:+.0f} ms, {pictures.worst_skew_ms:+.0f} ms",
        "drawing a picture": f"{pictures.draw_ms:.0f} ms on {result.provider}",
    }
    for name, value in rows.items():
        table.add_row(name, value)
    return table


def received_fps(result: ReceiveResult) -> float:
    """Pictures a second, from the first shown to the last."""
    pictures = result.snapshot.pictures
    if pictures.shown < 2 or pictures.last_pts_ms <= pictures.first_pts_ms:
        return 0.0
    return (pictures.shown - 1) * 1000 / (pictures.last_pts_ms - pictures.first_pts_ms)


def send_json(result: SendResult) -> dict[str, Any]:
    """A sent call as plain values."""
    bill = sender_bill(result.snapshot, result.wire)
    return {
        "role": "sender",
        "reason": result.reason,
        "provider": result.provider,
        "bill": dataclasses.asdict(bill) | {"headers_bytes": bill.headers_bytes},
        "kbps": {
            "motion": bill.kbps(bill.motion_bytes),
            "keyframe": bill.kbps(bill.keyframe_bytes),
            "audio": bill.kbps(bill.audio_bytes),
            "control": bill.kbps(bill.control_bytes),
            "headers": bill.kbps(bill.headers_bytes),
            "acknowledgements": bill.kbps(bill.ack_bytes),
            "wire_up": bill.kbps(bill.wire_bytes),
            "wire_down": bill.kbps(bill.back_bytes),
        },
        "snapshot": dataclasses.asdict(result.snapshot),
        "wire": dataclasses.asdict(result.wire),
    }


def receive_json(result: ReceiveResult) -> dict[str, Any]:
    """A received call as plain values."""
    bill = receiver_bill(result.snapshot, result.wire)
    return {
        "role": "receiver",
        "reason": result.reason,
        "bill": dataclasses.asdict(bill) | {"headers_bytes": bill.headers_bytes},
        "provider": result.provider,
        "fps": received_fps(result),
        "recording_start_ms": result.recording_start_ms,
        "snapshot": dataclasses.asdict(result.snapshot),
        "wire": dataclasses.asdict(result.wire),
    }


def write_json(path: Path, values: dict[str, Any]) -> None:
    """Write `values` for programs. Raises RecordingError when the file cannot be written."""
    try:
        path.write_text(json.dumps(values, indent=2, default=str) + "\n")
    except OSError as error:
        raise RecordingError(
            f"{path} cannot be written ({error.strerror}); choose another --stats file"
        ) from None
