"""The pool of lanes of one profile."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from runtimes.backends.tensorrt.streams import EngineLane
from runtimes.errors import DeviceLostError, InputError, ResourceError


class Pool:
    """The lanes of one profile, which are created when needed. A thread waits if all lanes are in use.

    Args:
        make: Creates a lane.
        limit: The largest number of lanes.
    """

    def __init__(self, make: Callable[[], EngineLane], limit: int) -> None:
        self._make = make
        self._limit = limit
        self._idle: list[EngineLane] = []
        self._count = 0
        self._changed = threading.Condition()

    @contextmanager
    def lane(self) -> Iterator[EngineLane]:
        """Yield a lane that no other thread uses during the ``with`` block. After an error, the lane is freed.

        After an ``InputError`` the lane is kept: the caller's tensor was refused before any work was queued.

        If there is not enough memory for another lane, the thread waits for an existing one.

        Raises:
            ResourceError: There is not enough memory for the first lane.
            DeviceLostError: The device failed.
        """
        lane = self._take_idle()
        try:
            yield lane
        except InputError:
            self._give_back(lane)
            raise
        except BaseException as error:
            self._add_to_count(-1)
            try:
                lane.close()
            except DeviceLostError as lost:
                raise lost from error
            raise
        self._give_back(lane)

    def _give_back(self, lane: EngineLane) -> None:
        with self._changed:
            self._idle.append(lane)
            self._changed.notify()

    def _take_idle(self) -> EngineLane:
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._idle or self._count < self._limit)
                if self._idle:
                    return self._idle.pop()  # the lane used last, whose memory is likely in caches
                self._count += 1
            try:
                return self._make()
            except BaseException as error:
                if not self._lower_limit(error):
                    raise

    def _lower_limit(self, error: BaseException) -> bool:
        """After a lane could not be created, return whether the existing lanes are enough, which become the limit."""
        lost = isinstance(error, DeviceLostError)
        with self._changed:
            self._count -= 1
            enough = isinstance(error, ResourceError) and not lost and self._count > 0
            if enough:
                self._limit = self._count
            self._changed.notify()
        return enough

    def _add_to_count(self, change: int) -> None:
        with self._changed:
            self._count += change
            self._changed.notify()

    def close(self) -> None:
        """Free the lanes. No lane may be in use."""
        with self._changed:
            idle, self._idle = self._idle, []
        for lane in idle:
            lane.close()
