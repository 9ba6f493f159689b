"""The specification of a network's inputs and outputs, and the types of their arrays. NumPy is not imported here."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, TypeAlias

from runtimes.frozen_dataclass import dataclass

if TYPE_CHECKING:
    from typing import Any

    from numpy.typing import NDArray

Array: TypeAlias = "NDArray[Any]"
"""One NumPy array of any dtype."""

Arrays: TypeAlias = "dict[str, NDArray[Any]]"
"""Arrays by the name of the input or output."""

Feeds: TypeAlias = "Mapping[str, NDArray[Any]]"
"""Input arrays by name, as users pass them."""


@dataclass(frozen=True)
class TensorSpec:
    """The specification of one input or output.

    Attributes:
        name: The name of the input or output.
        dtype: The dtype by NumPy's name, for example ``float32``.
        shape: The size of each dimension, or a name for a dimension that may vary.
    """

    name: str
    dtype: str
    shape: tuple[int | str, ...]

    def __str__(self) -> str:
        """Return the specification as text, for example ``input: float32 (batch, 3, 224, 224)``."""
        return f"{self.name}: {self.dtype} ({', '.join(map(str, self.shape))})"

    @property
    def fixed_batch(self) -> int | None:
        """The number of images in each call, or ``None`` if the network takes any number."""
        first = self.shape[0] if self.shape else None
        return first if isinstance(first, int) else None
