"""The call on a terminal: lines worth reading, and one status line that is rewritten."""

from types import TracebackType
from typing import Self

from rich.console import Console
from rich.status import Status

from avcall.stats import PIXELS, Bill, RateMeter
from avcall.summary import receiver_bill, sender_bill
from avcall.transport.base import WireCounters
from receiver.pipeline import ReceiverSnapshot
from sender.pipeline import SenderSnapshot

PLAIN_EVERY = 20  # status updates: without a terminal, every tenth second is printed


class ConsoleReporter:
    """Shows a call to its user; a context, so that the status line is cleared at the end."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._status = Status("", console=console, spinner="dots")
        self._up, self._down, self._fps = RateMeter(), RateMeter(), RateMeter()
        self._parts = {name: RateMeter() for name in ("voice", "motion", "keyframes", "headers", "acks")}
        self._updates = 0

    def __enter__(self) -> Self:
        if self._console.is_terminal:
            self._status.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._status.stop()

    def say(self, text: str) -> None:
        """One line worth reading."""
        self._console.print(text, highlight=False, markup=False)

    def invite(self, url: str, token: str | None) -> None:
        """What to hand to the other side."""
        token_part = f" --token {token}" if token else ""
        self.say("waiting for a call; the other side types:")
        # Not wrapped: the line is there to be copied.
        self._console.print(
            f"  avcall send --peer {url}{token_part}", soft_wrap=True, highlight=False, markup=False
        )
        self._show("waiting for a call")

    def sending(self, snapshot: SenderSnapshot, wire: WireCounters) -> None:
        """A moment of the sender."""
        fps, up, down = self._rates(snapshot.elapsed_ms, snapshot.frames, wire)
        report = snapshot.stats.report
        loss = f"{loss_percent(report.received_packets, report.lost_packets):.1f} %" if report else "-"
        self._show(
            f"{fps:4.1f} fps  ↑{up:.1f} ↓{down:.1f} kbit/s  {bpp(up, fps):.3f} BPP  "
            f"{self._breakdown(sender_bill(snapshot, wire))}  loss {loss}  face {snapshot.face.value}"
        )

    def receiving(self, snapshot: ReceiverSnapshot, wire: WireCounters) -> None:
        """A moment of the receiver."""
        pictures, delay_ms = snapshot.pictures, snapshot.playout.jitter.playout_delay_ms
        fps, up, down = self._rates(snapshot.elapsed_ms, pictures.shown, wire)
        packets = snapshot.stats.packets
        self._show(
            f"{fps:4.1f} fps  ↑{up:.1f} ↓{down:.1f} kbit/s  {bpp(down, fps):.3f} BPP  "
            f"{self._breakdown(receiver_bill(snapshot, wire))}  "
            f"loss {loss_percent(packets.received_packets, packets.lost_packets):.1f} %  "
            f"delay {delay_ms:.0f} ms  A/V {pictures.skew_ms:+.0f} ms"
        )

    def _rates(self, elapsed_ms: float, frames: int, wire: WireCounters) -> tuple[float, float, float]:
        """Frames a second, kbit/s up, kbit/s down."""
        fps = self._fps.update(elapsed_ms, frames)
        up = self._up.update(elapsed_ms, wire.sent_bytes) * 8 / 1000
        down = self._down.update(elapsed_ms, wire.received_bytes) * 8 / 1000
        return fps, up, down

    def _breakdown(self, bill: Bill) -> str:
        """What the direction of the pictures is made of now, in kbit/s."""
        totals = {
            "voice": bill.audio_bytes,
            "motion": bill.motion_bytes,
            "keyframes": bill.keyframe_bytes,
            "headers": bill.headers_bytes + bill.control_bytes,
            "acks": bill.ack_bytes,
        }
        rates = {n: self._parts[n].update(bill.elapsed_ms, total) * 8 / 1000 for n, total in totals.items()}
        return "(" + ", ".join(f"{name} {kbps:.1f}" for name, kbps in rates.items()) + ")"

    def _show(self, line: str) -> None:
        if self._console.is_terminal:
            self._status.update(line)
        elif self._updates % PLAIN_EVERY == 0:
            self.say(line)
        self._updates += 1


def bpp(kbps: float, fps: float) -> float:
    """Bits per pixel of 256x256 frames at these rates."""
    return kbps * 1000 / (fps * PIXELS) if fps > 0 else 0.0


def loss_percent(received: int, lost: int) -> float:
    """Lost packets in percent of those sent."""
    return 100 * lost / (received + lost) if received + lost else 0.0
