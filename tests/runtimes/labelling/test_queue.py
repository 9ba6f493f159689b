"""Which work is next, and how a shard that kills its workers is halved."""

from __future__ import annotations

from collections.abc import Collection

import pytest

from runtimes.labelling.job import LabellingJob
from runtimes.labelling.queue import ATTEMPTS, ShardQueue
from runtimes.labelling.work import ShardReport, ShardWork, WorkerDeath


def job(images: int, shard: int = 64, batch: int = 8) -> LabellingJob:
    """A job of so many images."""
    return LabellingJob(
        artifact="a.onnx",
        artifact_sha256="a",
        source="/photos",
        root="/photos",
        kind="folder",
        images=images,
        listing_sha256="b",
        chunks=("c",),
        shard=shard,
        batch=batch,
        top=1,
        features=False,
    )


def drain(queue: ShardQueue, poison: Collection[tuple[int, int]]) -> tuple[list[ShardWork], list[ShardWork], int]:
    """Works until nothing is left, where each work with an image of ``poison`` kills its worker.

    Returns the finished works, the images that were given up, and the number of deaths.
    """
    finished, lost, deaths = [], [], 0
    while (work := queue.take()) is not None:
        if any(work.shard == shard and work.start <= row < work.stop for shard, row in poison):
            deaths += 1
            given_up = queue.requeue(WorkerDeath(work, "killed by SIGSEGV"))
            if given_up is None:
                continue
            lost.append(given_up)
            work = given_up
        queue.finish(ShardReport(work, 0, None if work.whole else b""))
        finished.append(work)
    return finished, lost, deaths


def test_all_shards_are_taken_once_and_the_last_is_shorter() -> None:
    finished, lost, _ = drain(ShardQueue(job(150), range(3)), ())
    assert finished == [ShardWork(0, 0, 64), ShardWork(1, 0, 64), ShardWork(2, 0, 22)]
    assert lost == []


@pytest.mark.parametrize("row", [0, 7, 8, 30, 63])
def test_a_poison_image_is_found_and_every_row_is_finished_once(row: int) -> None:
    finished, lost, deaths = drain(ShardQueue(job(128), range(2)), [(1, row)])
    assert lost == [ShardWork(1, row, row + 1, whole=False)]
    assert sorted(number for work in finished if work.shard == 1 for number in range(work.start, work.stop)) == list(
        range(64)
    )
    assert deaths == ATTEMPTS + 5 + ATTEMPTS  # the shard, pieces of 32, 16, 8, 4 and 2 images, the image


def test_two_poison_images_in_one_batch_are_both_found() -> None:
    _, lost, _ = drain(ShardQueue(job(64), range(1)), [(0, 9), (0, 10)])
    assert sorted(work.start for work in lost) == [9, 10]


def test_a_shard_that_dies_twice_by_chance_stays_whole() -> None:
    queue = ShardQueue(job(64), range(1))
    for _ in range(ATTEMPTS - 1):
        work = queue.take()
        assert work is not None
        assert queue.requeue(WorkerDeath(work, "killed by SIGKILL")) is None
    assert queue.take() == ShardWork(0, 0, 64)


def test_the_last_piece_of_a_shard_gives_all_in_order() -> None:
    queue = ShardQueue(job(64), range(1))
    for _ in range(ATTEMPTS):
        work = queue.take()
        assert work is not None
        queue.requeue(WorkerDeath(work, "killed"))
    first, second = queue.take(), queue.take()
    assert first is not None
    assert second is not None
    assert queue.finish(ShardReport(second, 0, b"2")) is None
    pieces = queue.finish(ShardReport(first, 0, b"1"))
    assert pieces is not None
    assert [piece.rows for piece in pieces] == [b"1", b"2"]


@pytest.mark.parametrize(
    ("start", "stop", "middle"), [(0, 64, 32), (0, 22, 8), (0, 9, 8), (8, 24, 16), (0, 8, 4), (3, 5, 4)]
)
def test_halves_meet_between_batches_while_there_are_several(start: int, stop: int, middle: int) -> None:
    assert ShardWork(0, start, stop).halves(8) == (
        ShardWork(0, start, middle, whole=False),
        ShardWork(0, middle, stop, whole=False),
    )
