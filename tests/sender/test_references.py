import itertools

import pytest

from avcall.bitstream.packet import KEYFRAME_INDICES
from avcall.types import HeldKeyframe, Keypoints
from sender.encode import EncodedKeyframe
from sender.references import (
    BAD_FOR_MS,
    ORDER_GAP_MS,
    RETRY_MS,
    SERVES_ERROR,
    STAY_MS,
    Estimate,
    KeyframeBudget,
    ReferenceSet,
    distance,
)
from tests.fakes import grey_picture, still_keypoints

KEYFRAME_BYTES = 4000
MINUTE_BITS = 2 * KEYFRAME_BYTES * 8  # of two keyframes


def pose(x: float) -> Keypoints:
    """A pose that is |x - y| away from pose(y)."""
    return still_keypoints(x / 10**0.5)


def keyframe(
    index: int, x: float = 0.0, *, preliminary: bool = False, instead_of: int | None = None
) -> EncodedKeyframe:
    held = HeldKeyframe(grey_picture(0), pose(x), None)
    return EncodedKeyframe(index, (bytes(KEYFRAME_BYTES),), 100, held, preliminary, instead_of)


def references(*held: EncodedKeyframe, budget_bits: float = 0.0) -> ReferenceSet:
    """A set whose keyframes are acknowledged, in this order."""
    made = ReferenceSet(KeyframeBudget(budget_bits), KEYFRAME_BYTES)
    for one in held:
        made.push(one, 0)
        made.acknowledge(one.index, 0)
    return made


def chosen(made: ReferenceSet, x: float, start_ms: int, end_ms: int) -> list[int | None]:
    """The choice of every frame from `start_ms` to `end_ms` in one pose."""
    return [made.choose(pose(x), pts_ms) for pts_ms in range(start_ms, end_ms, 40)]


def orders(made: ReferenceSet, x: float, start_ms: int, end_ms: int) -> dict[int, int]:
    """The keyframes ordered while the head is in one pose: time and index."""
    found = {}
    for pts_ms in range(start_ms, end_ms, 40):
        made.choose(pose(x), pts_ms)
        if (index := made.order(pts_ms)) is not None:
            found[pts_ms] = index
    return found


def test_distance_is_that_of_the_motion_coders_coefficients() -> None:
    assert distance(pose(0.3), pose(0.3)) == 0
    assert distance(pose(0.1), pose(0.4)) == pytest.approx(0.3, abs=1e-6)


def test_nothing_is_animated_before_it_is_acknowledged() -> None:
    made = ReferenceSet()
    assert made.choose(pose(0), 0) is None and made.candidates == ()
    made.push(keyframe(0), 0)
    assert made.choose(pose(0), 40) is None
    made.acknowledge(3, 80)  # never sent
    assert made.choose(pose(0), 80) is None
    made.acknowledge(0, 120)
    assert made.choose(pose(0), 120) == 0
    assert [one.index for one in made.candidates] == [0]


def test_motion_moves_from_the_rough_picture_to_the_better_one_for_good() -> None:
    made = ReferenceSet()
    made.push(keyframe(0, preliminary=True), 0)
    made.push(keyframe(1, x=0.5), 0)
    made.acknowledge(0, 40)
    assert made.choose(pose(0), 40) == 0
    made.acknowledge(1, 80)
    assert set(chosen(made, 0, 80, 5000)) == {1}
    made.acknowledge(0, 5000)  # a repeat
    assert made.choose(pose(0), 5000) == 1


def test_an_acknowledgement_of_the_rough_picture_that_comes_late_changes_nothing() -> None:
    made = ReferenceSet()
    made.push(keyframe(0, preliminary=True), 0)
    made.push(keyframe(1), 0)
    made.acknowledge(1, 40)
    made.acknowledge(0, 80)
    assert made.choose(pose(0), 80) == 1


def sharpened(*held: EncodedKeyframe) -> ReferenceSet:
    """The first of `held` is to be sent once more; all are acknowledged."""
    made = ReferenceSet(sharp_bytes=3 * KEYFRAME_BYTES)
    for one in held:
        made.push(one, 0)
        made.acknowledge(one.index, 0)
    return made


def test_the_first_picture_is_ordered_once_more_when_a_minute_carries_it_and_only_once() -> None:
    made = sharpened(keyframe(0, preliminary=True), keyframe(1))
    assert made.order_sharper(0, 24 * KEYFRAME_BYTES - 1) is None
    assert made.order_sharper(40, 24 * KEYFRAME_BYTES) == 2
    assert made.order_sharper(80, 1e9) is None and made.order_sharper(RETRY_MS + 80, 1e9) is None
    assert references(keyframe(0)).order_sharper(0, 1e9) is None  # nobody wants it


def test_only_the_first_full_picture_is_sent_once_more_and_nothing_else_may_be_on_its_way() -> None:
    rough = ReferenceSet(sharp_bytes=KEYFRAME_BYTES)
    rough.push(keyframe(0, preliminary=True), 0)
    rough.push(keyframe(1), 0)
    assert rough.order_sharper(0, 1e9) is None
    rough.acknowledge(0, 40)
    assert rough.order_sharper(40, 1e9) is None
    rough.acknowledge(1, 80)
    assert rough.order_sharper(80, 1e9) == 2
    turned = sharpened(keyframe(0, 0.0), keyframe(1, 1.0))
    turned.choose(pose(1.0), 40)
    assert turned.order_sharper(40, 1e9) is None
    waiting = sharpened(keyframe(0))
    waiting.push(keyframe(1, 1.0), 0)
    assert waiting.order_sharper(40, 1e9) is None


def test_motion_moves_to_the_sharp_picture_and_the_coarse_one_gives_its_place_away() -> None:
    made = sharpened(keyframe(0), keyframe(1, 1.0))
    assert made.choose(pose(0.0), STAY_MS) == 0
    made.push(keyframe(2, 0.0, instead_of=0), 3000)
    assert made.choose(pose(0.0), 3000) == 0
    made.acknowledge(2, 3040)
    assert made.choose(pose(0.0), 3040) == 2
    assert {one.index for one in made.candidates} == {1, 2}
    made.push(keyframe(made.next_index(), 0.5), 4000)
    assert made.next_index() == 4  # where keyframe 0 was


def test_a_sharp_picture_that_comes_while_another_is_in_use_waits_for_its_pose() -> None:
    made = sharpened(keyframe(0, 0.0), keyframe(1, 1.0))
    assert made.choose(pose(1.0), 40) == 1
    made.push(keyframe(2, 0.0, instead_of=0), 2000)
    made.acknowledge(2, 2040)
    assert made.choose(pose(1.0), 2080) == 1
    assert made.choose(pose(0.0), 4000) == 2


def test_beside_a_sharp_picture_a_coarse_one_has_to_be_nearer() -> None:
    level = references(keyframe(0, 0.0), keyframe(1, 0.3))
    unlike = references(keyframe(0, 0.0), keyframe(1, 0.3), keyframe(2, 0.0, instead_of=0))
    assert level.choose(pose(0.28), 2 * STAY_MS) == 1
    for made, index in ((level, 1), (unlike, 2)):
        made.measured((Estimate(1, 0.020, 0.02), Estimate(0, 0.017, 0.28), Estimate(2, 0.017, 0.28)))
        assert made.choose(pose(0.28), 4 * STAY_MS) == index


def test_the_nearest_reference_is_animated_but_changed_only_for_a_clear_gain() -> None:
    made = references(keyframe(0, 0.0), keyframe(1, 1.0))
    assert made.choose(pose(1.0), 40) == 1
    assert set(chosen(made, 0.48, 40, 4000)) == {1}  # a little nearer to the other
    assert chosen(made, 0.1, 4000, 4080) == [0, 0]


def test_a_reference_is_kept_for_a_while() -> None:
    made = references(keyframe(0, 0.0), keyframe(1, 1.0))
    swaying = [made.choose(pose(pts_ms // 200 % 2), pts_ms) for pts_ms in range(0, 10_000, 40)]
    changes = sum(a != b for a, b in itertools.pairwise(swaying))
    assert 0 < changes <= 10_000 / STAY_MS


def test_what_was_measured_outweighs_the_distance() -> None:
    made = references(keyframe(0, 0.0), keyframe(1, 0.5))
    made.measured((Estimate(1, 0.09, 0.1), Estimate(0, 0.02, 0.4), Estimate(77, 0.0, 0.0)))
    assert chosen(made, 0.4, STAY_MS, STAY_MS + 80) == [0, 0]


def test_a_new_keyframe_is_ordered_once_none_has_served_for_a_while() -> None:
    made = references(keyframe(0), budget_bits=MINUTE_BITS)
    assert orders(made, 0.2, 0, 3000) == {}
    found = orders(made, 1.0, 3000, 3000 + RETRY_MS)
    assert list(found) == [3000 + BAD_FOR_MS] and list(found.values()) == [1]
    made.push(keyframe(1, 1.0), 20_000)
    made.acknowledge(1, 20_000)
    assert orders(made, 1.0, 20_000, 60_000) == {}
    assert set(chosen(made, 1.0, 60_000, 61_000)) == {1}


def test_a_short_gesture_orders_nothing() -> None:
    made = references(keyframe(0), budget_bits=MINUTE_BITS)
    for start_ms in range(0, 10_000, 600):
        assert orders(made, 1.0, start_ms, start_ms + BAD_FOR_MS) == {}
        assert orders(made, 0.0, start_ms + BAD_FOR_MS, start_ms + 600) == {}


def test_a_measured_error_orders_a_keyframe_in_the_same_pose() -> None:
    """The light or the background has changed."""
    made = references(keyframe(0), budget_bits=MINUTE_BITS)
    made.measured((Estimate(0, 0.01, 0.0),))
    assert orders(made, 0.0, 0, 2000) == {}
    made.measured((Estimate(0, SERVES_ERROR + 0.01, 0.0),))
    assert list(orders(made, 0.0, 2000, 4000)) == [2000 + BAD_FOR_MS]


def test_a_picture_that_no_keyframe_could_serve_better_orders_none() -> None:
    """A camera that flickers: even a fresh keyframe is far from the next picture."""
    made = references(keyframe(0), budget_bits=MINUTE_BITS)
    made.measured((Estimate(0, 0.05, 0.0),))
    made.measured((Estimate(0, 0.06, 0.1),))
    assert orders(made, 0.1, 0, 5000) == {}


def test_the_budget_bounds_new_keyframes() -> None:
    made = references(keyframe(0), budget_bits=MINUTE_BITS)
    sent = 0
    for start_ms in range(0, 240_000, 2000):
        ordered = orders(made, start_ms / 1000, start_ms, start_ms + 2000)
        for index in ordered.values():
            made.push(keyframe(index, start_ms / 1000), start_ms + 1900)
            made.acknowledge(index, start_ms + 1960)
            sent += 1
    assert 7 <= sent <= 8  # two a minute


def test_without_a_budget_there_are_no_new_keyframes() -> None:
    assert orders(references(keyframe(0)), 5.0, 0, 60_000) == {}


def test_an_order_that_led_to_nothing_is_given_again() -> None:
    made = references(keyframe(0), budget_bits=MINUTE_BITS)
    first, second = orders(made, 1.0, 0, BAD_FOR_MS + RETRY_MS + 200)
    assert second - first == RETRY_MS


def test_a_new_keyframe_takes_the_place_of_the_one_unused_for_longest() -> None:
    made = references(*(keyframe(index, x=float(index)) for index in range(4)))
    for x in (2.0, 1.0, 3.0, 0.0):
        chosen(made, x, made._changed_ms + STAY_MS, made._changed_ms + STAY_MS + 80)
    assert made.current is not None and made.current.index == 0
    assert made.next_index() == 6  # in the place of number 2
    made.push(keyframe(6, 9.0), 10_000)
    assert [one.index for one in made.candidates] == [0, 1, 3]


def test_a_rough_picture_gives_way_first() -> None:
    made = references(keyframe(0, preliminary=True), *(keyframe(index) for index in (1, 2, 3)))
    assert made.next_index() == 4


def test_free_places_are_taken_first_and_the_numbers_wrap() -> None:
    made = references(keyframe(0), keyframe(1))
    assert made.next_index() == 2
    last = [keyframe(KEYFRAME_INDICES - 4 + place) for place in range(4)]
    wrapped = references(*last)
    assert wrapped.next_index() in range(4)


def test_when_the_place_of_the_present_one_is_taken_another_is_animated() -> None:
    made = references(keyframe(0, 0.0), keyframe(1, 5.0))
    assert made.choose(pose(5.0), 0) == 1
    made.push(keyframe(5, 5.0), 40)
    assert made.choose(pose(5.0), 80) == 0


def test_after_a_complaint_only_the_present_one_is_trusted() -> None:
    made = references(keyframe(0, 0.0), keyframe(1, 1.0))
    missing = made.missing()
    assert missing is not None and missing.index == 1 == made.choose(pose(0.0), 5000)
    assert [one.index for one in made.candidates] == [1]


def test_what_was_never_acknowledged_is_sent_again_first() -> None:
    made = ReferenceSet()
    assert made.missing() is None
    made.push(keyframe(0, preliminary=True), 0)
    assert made.missing() == made._live.get(0).keyframe  # type: ignore[union-attr]
    made.push(keyframe(1), 0)
    for _ in range(2):
        missing = made.missing()
        assert missing is not None and missing.index == 1
        made.acknowledge(0, 0)


def test_new_keyframes_keep_a_distance_even_within_the_budget() -> None:
    made = references(keyframe(0), budget_bits=100 * MINUTE_BITS)
    times: list[int] = []
    for start_ms in range(0, 60_000, 1000):
        for pts_ms, index in orders(made, start_ms / 500, start_ms, start_ms + 1000).items():
            times.append(pts_ms)
            made.push(keyframe(index, start_ms / 500), pts_ms)
            made.acknowledge(index, pts_ms)
    assert len(times) >= 5
    assert min(b - a for a, b in itertools.pairwise(times)) >= ORDER_GAP_MS


def test_a_budget_holds_in_every_minute() -> None:
    budget = KeyframeBudget(60_000)
    assert budget.allows(60_000, 0) and not budget.allows(60_001, 0) and not budget.allows(0, 0)
    budget.spend(40_000, 10_000)
    budget.spend(20_000, 50_000)
    assert not budget.allows(1, 69_999)
    assert budget.allows(40_000, 70_000) and not budget.allows(40_001, 70_000)
    assert budget.allows(60_000, 110_000)
    assert not KeyframeBudget(0).allows(1, 0)
