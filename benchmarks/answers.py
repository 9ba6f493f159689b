"""What a model answered, image by image, small enough to stand in a result row; and how two rows' answers differ."""

from __future__ import annotations

from dataclasses import dataclass

from exporter.proportions import Interval


@dataclass(frozen=True)
class Answers:
    """One configuration's answers on n images, packed: so that rows of different runs are compared image by image.

    Attributes:
        images: how many.
        classes: how many the model tells apart.
        labels: the classes' names; ``None`` where they have none.
        asked: SHA-256 of the images' places in the data set and of their true classes: rows with the same one were
            asked the same.
        packed: base64 of the compressed arrays.
    """

    images: int
    classes: int
    labels: tuple[str, ...] | None
    asked: str
    packed: str


@dataclass(frozen=True)
class Flips:
    """Images whose best class is another than the reference row's.

    Attributes:
        better, worse: that this row alone, or the reference alone, has right; 0 where there is no truth.
        p_value: McNemar's exact test of these two; ``None`` where there is no truth.
        near_ties: flips where both rows' two best logits lie nearer to each other than the two rows' logits do.
        real: the others.
        real_share_interval: 95 %, of the real flips among all images.
    """

    better: int
    worse: int
    p_value: float | None
    near_ties: int
    real: int
    real_share_interval: Interval
