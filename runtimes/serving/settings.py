"""The limits of a server: how requests are batched, how many may wait, and how large they may be."""

from __future__ import annotations

from dataclasses import dataclass

from runtimes.errors import UsageError
from runtimes.images.spec import MAX_PIXELS

DEFAULT_MAX_PIXELS = 50_000_000
"""The pixels that one image of a request may have, where nothing else is said."""


@dataclass(frozen=True)
class ServingSettings:
    """The limits of a server, which ``rexport serve`` has as options.

    Attributes:
        max_batch: The number of images that run at once, at most. A network with a fixed batch ignores it.
        delay_s: The time in seconds that a request may wait for others to share its batch. With 0, a request that finds
            the network idle runs at once; requests that arrive while the network is busy share the next batch in any
            case.
        queue: The number of requests that each model holds at most, those in work included. More are refused.
        timeout_s: The time in seconds from the arrival of a request to its inference, at most. A request that waited
            longer is refused without inference. The body of a request has to arrive in this time, too.
        max_bytes: The size of a request's body in bytes, at most.
        max_pixels: The number of pixels of an image, at most. It is read from the header, before decoding.
        max_images: The number of images in one multipart request, at most.

    Raises:
        UsageError: A limit is out of range.
    """

    max_batch: int = 32
    delay_s: float = 0.0
    queue: int = 256
    timeout_s: float = 10.0
    max_bytes: int = 10 << 20
    max_pixels: int = DEFAULT_MAX_PIXELS
    max_images: int = 64

    def __post_init__(self) -> None:
        least = {"max_batch": 1, "delay_s": 0, "queue": 1, "max_bytes": 1, "max_pixels": 1, "max_images": 1}
        for name, bound in least.items():
            if not getattr(self, name) >= bound:
                raise _out_of_range(name, f"at least {bound}", getattr(self, name))
        if not self.timeout_s > 0:
            raise _out_of_range("timeout_s", "more than 0", self.timeout_s)
        if self.max_pixels > MAX_PIXELS:
            raise _out_of_range("max_pixels", f"at most {MAX_PIXELS:,}", self.max_pixels)


def _out_of_range(name: str, expected: str, value: float) -> UsageError:
    return UsageError(f"{name} must be {expected}, not {value:,}", code="serving-limit-out-of-range")


DEFAULT_SETTINGS = ServingSettings()
