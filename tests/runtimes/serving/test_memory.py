"""The memory of a server against the number of its requests."""

from __future__ import annotations

import itertools
import statistics
from pathlib import Path

import pytest

from scripts.figures.process_tree import resident_bytes
from scripts.figures.serving import ask_many, pictures
from tests.servers import serve_process

WARM_UP, REQUESTS, PARTS = 4_000, 4_000, 5

BYTES_A_REQUEST = 30
"""Most parts grow by 0 to 8 bytes a request, beside other work as well. A worker that keeps lists
of freed pieces grew by 70.
"""


@pytest.mark.slow
def test_images_of_many_sizes_leave_nothing_behind(bundled_path: Path, tmp_path: Path) -> None:
    images = pictures(200)
    assert len({len(image) for image in images}) > 50
    with serve_process(tmp_path, f"m={bundled_path}", "--drain", "0", "--log-format", "none") as server:
        (pid,) = server.workers()
        ask_many(server.address, images, WARM_UP)
        sizes = [resident_bytes(pid)]
        for _ in range(PARTS):
            ask_many(server.address, images, REQUESTS)
            sizes.append(resident_bytes(pid))
        grown = [after - before for before, after in itertools.pairwise(sizes)]
        # The heap takes pages once, now and then half a megabyte: in one part or two. What is left behind is in each.
        assert statistics.median(grown) < REQUESTS * BYTES_A_REQUEST, grown
