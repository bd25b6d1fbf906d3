"""The rendezvous by itself, where nothing of avcall but this package is installed: python -m signaling."""

import argparse
import logging
import os
import sys
import time

from avcall.errors import AvcallError, ConfigError
from signaling.rooms import RoomLimits
from signaling.server import parse_address, serve_rendezvous
from signaling.turn import turn_credentials

HOST_TOKEN_VARIABLE = "AVCALL_HOST_TOKEN"  # in the environment, where `ps` does not show it
TURN_SECRET_VARIABLE = "TURN_SECRET"


def main(arguments: list[str] | None = None) -> int:
    """Run the command line; returns the exit code, 2 after a one-line error."""
    options = _parser().parse_args(arguments)
    try:
        if options.turn_credentials:
            _print_turn_credentials(options.turn_lifetime)
            return 0
        logging.basicConfig(level=logging.INFO, format="%(message)s")
        host, port = parse_address(options.listen)
        limits = RoomLimits(max_rooms=options.max_rooms, lifetime_s=options.room_lifetime)
        serve_rendezvous(host, port, os.environ.get(HOST_TOKEN_VARIABLE) or None, limits)
    except AvcallError as error:
        sys.stderr.write(f"{error}\n")
        return 2
    return 0


def _print_turn_credentials(lifetime_s: int) -> None:
    secret = os.environ.get(TURN_SECRET_VARIABLE)
    if not secret:
        raise ConfigError(f"{TURN_SECRET_VARIABLE} is not set; set it to the static-auth-secret of coturn")
    credentials = turn_credentials(secret, time.time(), lifetime_s)
    sys.stdout.write(f"--turn-user {credentials.user} --turn-password {credentials.password}\n")


def _parser() -> argparse.ArgumentParser:
    limits = RoomLimits()
    parser = argparse.ArgumentParser(
        prog="python -m signaling",
        description="A rendezvous for two sides that cannot reach each other: receivers hold rooms open over "
        "a WebSocket, callers POST their offers to a room. Sound and picture do not pass through it.",
        epilog=f"{HOST_TOKEN_VARIABLE}: the token that receivers must give to open a room (default: none). "
        f"{TURN_SECRET_VARIABLE}: the secret shared with coturn, for --turn-credentials.",
    )
    parser.add_argument("--listen", default="127.0.0.1:8080", metavar="HOST:PORT", help="default %(default)s")
    parser.add_argument("--max-rooms", type=int, default=limits.max_rooms, help="default %(default)s")
    parser.add_argument(
        "--room-lifetime",
        type=int,
        default=limits.lifetime_s,
        metavar="SECONDS",
        help="a room ends after this time; calls go on (default %(default)s)",
    )
    parser.add_argument(
        "--turn-credentials",
        action="store_true",
        help="print credentials for avcall send and receive, and exit",
    )
    parser.add_argument(
        "--turn-lifetime", type=int, default=12 * 3600, metavar="SECONDS", help="default %(default)s"
    )
    return parser


if __name__ == "__main__":
    sys.exit(main())
