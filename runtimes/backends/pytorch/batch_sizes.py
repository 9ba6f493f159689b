"""The batch sizes that get code, a recording and a search of their own."""

from __future__ import annotations

import threading

FIXED_BATCHES = 6
"""The number of batch sizes that are prepared. ``torch.compile`` allows 8 variants of a function."""


class FirstBatches:
    """The first batch sizes that are asked for. Preparing takes seconds and memory, so later ones are not prepared.

    Many threads may use the object at once.
    """

    def __init__(self) -> None:
        self._sizes: set[int] = set()
        self._lock = threading.Lock()

    def admit(self, batch: int) -> bool:
        """Return whether the batch size is one of the first, and make it one while there is room."""
        with self._lock:
            if len(self._sizes) < FIXED_BATCHES:
                self._sizes.add(batch)
            return batch in self._sizes

    @property
    def sizes(self) -> tuple[int, ...]:
        """The batch sizes so far, in ascending order."""
        with self._lock:
            return tuple(sorted(self._sizes))
