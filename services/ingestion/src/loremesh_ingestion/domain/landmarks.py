"""Finds code points in UTF-8 without reading all of it: the byte offset of every 65,536th one is kept."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

STRIDE = 1 << 16


@dataclass(frozen=True, slots=True)
class Stretch:
    """Bytes to read (`last` None is up to the end) and, of their code points, how many to skip and take."""

    first: int
    last: int | None
    skip: int
    take: int


def landmarks(pieces: Iterable[str]) -> tuple[list[int], int]:
    """The byte offset of code point 0, STRIDE, 2 * STRIDE ..., and how many code points there are.

    Every piece but the last has STRIDE code points.
    """
    offsets, at, count = [], 0, 0
    for piece in pieces:
        offsets.append(at)
        at += len(piece.encode())
        count += len(piece)
    return offsets, count


def stretch(offsets: Sequence[int], start: int, end: int) -> Stretch:
    """Where the code points `start` to `end` (exclusive) of a text with these landmarks are."""
    after = -(-end // STRIDE)
    return Stretch(
        first=offsets[start // STRIDE],
        last=offsets[after] - 1 if after < len(offsets) else None,
        skip=start % STRIDE,
        take=end - start,
    )
