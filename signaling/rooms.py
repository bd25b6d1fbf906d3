"""Who may call, and where: the door of a receiver, the rooms of a rendezvous. Pure; time is an argument."""

import hmac
import secrets
from collections import deque
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field

from avcall.errors import AvcallError, ConfigError
from signaling.messages import MAX_LIFETIME_S, MAX_REASON_CHARS, RefusedError, check_sdp

NAME_BYTES = 16  # randomness in the name of a room or a session: nobody guesses 128 bits
MAX_KNOWN_SESSIONS = 8  # answered sessions that a room remembers, so that a caller may end the last ones

OnOffer = Callable[[str], Awaitable[str]]  # takes the offer's SDP, gives the answer's
OnDelete = Callable[[], Awaitable[None]]  # the caller ended the call


class Door:
    """Lets in one caller at a time, who must know the token (None: no token is asked for)."""

    def __init__(self, token: str | None) -> None:
        self._token = token
        self._session: str | None = None

    @property
    def session(self) -> str | None:
        """The session that is inside; None when the door is free."""
        return self._session

    def check_token(self, presented: str | None) -> None:
        """Raises RefusedError 401 unless `presented` is the token; compared in constant time."""
        if self._token is None:
            return
        if presented is None or not hmac.compare_digest(presented.encode(), self._token.encode()):
            raise RefusedError(401, "the token is wrong or missing")

    def enter(self, session: str) -> None:
        """Occupy the door. Raises RefusedError 409 when somebody is inside."""
        if self._session is not None:
            raise RefusedError(409, "already in a call")
        self._session = session

    def leave(self, session: str | None) -> bool:
        """Free the door if `session` is inside; says whether it was."""
        if session is None or session != self._session:
            return False
        self._session = None
        return True

    async def answer(self, session: str, sdp: str, on_offer: OnOffer) -> str:
        """Let `session` in and get the answer to its offer.

        Raises RefusedError 409 when somebody is inside, and as `on_offer` says; then the door is free again.
        """
        self.enter(session)
        answered = False
        try:
            answer = check_sdp(await on_offer(sdp))
            answered = True
            return answer
        except RefusedError:
            raise
        except AvcallError as error:
            raise RefusedError(400, printable(str(error))) from error
        finally:
            if not answered:
                self.leave(session)


@dataclass(frozen=True, slots=True)
class RoomLimits:
    """The bounds of a rendezvous. Raises ConfigError for a bound that lets nobody in."""

    max_rooms: int = 256
    lifetime_s: int = 4 * 3600
    max_pending_per_room: int = 4
    max_pending: int = 64

    def __post_init__(self) -> None:
        if min(self.max_rooms, self.max_pending_per_room, self.max_pending) < 1:
            raise ConfigError("the number of rooms and of pending offers must be at least 1")
        if not 1 <= self.lifetime_s <= MAX_LIFETIME_S:
            raise ConfigError(f"the lifetime of a room must be 1 to {MAX_LIFETIME_S} seconds")


@dataclass(slots=True)
class _Room:
    expires_ms: float
    pending: set[str] = field(default_factory=set)
    answered: deque[str] = field(default_factory=lambda: deque(maxlen=MAX_KNOWN_SESSIONS))


class RoomRegistry:
    """The rooms that are open, and the offers that wait for their hosts."""

    def __init__(self, limits: RoomLimits) -> None:
        self._limits = limits
        self._rooms: dict[str, _Room] = {}

    def __len__(self) -> int:
        return len(self._rooms)

    def open(self, now_ms: float) -> str:
        """The random name of a new room. Raises RefusedError 503 when there are too many."""
        self._expire(now_ms)
        if len(self._rooms) >= self._limits.max_rooms:
            raise RefusedError(503, "all rooms are taken")
        name = random_name()
        self._rooms[name] = _Room(now_ms + self._limits.lifetime_s * 1000)
        return name

    def close(self, room: str) -> None:
        """Forget `room`; unknown names are fine."""
        self._rooms.pop(room, None)

    def require(self, room: str, now_ms: float) -> None:
        """Raises RefusedError 404 when `room` does not exist or has expired."""
        self._expire(now_ms)
        if room not in self._rooms:
            raise RefusedError(404, "no such room; it may have expired")

    def begin_offer(self, room: str, now_ms: float) -> str:
        """The random name of a session that waits for the host of `room`.

        Raises RefusedError 404 when the room does not exist or has expired, 429 when too many offers wait.
        """
        self.require(room, now_ms)
        waiting = sum(len(other.pending) for other in self._rooms.values())
        here = len(self._rooms[room].pending)
        if here >= self._limits.max_pending_per_room or waiting >= self._limits.max_pending:
            raise RefusedError(429, "too many offers wait; try again in a minute")
        session = random_name()
        self._rooms[room].pending.add(session)
        return session

    def finish_offer(self, room: str, session: str, answered: bool) -> None:
        """`session` waits no more; if it was `answered`, its caller may end it later."""
        entry = self._rooms.get(room)
        if entry is not None and session in entry.pending:
            entry.pending.discard(session)
            if answered:
                entry.answered.append(session)

    def end_session(self, room: str, session: str, now_ms: float) -> None:
        """The caller ends an answered session. Raises RefusedError 404 when there is no such session."""
        self._expire(now_ms)
        entry = self._rooms.get(room)
        if entry is None or session not in entry.answered:
            raise RefusedError(404, "no such session")
        entry.answered.remove(session)

    def _expire(self, now_ms: float) -> None:
        for name in [name for name, room in self._rooms.items() if room.expires_ms <= now_ms]:
            del self._rooms[name]


def random_name() -> str:
    """A name that cannot be guessed, safe in a URL."""
    return secrets.token_urlsafe(NAME_BYTES)


def printable(text: str) -> str:
    """`text` as a reason that fits a refusal."""
    return "".join(char if " " <= char <= "~" else "?" for char in text)[:MAX_REASON_CHARS]
