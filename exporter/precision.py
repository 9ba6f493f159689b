"""The precisions that a graph can be typed in, one row each."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Precision:
    """A row of ``PRECISIONS``.

    ``tolerance`` bounds the parity gate: the largest difference of a logit from fp32 PyTorch over the largest
    absolute logit of the test vectors.
    """

    name: str
    tolerance: float


PRECISIONS: dict[str, Precision] = {
    row.name: row
    for row in (
        # Folding batch-norm and summing in another order cost 1e-7 to 1e-6, at 152 and 1202 layers as well, and 5e-6
        # in plain110, whose differences no shortcut bounds.
        Precision("fp32", tolerance=5e-5),
    )
}
