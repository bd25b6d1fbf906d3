"""Room messages: what is written is read back, and nothing else is read."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from avcall.errors import SignalingError
from signaling.messages import (
    MAX_FRAME_BYTES,
    MAX_SDP_BYTES,
    Answer,
    Hangup,
    Offer,
    Refusal,
    RoomMessage,
    RoomOpened,
    bearer_token,
    check_sdp,
    parse,
    serialize,
)

SDP = 'v=0\r\no=- 1 1 IN IP4 0.0.0.0\r\ns="x"\r\n'
MESSAGES: list[RoomMessage] = [
    RoomOpened("/rooms/abc_-1", 3600),
    Offer("s1", SDP, "secret"),
    Offer("s1", SDP, None),
    Hangup("s1"),
    Answer("s1", SDP),
    Refusal("s1", 409, "already in a call"),
]


@pytest.mark.parametrize("message", MESSAGES, ids=lambda message: type(message).__name__)
def test_a_message_survives_the_wire(message: RoomMessage) -> None:
    assert parse(serialize(message)) == message


def test_the_largest_offer_fits_a_frame() -> None:
    sdp = "v=0\r\n" + "\r\n" * ((MAX_SDP_BYTES - 5) // 2)
    frame = serialize(Offer("s" * 64, sdp, "t" * 256))
    assert len(frame) <= MAX_FRAME_BYTES
    assert parse(frame) == Offer("s" * 64, sdp, "t" * 256)


@pytest.mark.parametrize(
    ("text", "named"),
    [
        ("", "JSON"),
        ("[" * 100_000, "JSON"),
        ("[]", "object"),
        ("{}", "type"),
        ('{"type":["offer"]}', "type"),
        ('{"type":"hangup"}', "session"),
        ('{"type":"hangup","session":"a","more":1}', "session"),
        ('{"type":"hangup","session":"../a"}', "session"),
        ('{"type":"hangup","session":""}', "session"),
        ('{"type":"hangup","session":7}', "session"),
        ('{"type":"hangup","session":"' + "a" * 65 + '"}', "session"),
        ('{"type":"answer","session":"a","sdp":null}', "sdp"),
        ('{"type":"answer","session":"a","sdp":"v=1"}', "v=0"),
        ('{"type":"refusal","session":"a","status":200,"reason":""}', "status"),
        ('{"type":"refusal","session":"a","status":409,"reason":"\\u001b[2J"}', "reason"),
        ('{"type":"room","path":"/rooms/a?b","lifetime_s":1}', "path"),
        ('{"type":"room","path":"/rooms/a","lifetime_s":true}', "lifetime_s"),
        ('{"type":"room","path":"/rooms/a","lifetime_s":0}', "lifetime_s"),
        ('{"type":"offer","session":"a","sdp":"v=0\\n","token":"two words"}', "token"),
        ("x" * (MAX_FRAME_BYTES + 1), str(MAX_FRAME_BYTES)),
    ],
)
def test_a_broken_message_is_refused_by_name(text: str, named: str) -> None:
    with pytest.raises(SignalingError, match=named):
        parse(text)


@given(st.data())
def test_a_damaged_message_never_raises_anything_else(data: st.DataObject) -> None:
    frame = serialize(data.draw(st.sampled_from(MESSAGES)))
    start = data.draw(st.integers(0, len(frame)))
    frame = frame[:start] + data.draw(st.text(max_size=8)) + frame[start + data.draw(st.integers(0, 8)) :]
    try:
        message = parse(frame)
    except SignalingError:
        return
    assert parse(serialize(message)) == message


@given(st.recursive(st.none() | st.booleans() | st.floats() | st.text(), st.lists, max_leaves=5))
def test_a_field_of_any_other_kind_is_refused(value: object) -> None:
    for name in ("session", "sdp"):
        fields = {"type": "answer", "session": "a", "sdp": SDP} | {name: value}
        try:
            parse(json.dumps(fields))
        except SignalingError:
            continue
        assert isinstance(value, str)


@pytest.mark.parametrize("text", ["", "v=0", "o=-\r\nv=0", "v=0\r\n\x00", "v=0\r\n\u00e9"])
def test_what_is_no_session_description_is_refused(text: str) -> None:
    with pytest.raises(SignalingError):
        check_sdp(text)


def test_a_session_description_over_its_limit_is_refused() -> None:
    whole = "v=0\n" + "x" * (MAX_SDP_BYTES - 4)
    assert check_sdp(whole) == whole
    with pytest.raises(SignalingError, match=str(MAX_SDP_BYTES)):
        check_sdp(whole + "x")


@pytest.mark.parametrize(
    ("header", "token"),
    [
        ("Bearer abc", "abc"),
        ("bearer abc", "abc"),
        (None, None),
        ("", None),
        ("Bearer", None),
        ("Bearer ", None),
        ("Bearer a b", None),
        ("Basic abc", None),
        ("Bearer " + "a" * 257, None),
        ("Bearer \u00e9", None),
    ],
)
def test_the_token_of_a_header(header: str | None, token: str | None) -> None:
    assert bearer_token(header) == token
