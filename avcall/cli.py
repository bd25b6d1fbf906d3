"""The command line: reads options, runs a command, says in one line what is wrong and then exits with 2.

Heavy modules are imported by the command that needs them, so that --help and doctor work on a machine where
one of them does not load.
"""

import asyncio
import contextlib
import os
import secrets
import signal
import sys
from collections.abc import Coroutine
from pathlib import Path
from typing import Annotated, Any, NoReturn, TypeVar

import typer
from rich.console import Console

from avcall.config import NetworkConfig, ReceiveConfig, SendConfig
from avcall.errors import AvcallError, InputError
from avcall.offline_cli import add_commands

ResultT = TypeVar("ResultT")
EXIT_BAD_INPUT = 2
TRAINING_PACKAGES = ("torch", "lightning_fabric", "onnx", "stlpips_pytorch", "skimage", "tensorboard")
NATIVE_LOG_VARIABLE = "AVCALL_NATIVE_LOG"

app = typer.Typer(
    name="avcall",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode="markdown",
    add_completion=False,
    help="A video call for links of 20-60 kbit/s: one picture of the face, then only its motion "
    "and the voice.\n\n"
    "One side runs `avcall receive` and hands the line that it prints to the other side, which runs it. "
    "`avcall demo` shows a whole call on this machine; `avcall doctor` says what is missing for one.",
)

add_commands(app)

Token = Annotated[
    str | None, typer.Option(help="Secret that the caller must present.", envvar="AVCALL_TOKEN")
]
Stun = Annotated[str | None, typer.Option(help="STUN server, stun:HOST:PORT; not needed on one LAN.")]
Turn = Annotated[str | None, typer.Option(help="TURN relay, turn:HOST:PORT?transport=udp.")]
TurnUser = Annotated[str | None, typer.Option(help="User name at the TURN relay.", envvar="AVCALL_TURN_USER")]
TurnPassword = Annotated[
    str | None, typer.Option(help="Password at the TURN relay.", envvar="AVCALL_TURN_PASSWORD")
]
DeviceOption = Annotated[str, typer.Option(help="Where the networks run: auto, cpu or cuda.")]
Weights = Annotated[Path | None, typer.Option(help="Folder of other weights than the shipped ones.")]
Stats = Annotated[Path | None, typer.Option(help="Write the statistics of the call to this JSON file.")]

Listen = Annotated[str, typer.Option(help="HOST:PORT to wait for the caller at.")]
DisplayOption = Annotated[str, typer.Option(help="window, none, or FILE.mp4.")]
SpeakerOption = Annotated[str, typer.Option(help="A device name or index, default, none, or FILE.wav.")]
Record = Annotated[Path | None, typer.Option(help="Record picture and sound to this MP4 file.")]
NoToken = Annotated[bool, typer.Option("--no-token", help="Let anybody call who knows the URL.")]
Rendezvous = Annotated[
    str | None, typer.Option(help="URL of an `avcall signal` to hold a room at, instead of --listen.")
]
HostToken = Annotated[
    str | None, typer.Option(help="What the rendezvous wants of receivers.", envvar="AVCALL_HOST_TOKEN")
]
MaxDelay = Annotated[int, typer.Option(help="Longest playout delay before late packets are given up.")]

Peer = Annotated[str, typer.Option(help="URL that the receiver printed.")]
Camera = Annotated[str, typer.Option(help="Index (0), device path, or a video file to play.")]
Mic = Annotated[
    str | None,
    typer.Option(help="Device, none, or FILE.wav. Default: a file's own sound, else the default device."),
]
Source = Annotated[Path | None, typer.Option(help="Photo of one face to animate instead of your own.")]
Loop = Annotated[bool, typer.Option("--loop", help="Play a video file over and over.")]
Motion = Annotated[str, typer.Option(help="coded (about 2 kbit/s), or fp16: the paper's 960 bits a frame.")]
MotionStep = Annotated[int, typer.Option(help="Quantiser of coded motion, 0 (finest) to 7.")]
TickMs = Annotated[int, typer.Option(help="40 (low delay), 80, or 120 (lowest rate): one packet each.")]
AudioBps = Annotated[int, typer.Option(help="Bit rate of the speech, 6000-16000.")]
KeyframeBytes = Annotated[int, typer.Option(help="Largest size of a keyframe's picture.")]
FirstKeyframeBytes = Annotated[
    int, typer.Option(help="Largest size of the rough picture that is sent before the first one; 0: none.")
]
SharpKeyframeBytes = Annotated[
    int, typer.Option(help="Largest size of the first picture sent again, on a link with room; 0: never.")
]
KeyframeBudget = Annotated[
    int, typer.Option(help="Bits a minute for new keyframes when the pose has changed much; 0: none.")
]
Seconds = Annotated[float | None, typer.Option(help="Hang up after this time.")]


@app.command()
def receive(
    listen: Listen = "0.0.0.0:8790",
    display: DisplayOption = "window",
    speaker: SpeakerOption = "default",
    record: Record = None,
    token: Token = None,
    open_door: NoToken = False,
    rendezvous: Rendezvous = None,
    host_token: HostToken = None,
    device: DeviceOption = "auto",
    max_delay_ms: MaxDelay = 800,
    stun: Stun = None,
    turn: Turn = None,
    turn_user: TurnUser = None,
    turn_password: TurnPassword = None,
    weights: Weights = None,
    stats: Stats = None,
) -> None:
    """Wait for one call and play it: 256x256 pictures with sound.

    Prints the line that the other side has to type. Without --token a random one is made for this call.
    Ends when the caller hangs up, the window is closed (q or Escape), or with Ctrl-C.
    """
    _receive(
        ReceiveConfig(
            listen=listen,
            rendezvous=rendezvous,
            host_token=host_token,
            token=None if open_door else token or secrets.token_urlsafe(12),
            display=display,
            speaker=speaker,
            record=record,
            device=device,
            weights=weights,
            max_delay_ms=max_delay_ms,
            network=NetworkConfig(
                stun_url=stun, turn_url=turn, turn_user=turn_user, turn_password=turn_password
            ),
        ),
        stats,
    )


def _receive(config: ReceiveConfig, stats: Path | None) -> None:
    """Take one call and say how it went."""
    from avcall.call import Receiver
    from avcall.console import ConsoleReporter
    from avcall.summary import rates_table, receive_json, received_table, receiver_bill, write_json

    console = Console()
    with ConsoleReporter(console) as reporter:
        result = _run(Receiver(config, reporter).run())
    if result is None:
        return
    console.print(result.reason, highlight=False, markup=False)
    console.print(received_table(result))
    console.print(rates_table(receiver_bill(result.snapshot, result.wire)))
    if stats is not None:
        write_json(stats, receive_json(result))
    if result.failure is not None:
        raise result.failure


@app.command()
def send(
    peer: Peer,
    camera: Camera = "0",
    mic: Mic = None,
    source: Source = None,
    loop: Loop = False,
    token: Token = None,
    device: DeviceOption = "auto",
    motion: Motion = "coded",
    motion_step: MotionStep = 2,
    tick_ms: TickMs = 80,
    audio_bps: AudioBps = 9_000,
    keyframe_bytes: KeyframeBytes = 4_000,
    first_keyframe_bytes: FirstKeyframeBytes = 1_500,
    sharp_keyframe_bytes: SharpKeyframeBytes = 12_000,
    keyframe_budget: KeyframeBudget = 70_000,
    max_kbps: Annotated[
        float | None, typer.Option(help="Never send more than this, in kbit/s, all headers included.")
    ] = None,
    seconds: Seconds = None,
    stun: Stun = None,
    turn: Turn = None,
    turn_user: TurnUser = None,
    turn_password: TurnPassword = None,
    weights: Weights = None,
    stats: Stats = None,
) -> None:
    """Call a receiver and send it your face and voice.

    Ends when the receiver hangs up, a video file is over, or with Ctrl-C.
    """
    config = SendConfig(
        peer=peer,
        token=token,
        camera=camera,
        microphone=mic,
        loop=loop,
        source=source,
        device=device,
        motion=motion,
        motion_step=motion_step,
        tick_ms=tick_ms,
        audio_bitrate_bps=audio_bps,
        keyframe_bytes=keyframe_bytes,
        first_keyframe_bytes=first_keyframe_bytes,
        sharp_keyframe_bytes=sharp_keyframe_bytes,
        keyframe_budget_bits=keyframe_budget,
        weights=weights,
        max_kbps=max_kbps,
        duration_s=seconds,
        network=NetworkConfig(stun_url=stun, turn_url=turn, turn_user=turn_user, turn_password=turn_password),
    )
    _send(config, stats)


def _send(config: SendConfig, stats: Path | None) -> None:
    """Make one call and print its bill."""
    from avcall.call import Sender
    from avcall.console import ConsoleReporter
    from avcall.summary import rates_table, send_json, sender_bill, write_json

    console = Console()
    with ConsoleReporter(console) as reporter:
        result = _run(Sender(config, reporter).run())
    if result is None:
        return
    console.print(result.reason, highlight=False, markup=False)
    console.print(rates_table(sender_bill(result.snapshot, result.wire)))
    if stats is not None:
        write_json(stats, send_json(result))


@app.command()
def demo(
    camera: Annotated[Path | None, typer.Option(help="Your own clip instead of the sample face.")] = None,
    out: Annotated[Path, typer.Option(help="Folder for the results.")] = Path("demo-out"),
    seconds: Annotated[float, typer.Option(help="Length of the call; a shorter clip repeats.")] = 12.0,
    tick_ms: Annotated[int, typer.Option(help="40, 80 or 120.")] = 80,
    source: Annotated[Path | None, typer.Option(help="Photo of one face to animate.")] = None,
    weights: Weights = None,
) -> None:
    """Make a whole call on this machine: two processes over WebRTC on the loopback.

    Writes call.mp4 (original | received, with the received sound), call.png (a strip of it) and call.json
    (all statistics) to --out. Needs no camera, microphone, speaker or display.
    """
    from avcall.demo import run_demo

    run_demo(
        Console(), camera=camera, out=out, seconds=seconds, tick_ms=tick_ms, source=source, weights=weights
    )


@app.command()
def doctor() -> None:
    """Say what this machine has for a call, and how to get what it lacks."""
    from avcall.doctor import render, run_checks

    render(run_checks(), Console())


@app.command(name="signal")
def rendezvous(
    listen: Annotated[str, typer.Option(help="HOST:PORT to listen at.")] = "127.0.0.1:8080",
    max_rooms: Annotated[int, typer.Option(help="Rooms that may be open at once.")] = 256,
    room_lifetime: Annotated[int, typer.Option(help="Seconds until a room ends; calls go on.")] = 4 * 3600,
    host_token: Annotated[
        str | None,
        typer.Option(help="Token that receivers must give to open a room.", envvar="AVCALL_HOST_TOKEN"),
    ] = None,
) -> None:
    """Run a rendezvous for two sides that are both behind a NAT.

    The receiver holds a room open (`avcall receive --rendezvous URL`), the caller posts to the room's URL.
    Sound and picture do not pass through it.
    """
    import logging

    from signaling.rooms import RoomLimits
    from signaling.server import parse_address, serve_rendezvous

    logging.basicConfig(level=logging.INFO, format="%(message)s")
    host, port = parse_address(listen)
    serve_rendezvous(host, port, host_token, RoomLimits(max_rooms=max_rooms, lifetime_s=room_lifetime))


def _run(work: Coroutine[Any, Any, ResultT]) -> ResultT | None:
    """Run the call on uvloop where there is one; None when the user ended it before it began."""
    factory = None
    with contextlib.suppress(ImportError):
        import uvloop

        factory = uvloop.new_event_loop
    with asyncio.Runner(loop_factory=factory) as runner:
        return runner.run(_interruptible(work))


async def _interruptible(work: Coroutine[Any, Any, ResultT]) -> ResultT | None:
    """Ctrl-C and SIGTERM end the call cleanly: the pipelines say goodbye and finish their files."""
    task = asyncio.ensure_future(work)
    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM):
        with contextlib.suppress(NotImplementedError):  # no such thing on Windows; Ctrl-C still raises there
            loop.add_signal_handler(number, task.cancel)
    try:
        return await task
    except asyncio.CancelledError:
        return None


def _quieten_native_libraries() -> None:
    """Send what C and C++ libraries print (mediapipe, PortAudio, FFmpeg) to nowhere; Python keeps its stderr.

    Set AVCALL_NATIVE_LOG=1 to see it.
    """
    if os.environ.get(NATIVE_LOG_VARIABLE):
        return
    kept = os.fdopen(os.dup(2), "w", buffering=1, errors="backslashreplace")
    with open(os.devnull, "wb") as nowhere:
        os.dup2(nowhere.fileno(), 2)
    sys.stderr = kept


def _fail(error: AvcallError) -> NoReturn:
    Console(stderr=True).print(f"avcall: {error}", soft_wrap=True, highlight=False, markup=False)
    sys.exit(EXIT_BAD_INPUT)


def main() -> None:
    """Entry point of the `avcall` command."""
    # numpy's matrices are small here, and OpenBLAS's idle threads spin: two thirds of a core in a call.
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
    _quieten_native_libraries()
    try:
        app()
    except AvcallError as error:
        _fail(error)
    except ModuleNotFoundError as error:
        if error.name not in TRAINING_PACKAGES:
            raise
        _fail(InputError(f"this command needs {error.name}; install it with: pip install 'avcall[train]'"))
