"""Two network namespaces joined by a link of a rate and a delay, for kernels that have no netem.

    python -m tests.narrow_link CLIP [--seconds 90] [--rates 0:32,40:16,52:32] [--delay-ms 150]

makes a call of two processes through it, as root on Linux, and prints what both ends say. Each direction has
a queue of its own that empties at the rate; the rates are those of the sender's direction, `second:kbit/s`.
"""

import argparse
import ctypes
import fcntl
import heapq
import os
import select
import struct
import subprocess
import sys
import tempfile
import time
from itertools import count
from pathlib import Path

NEAR, FAR = "avcall_near", "avcall_far"
ADDRESSES = {NEAR: "10.77.0.1", FAR: "10.77.0.2"}
TUNSETIFF, IFF_TUN_NO_PI = 0x400454CA, 0x1001  # linux/if_tun.h
CLONE_NEWNET = 0x40000000
MAX_PACKET_BYTES = 2_000
QUEUE_BYTES = 12_000
START_S = 90


def open_tun(namespace: str) -> int:
    """A TUN device inside `namespace`, up and with its address; the file descriptor of its packets."""
    libc = ctypes.CDLL(None, use_errno=True)
    with open(f"/run/netns/{namespace}", "rb") as there, open("/proc/self/ns/net", "rb") as here:
        if libc.setns(there.fileno(), CLONE_NEWNET) != 0:
            raise OSError(ctypes.get_errno(), f"setns {namespace}")
        tun = os.open("/dev/net/tun", os.O_RDWR | os.O_NONBLOCK)
        fcntl.ioctl(tun, TUNSETIFF, struct.pack("16sH22x", b"narrow", IFF_TUN_NO_PI))
        libc.setns(here.fileno(), CLONE_NEWNET)
    ip = ["ip", "-n", namespace]
    subprocess.run([*ip, "addr", "add", f"{ADDRESSES[namespace]}/24", "dev", "narrow"], check=True)
    subprocess.run([*ip, "link", "set", "narrow", "up"], check=True)
    subprocess.run([*ip, "link", "set", "lo", "up"], check=True)
    return tun


class Direction:
    """One direction of the link: a queue that empties at a rate, then a delay."""

    def __init__(self, out: int, delay_s: float) -> None:
        self.rate_bps = 1e9
        self._out, self._delay_s = out, delay_s
        self._free_s = 0.0
        self._due: list[tuple[float, int, bytes]] = []
        self._serial = count()

    def put(self, packet: bytes, now_s: float) -> None:
        """A packet enters, or is lost because the queue is full."""
        start_s = max(self._free_s, now_s)
        if (start_s - now_s) * self.rate_bps / 8 + len(packet) > QUEUE_BYTES:
            return
        self._free_s = start_s + len(packet) * 8 / self.rate_bps
        heapq.heappush(self._due, (self._free_s + self._delay_s, next(self._serial), packet))

    def flush(self, now_s: float) -> None:
        """What is due leaves."""
        while self._due and self._due[0][0] <= now_s:
            os.write(self._out, heapq.heappop(self._due)[2])


def run_link(rates: dict[float, float], delay_s: float, ready: Path) -> None:
    """Carry packets until killed; the clock of `rates` starts when the file `ready` exists."""
    near, far = open_tun(NEAR), open_tun(FAR)
    forward, backward = Direction(far, delay_s), Direction(near, delay_s)
    start_s: float | None = None
    while True:
        select.select([near, far], [], [], 0.002)
        now_s = time.monotonic()
        if start_s is None and ready.exists():
            start_s = now_s
        for at_s, kbps in sorted(rates.items()):
            if start_s is not None and now_s - start_s >= at_s:
                forward.rate_bps = kbps * 1000
                backward.rate_bps = max(rates.values()) * 1000
        for tun, direction in ((near, forward), (far, backward)):
            try:
                while True:
                    direction.put(os.read(tun, MAX_PACKET_BYTES), now_s)
            except BlockingIOError:
                direction.flush(now_s)


def inside(namespace: str, *arguments: str) -> list[str]:
    """The command line of avcall in a namespace."""
    return ["ip", "netns", "exec", namespace, sys.executable, "-m", "avcall", *arguments]


def main() -> None:
    """Make the call."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("clip")
    parser.add_argument("--seconds", type=float, default=90)
    parser.add_argument("--rates", default="0:32,40:16,52:32")
    parser.add_argument("--delay-ms", type=float, default=150)
    parser.add_argument("--max-kbps", default="24")
    parser.add_argument("--out", type=Path, default=Path(tempfile.mkdtemp()))
    options = parser.parse_args()
    rates = {float(at): float(kbps) for at, kbps in (pair.split(":") for pair in options.rates.split(","))}
    options.out.mkdir(parents=True, exist_ok=True)
    ready = options.out / "ready"
    ready.unlink(missing_ok=True)
    for namespace in ADDRESSES:
        subprocess.run(["ip", "netns", "del", namespace], check=False, stderr=subprocess.DEVNULL)
        subprocess.run(["ip", "netns", "add", namespace], check=True)
    link = os.fork()
    if link == 0:
        run_link(rates, options.delay_ms / 1000, ready)
    try:
        call(options, ready)
    finally:
        os.kill(link, 9)
        os.waitpid(link, 0)
        for namespace in ADDRESSES:
            subprocess.run(["ip", "netns", "del", namespace], check=False)


def call(options: argparse.Namespace, ready: Path) -> None:
    """Both processes, from the start to the end."""
    where = f"{ADDRESSES[FAR]}:8790"
    receive = ["receive", "--listen", where, "--no-token", "--display", "none", "--speaker", "none"]
    send = ["send", "--peer", f"http://{where}/call", "--camera", options.clip, "--loop"]
    send += ["--seconds", f"{options.seconds:g}", "--max-kbps", options.max_kbps]
    with open(options.out / "receive.log", "w") as heard, open(options.out / "send.log", "w") as said:
        receiver = subprocess.Popen(
            inside(FAR, *receive, "--stats", str(options.out / "receive.json")), stdout=heard, stderr=heard
        )
        deadline_s = time.monotonic() + START_S
        while "avcall send" not in (options.out / "receive.log").read_text():
            if time.monotonic() > deadline_s or receiver.poll() is not None:
                raise SystemExit((options.out / "receive.log").read_text())
            time.sleep(0.2)
        ready.touch()
        subprocess.run(
            inside(NEAR, *send, "--stats", str(options.out / "send.json")),
            stdout=said,
            stderr=said,
            check=False,
        )
        receiver.wait(30)
    for name in ("send.log", "receive.log"):
        sys.stdout.write((options.out / name).read_text())


if __name__ == "__main__":
    main()
