"""The parts in which a batch is run, each with the profile that suits it."""

from __future__ import annotations

from dataclasses import dataclass

from runtimes.artifacts.manifest import Profile


@dataclass(frozen=True)
class Piece:
    """A part of a batch.

    Attributes:
        start: The number of the first image.
        count: The number of images.
        profile: The number of the profile that runs the piece.
    """

    start: int
    count: int
    profile: int


def pieces(images: int, profiles: tuple[Profile, ...]) -> tuple[Piece, ...]:
    """Return the pieces in which a batch is run.

    There is one piece if a profile allows the batch, and otherwise pieces of the largest batch of all profiles. Each
    piece is run with the profile that needs the least padding, and among those with the one of the smallest maximum.

    Args:
        images: The batch size.
        profiles: The optimisation profiles.
    """
    largest = max(row.most for row in profiles)
    result = []
    for start in range(0, images, largest):
        count = min(largest, images - start)
        able = [number for number, row in enumerate(profiles) if count <= row.most]
        best = min(able, key=lambda number: (max(count, profiles[number].least), profiles[number].most))
        result.append(Piece(start, count, best))
    return tuple(result)
