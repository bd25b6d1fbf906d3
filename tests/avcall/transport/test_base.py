"""The inbox and the message limits that every transport shares."""

import pytest

from avcall.errors import PeerLostError, TransportClosedError
from avcall.transport.base import (
    INBOX_CAPACITY,
    MAX_MESSAGE_BYTES,
    Channel,
    Datagram,
    Inbox,
    WireCounter,
    check_message,
)


def datagram(text: str) -> Datagram:
    return Datagram(Channel.MEDIA, text.encode(), 0.0)


@pytest.mark.parametrize("size_bytes", [0, MAX_MESSAGE_BYTES + 1])
def test_a_message_of_a_wrong_size_is_refused(size_bytes: int) -> None:
    with pytest.raises(ValueError, match="1 to 1200 bytes"):
        check_message(Channel.CONTROL, bytes(size_bytes))


def test_a_message_of_the_limit_passes() -> None:
    check_message(Channel.CONTROL, bytes(1))
    check_message(Channel.CONTROL, bytes(MAX_MESSAGE_BYTES))


def test_a_full_inbox_drops_the_oldest_and_counts_it() -> None:
    counter = WireCounter()
    inbox = Inbox(counter)
    for index in range(INBOX_CAPACITY + 2):
        inbox.put(datagram(str(index)))
    assert inbox.poll() == datagram("2")
    assert counter.snapshot().discarded == 2


def test_what_arrived_before_the_end_is_still_delivered() -> None:
    inbox = Inbox(WireCounter())
    inbox.put(datagram("bye"))
    inbox.end(PeerLostError("gone"))
    assert inbox.poll() == datagram("bye")
    for _ in range(2):
        with pytest.raises(PeerLostError, match="gone"):
            inbox.poll()


def test_the_first_end_stays_and_nothing_is_added_after_it() -> None:
    counter = WireCounter()
    inbox = Inbox(counter)
    inbox.end(PeerLostError("gone"))
    inbox.end(TransportClosedError("closed"))
    inbox.put(datagram("late"))
    with pytest.raises(PeerLostError):
        inbox.poll()
    assert counter.snapshot().discarded == 1


async def test_a_waiting_reader_is_woken_by_the_end() -> None:
    inbox = Inbox(WireCounter())
    inbox.end(PeerLostError("gone"))
    await inbox.wait_changed()
