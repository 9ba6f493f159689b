"""What an input or an output of a network is, and the types of its arrays. NumPy itself is not imported here."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeAlias

if TYPE_CHECKING:
    from typing import Any

    from numpy.typing import NDArray

Array: TypeAlias = "NDArray[Any]"
Arrays: TypeAlias = "dict[str, NDArray[Any]]"
Feeds: TypeAlias = "Mapping[str, NDArray[Any]]"


@dataclass(frozen=True)
class TensorSpec:
    """One input or output. ``dtype`` is NumPy's name; a dimension is a size, or a name where it may vary."""

    name: str
    dtype: str
    shape: tuple[int | str, ...]

    def __str__(self) -> str:
        return f"{self.name}: {self.dtype} ({', '.join(map(str, self.shape))})"

    @property
    def fixed_batch(self) -> int | None:
        """The number of images in each call, if the network takes one number only; else ``None``."""
        first = self.shape[0] if self.shape else None
        return first if isinstance(first, int) else None
