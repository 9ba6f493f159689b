"""The memory of a server against the number of its requests."""

from __future__ import annotations

from pathlib import Path

import pytest

from scripts.figures.process_tree import resident_bytes
from scripts.figures.serving import ask_many, pictures
from tests.servers import serve_process

WARM_UP, REQUESTS = 4_000, 16_000

BYTES_A_REQUEST = 30
"""Pages that the heap takes once give 10 or so. A worker that keeps lists of freed pieces grew by 70."""


@pytest.mark.slow
def test_images_of_many_sizes_leave_nothing_behind(bundled_path: Path, tmp_path: Path) -> None:
    images = pictures(200)
    assert len({len(image) for image in images}) > 50
    with serve_process(tmp_path, f"m={bundled_path}", "--drain", "0", "--log-format", "none") as server:
        (pid,) = server.workers()
        ask_many(server.address, images, WARM_UP)
        before = resident_bytes(pid)
        ask_many(server.address, images, REQUESTS)
        assert resident_bytes(pid) - before < REQUESTS * BYTES_A_REQUEST
