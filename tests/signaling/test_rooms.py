"""The door of a receiver and the rooms of a rendezvous, with the time as an argument."""

import pytest

from avcall.errors import ConfigError, SignalingError
from signaling.messages import RefusedError
from signaling.rooms import MAX_KNOWN_SESSIONS, Door, RoomLimits, RoomRegistry

SDP = "v=0\r\n"


async def echo(sdp: str) -> str:
    return sdp


def status_of(error: pytest.ExceptionInfo[RefusedError]) -> int:
    return error.value.status


@pytest.mark.parametrize("presented", [None, "", "secre", "secret2", "s\u00e9cret"])
def test_a_wrong_token_is_refused(presented: str | None) -> None:
    with pytest.raises(RefusedError) as error:
        Door("secret").check_token(presented)
    assert status_of(error) == 401


def test_the_right_token_passes_and_no_token_is_asked_where_there_is_none() -> None:
    Door("secret").check_token("secret")
    Door(None).check_token(None)
    Door(None).check_token("whatever")


async def test_a_second_caller_finds_the_line_busy_until_the_first_has_left() -> None:
    door = Door(None)
    assert await door.answer("first", SDP, echo) == SDP
    with pytest.raises(RefusedError) as error:
        await door.answer("second", SDP, echo)
    assert status_of(error) == 409
    assert not door.leave("second")
    assert door.leave("first")
    assert not door.leave("first")
    assert not door.leave(None)
    assert await door.answer("second", SDP, echo) == SDP


async def test_an_offer_that_fails_frees_the_door_and_says_why_in_printable_text() -> None:
    async def fails(_: str) -> str:
        raise SignalingError("bad\noffer \u00e9")

    door = Door(None)
    with pytest.raises(RefusedError, match=r"bad\?offer \?") as error:
        await door.answer("first", SDP, fails)
    assert status_of(error) == 400
    assert door.session is None


async def test_a_bug_behind_the_door_frees_it_too() -> None:
    async def breaks(_: str) -> str:
        raise RuntimeError("bug")

    door = Door(None)
    with pytest.raises(RuntimeError):
        await door.answer("first", SDP, breaks)
    assert door.session is None


def test_rooms_have_names_of_their_own_and_are_bounded() -> None:
    registry = RoomRegistry(RoomLimits(max_rooms=2))
    first, second = registry.open(0), registry.open(0)
    assert first != second
    assert len(first) >= 22
    with pytest.raises(RefusedError) as error:
        registry.open(0)
    assert status_of(error) == 503
    registry.close(first)
    registry.close(first)
    registry.open(0)
    assert len(registry) == 2


def test_a_room_expires_and_makes_place() -> None:
    registry = RoomRegistry(RoomLimits(max_rooms=1, lifetime_s=10))
    room = registry.open(0)
    registry.begin_offer(room, 9_999)
    with pytest.raises(RefusedError) as error:
        registry.begin_offer(room, 10_000)
    assert status_of(error) == 404
    registry.open(10_000)


def test_waiting_offers_are_bounded_in_a_room_and_altogether() -> None:
    registry = RoomRegistry(RoomLimits(max_pending_per_room=2, max_pending=3))
    first, second = registry.open(0), registry.open(0)
    session = registry.begin_offer(first, 0)
    registry.begin_offer(first, 0)
    with pytest.raises(RefusedError) as error:
        registry.begin_offer(first, 0)
    assert status_of(error) == 429
    registry.begin_offer(second, 0)
    with pytest.raises(RefusedError) as error:
        registry.begin_offer(second, 0)
    assert status_of(error) == 429
    registry.finish_offer(first, session, answered=False)
    registry.begin_offer(second, 0)


def test_only_an_answered_session_can_be_ended_and_only_once() -> None:
    registry = RoomRegistry(RoomLimits())
    room = registry.open(0)
    session = registry.begin_offer(room, 0)
    with pytest.raises(RefusedError):
        registry.end_session(room, session, 0)
    registry.finish_offer(room, session, answered=True)
    with pytest.raises(RefusedError):
        registry.end_session("other", session, 0)
    registry.end_session(room, session, 0)
    with pytest.raises(RefusedError) as error:
        registry.end_session(room, session, 0)
    assert status_of(error) == 404


def test_a_room_remembers_its_last_sessions_only() -> None:
    registry = RoomRegistry(RoomLimits())
    room = registry.open(0)
    sessions = [registry.begin_offer(room, 0) for _ in range(1)]
    for _ in range(MAX_KNOWN_SESSIONS):
        registry.finish_offer(room, sessions[-1], answered=True)
        sessions.append(registry.begin_offer(room, 0))
    registry.finish_offer(room, sessions[-1], answered=True)
    with pytest.raises(RefusedError):
        registry.end_session(room, sessions[0], 0)
    registry.end_session(room, sessions[1], 0)


@pytest.mark.parametrize(
    "bounds", [{"max_rooms": 0}, {"max_pending": 0}, {"lifetime_s": 0}, {"lifetime_s": 10**9}]
)
def test_bounds_that_let_nobody_in_are_refused(bounds: dict[str, int]) -> None:
    with pytest.raises(ConfigError):
        RoomLimits(**bounds)
