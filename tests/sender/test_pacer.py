import pytest

from avcall.bitstream.keyframe import slice_keyframe
from avcall.transport.base import Channel
from sender.pacer import MAX_CONTROL_MESSAGES, MAX_KEYFRAMES, MAX_MEDIA_MESSAGES, Pacer

SLICES = [b"slice 0", b"slice 1", b"slice 2"]


def test_media_goes_first_then_control_then_one_slice() -> None:
    pacer = Pacer()
    pacer.push_keyframe(SLICES)
    pacer.push_control(b"ack")
    pacer.push_media(b"media", 0)
    assert pacer.pop(0) == [
        (Channel.MEDIA, b"media"),
        (Channel.CONTROL, b"ack"),
        (Channel.CONTROL, b"slice 0"),
    ]
    assert pacer.pending_slices == 2


def test_slices_are_released_one_every_interval() -> None:
    pacer = Pacer(interval_ms=20)
    pacer.push_keyframe(SLICES)
    released = {now_ms: pacer.pop(now_ms) for now_ms in range(0, 100, 5)}
    assert [now_ms for now_ms, messages in released.items() if messages] == [0, 20, 40]
    assert [data for messages in released.values() for _, data in messages] == SLICES


def test_a_late_pop_does_not_release_a_burst() -> None:
    pacer = Pacer(interval_ms=20)
    pacer.push_keyframe(SLICES)
    pacer.pop(0)
    assert len(pacer.pop(1000)) == 1
    assert pacer.pop(1010) == []


def test_a_keyframe_follows_the_one_before_at_the_same_pace() -> None:
    pacer = Pacer(interval_ms=20)
    pacer.push_keyframe([b"small"])
    pacer.pop(0)
    pacer.push_keyframe(SLICES)
    assert pacer.pop(10) == []
    assert pacer.pop(20) == [(Channel.CONTROL, b"slice 0")]


def test_stale_media_is_dropped_before_it_is_sent() -> None:
    pacer = Pacer(max_age_ms=400)
    pacer.push_media(b"old", 0)
    pacer.push_media(b"new", 100)
    assert pacer.pop(500) == [(Channel.MEDIA, b"new")]
    assert pacer.stats().stale_media == 1


def test_every_queue_is_bounded_and_drops_its_oldest() -> None:
    pacer = Pacer()
    for number in range(MAX_MEDIA_MESSAGES + 1):
        pacer.push_media(b"media %d" % number, 0)
    for number in range(MAX_CONTROL_MESSAGES + 2):
        pacer.push_control(b"control %d" % number)
    for number in range(MAX_KEYFRAMES + 1):
        pacer.push_keyframe([b"%d a" % number, b"%d b" % number, b"%d c" % number])
    messages = pacer.pop(0)
    assert messages[0] == (Channel.MEDIA, b"media 1")
    assert messages[MAX_MEDIA_MESSAGES] == (Channel.CONTROL, b"control 2")
    assert messages[-1] == (Channel.CONTROL, b"1 a")
    assert pacer.stats().overflowed == 1 + 2 + 3


def test_counts() -> None:
    pacer = Pacer()
    pacer.push_media(b"m", 0)
    pacer.push_control(b"c")
    pacer.push_keyframe(SLICES)
    pacer.push_keyframe([])
    for now_ms in range(0, 200, 20):
        pacer.pop(now_ms)
    stats = pacer.stats()
    assert (stats.released_media, stats.released_control, stats.released_slices) == (1, 1, 3)
    assert pacer.pending_slices == 0


@pytest.mark.parametrize("options", [{"interval_ms": 0}, {"max_age_ms": 0}])
def test_no_interval_or_age_is_an_error(options: dict) -> None:
    with pytest.raises(ValueError, match="above 0"):
        Pacer(**options)


def test_what_is_not_open_waits_but_control_does_not() -> None:
    pacer = Pacer(max_age_ms=400)
    pacer.push_keyframe(SLICES)
    pacer.push_media(b"media", 0)
    pacer.push_control(b"ack")
    assert pacer.pop(0, media_open=False, slices_open=False) == [(Channel.CONTROL, b"ack")]
    assert pacer.pop(20, slices_open=False) == [(Channel.MEDIA, b"media")]
    assert pacer.pop(40) == [(Channel.CONTROL, b"slice 0")]


def test_media_that_waits_goes_stale() -> None:
    pacer = Pacer(max_age_ms=400)
    pacer.push_media(b"old", 0)
    assert pacer.pop(401, media_open=False) == []
    assert pacer.stats().stale_media == 1


def test_slow_slices_go_right_behind_media_or_when_there_is_none() -> None:
    pacer = Pacer()
    pacer.set_pace(interval_ms=200, slice_bytes=300)
    pacer.push_keyframe(slice_keyframe(bytes(900), 5))
    sent_ms = []
    for now_ms in range(0, 2000, 5):
        if now_ms < 1000 and now_ms % 80 == 0:
            pacer.push_media(b"media", now_ms)
        if any(channel is Channel.CONTROL for channel, _ in pacer.pop(now_ms)):
            sent_ms.append(now_ms)
    assert sent_ms == [0, 240, 480, 720]
    pacer.push_keyframe([b"last"])
    assert pacer.pop(3000) and not pacer.pop(3100)


def test_slices_are_cut_for_the_link_once_a_keyframe() -> None:
    pacer = Pacer()
    pacer.push_keyframe(slice_keyframe(bytes(900), 5))
    pacer.set_pace(interval_ms=20, slice_bytes=304)
    sizes = [len(pacer.pop(0)[0][1])]
    pacer.set_pace(interval_ms=20, slice_bytes=1100)
    sizes += [len(pacer.pop(now_ms)[0][1]) for now_ms in (20, 40)]
    assert sizes == [304, 304, 304] and not pacer.pop(60)
    pacer.push_keyframe(slice_keyframe(bytes(900), 6))
    assert len(pacer.pop(80)[0][1]) == 904
