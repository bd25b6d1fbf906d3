"""Which keyframes are live: four places, one for each index modulo 4.

Both ends follow this rule, so the sender decides by the index alone which keyframe gives way to a new one.
"""

from collections.abc import Iterator
from typing import Generic, TypeVar

MAX_LIVE_KEYFRAMES = 4

T = TypeVar("T")


class LiveKeyframes(Generic[T]):
    """What one end holds of each live keyframe, by index."""

    def __init__(self) -> None:
        self._places: dict[int, tuple[int, T]] = {}

    def put(self, index: int, value: T) -> None:
        """Make keyframe `index` live, in the place of the one whose index is equal modulo 4."""
        self._places[index % MAX_LIVE_KEYFRAMES] = (index, value)

    def get(self, index: int) -> T | None:
        """What is held of keyframe `index`; None when it is not live."""
        held, value = self._places.get(index % MAX_LIVE_KEYFRAMES, (None, None))
        return value if held == index else None

    def drop(self, index: int) -> None:
        """Forget keyframe `index`, if it is live."""
        if index in self:
            del self._places[index % MAX_LIVE_KEYFRAMES]

    def clear(self) -> None:
        """Forget all."""
        self._places.clear()

    def values(self) -> Iterator[T]:
        """What is held, place by place."""
        return (value for _, (_, value) in sorted(self._places.items()))

    def __contains__(self, index: int) -> bool:
        return self._places.get(index % MAX_LIVE_KEYFRAMES, (None,))[0] == index

    def __len__(self) -> int:
        return len(self._places)
