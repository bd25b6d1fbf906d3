from avcall.bitstream.live import MAX_LIVE_KEYFRAMES, LiveKeyframes


def test_four_are_live_and_a_fifth_takes_the_place_of_the_one_equal_modulo_four() -> None:
    live: LiveKeyframes[str] = LiveKeyframes()
    for index in (0, 1, 2, 3, 6):
        live.put(index, f"number {index}")
    assert len(live) == MAX_LIVE_KEYFRAMES
    assert 2 not in live and live.get(2) is None
    assert live.get(6) == "number 6"
    assert list(live.values()) == ["number 0", "number 1", "number 6", "number 3"]


def test_a_keyframe_that_comes_again_replaces_itself() -> None:
    live: LiveKeyframes[int] = LiveKeyframes()
    live.put(5, 1)
    live.put(5, 2)
    assert (len(live), live.get(5)) == (1, 2)


def test_dropping_forgets_that_keyframe_only() -> None:
    live: LiveKeyframes[int] = LiveKeyframes()
    live.put(1, 1)
    live.put(2, 2)
    live.drop(5)  # of the same place as 1, but not live
    live.drop(2)
    assert 1 in live and 2 not in live
    live.clear()
    assert len(live) == 0 and live.get(1) is None
