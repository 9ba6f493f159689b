"""What ``rexport serve`` costs beside the model in the same process, and that it loses and confuses nothing."""

from __future__ import annotations

import io
import itertools
import json
import random
import signal
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path

import numpy as np

from benchmarks.stats.intervals import quantile
from exporter.data.opening import open_dataset
from exporter.export_request import ExportRequest
from exporter.models.variants import VARIANTS
from exporter.targets import onnx_file
from runtimes import Artifact, Classifier
from runtimes import open as open_runtime
from scripts.figures.process_tree import resident_bytes
from scripts.figures.server_process import LIMIT_S, Address, ServeProcess, serve_process
from scripts.figures.setting import IMAGENET_STATISTICS, SILENT, VARIANT, Figure, FigureSettings

CLIENTS = 32
TAGGED_CLIENTS, TAGGED_REQUESTS = 8, 2_000
REQUESTS = 100_000
ROLLING_REQUESTS = 10_000
STOPS = 30
MAX_OVERHEAD_MS = 0.5


def _small(setting: FigureSettings) -> Artifact:
    """The bundled ResNet-20."""
    target = setting.folder / "resnet20.onnx"
    if target.exists():
        return Artifact.read(target)
    return onnx_file.export(ExportRequest(VARIANTS["resnet20"], str(target), weights="bundled"), SILENT)


def _large(setting: FigureSettings) -> Artifact:
    """An untrained ResNet-50, whose speed is that of a trained one."""
    target = setting.folder / f"{VARIANT}.onnx"
    if target.exists():
        return Artifact.read(target)
    request = ExportRequest(VARIANTS[VARIANT], str(target), preprocessing=IMAGENET_STATISTICS)
    return onnx_file.export(request, SILENT)


def _encode(pixels: np.ndarray[tuple[int, ...], np.dtype[np.uint8]], format: str) -> bytes:
    from PIL import Image

    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, format)
    return buffer.getvalue()


def _photos(count: int) -> list[bytes]:
    """JPEG files of 500 x 375 pixels with smooth content, as the images of ImageNet have."""
    generator = np.random.default_rng(0)
    coarse = generator.integers(0, 256, (count, 25, 34, 3), np.uint8)
    return [_encode(np.kron(each, np.ones((15, 15, 1), np.uint8))[:375, :500], "JPEG") for each in coarse]


def pictures(count: int) -> list[bytes]:
    """The first test images of Fashion-MNIST as PNG files."""
    images = open_dataset("fashion-mnist").images
    return [_encode(np.asarray(image).squeeze(), "PNG") for image in itertools.islice(images, count)]


class Client:
    """A client with one connection, which is kept, and which costs little itself: a request is one call of the system.

    ``http.client`` sends head and body apart, and takes longer to read an answer than the server to make it.
    """

    def __init__(self, address: Address) -> None:
        self._address = address
        self._socket = address.connect()

    def label(self, image: bytes, query: str = "") -> tuple[int, bytes]:
        head = f"POST /v1/label{query} HTTP/1.1\r\nHost: figures\r\nContent-Length: {len(image)}\r\n\r\n"
        self._socket.sendall(head.encode() + image)
        lines, body = self._read_head()
        fields = dict(line.lower().split(": ", 1) for line in lines[1:])
        while len(body) < int(fields["content-length"]):
            body += self._read()
        if fields.get("connection") == "close":
            self.close()
            self._socket = self._address.connect()
        return int(lines[0].split()[1]), body

    def _read_head(self) -> tuple[list[str], bytes]:
        content = b""
        while b"\r\n\r\n" not in content:
            content += self._read()
        head, _, body = content.partition(b"\r\n\r\n")
        return head.decode().split("\r\n"), body

    def _read(self) -> bytes:
        chunk = self._socket.recv(1 << 16)
        if not chunk:
            raise ConnectionResetError
        return chunk

    def close(self) -> None:
        self._socket.close()


def _in_threads(count: int, work: Callable[[int], None]) -> None:
    """Calls ``work`` with each number below ``count``, each in a thread; the first error is raised in the end."""
    errors: list[BaseException] = []

    def run(number: int) -> None:
        try:
            work(number)
        except BaseException as error:
            errors.append(error)

    threads = [threading.Thread(target=run, args=(number,)) for number in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if errors:
        raise errors[0]


def serve_parity(setting: FigureSettings) -> Iterator[Figure]:
    """Outputs over each protocol against ``Runtime.infer``, bit by bit."""
    import tritonclient.grpc
    import tritonclient.http

    artifact = _small(setting)
    shape = (
        tuple(size for size in artifact.manifest.inputs[0].shape[1:] if isinstance(size, int))
        if artifact.manifest
        else ()
    )
    arrays = [np.random.default_rng(seed).standard_normal((1 + seed % 4, *shape), np.float32) for seed in range(100)]
    with open_runtime(artifact.path, threads=1) as runtime:
        expected = [runtime.infer({"input": array})["logits"] for array in arrays]

    def same(module: object, client: object, **options: bool) -> int:
        count = 0
        for array, wanted in zip(arrays, expected, strict=True):
            tensor = module.InferInput("input", array.shape, "FP32")  # type: ignore[attr-defined]
            tensor.set_data_from_numpy(array, **options)
            answer = client.infer("resnet20", [tensor])  # type: ignore[attr-defined]
            count += int(np.array_equal(answer.as_numpy("logits"), wanted))
        return count

    with serve_process(setting.folder, artifact.path, "--threads", "1", "--grpc-port", "0", "--drain", "0") as server:
        with tritonclient.http.InferenceServerClient(f"{server.address.host}:{server.address.port}") as client:
            for name, binary in (("JSON", False), ("binary", True)):
                count = same(tritonclient.http, client, binary_data=binary)
                yield _count(f"serve over HTTP, {name}: outputs that equal Runtime.infer", count, len(arrays))
        with tritonclient.grpc.InferenceServerClient(server.grpc) as client:
            count = same(tritonclient.grpc, client)
            yield _count("serve over gRPC: outputs that equal Runtime.infer", count, len(arrays))


def _count(name: str, count: int, total: int) -> Figure:
    return Figure(name, f"{count:,} of {total:,}", f"{total:,}", count == total)


def serve_request(setting: FigureSettings) -> Iterator[Figure]:
    """One client over one connection against ``Classifier.predict`` in this process, in turns.

    A turn of the small network has 50 calls. One of the large network has a single call: it takes so long that the
    machine changes between turns of many calls by more than what is measured.
    """
    small, large = pictures(50), _photos(10)
    for artifact, turns in ((_small(setting), [small]), (_large(setting), [[photo] for photo in large])):
        with ExitStack() as stack:
            server = stack.enter_context(
                serve_process(
                    setting.folder, f"m={artifact.path}", "--threads", "1", "--drain", "0", "--log-format", "json"
                )
            )
            classifier = stack.enter_context(Classifier.open(artifact.path, threads=1))
            client = Client(server.address)
            stack.callback(client.close)
            ours, bare = [], []
            for number, images in itertools.product(range(setting.rounds + 1), turns):
                served = _time_each(images, client.label)
                inside = _time_each(images, classifier.predict)
                if number:
                    ours.append(quantile(served, 0.5))
                    bare.append(quantile(inside, 0.5))
        added_ms, low, high = _median_ms([one - other for one, other in zip(ours, bare, strict=True)])
        value = (
            f"+{added_ms:.3f} ms [{low:.3f}, {high:.3f}], p50 {quantile(ours, 0.5) * 1e3:.3f} ms against "
            f"{quantile(bare, 0.5) * 1e3:.3f} ms, {len(ours)} pairs"
        )
        name = f"a label request, 1 client, over Classifier.predict, {artifact.path.stem}"
        yield Figure(name, value, f"<= +{MAX_OVERHEAD_MS} ms", added_ms <= MAX_OVERHEAD_MS)


def _median_ms(differences_s: list[float]) -> tuple[float, float, float]:
    """The median in milliseconds, and its interval of 95 % by resampling the pairs."""
    drawn = np.random.default_rng(0).choice(differences_s, (2_000, len(differences_s)))
    medians = np.median(drawn, axis=1) * 1e3
    low, high = np.quantile(medians, (0.025, 0.975))
    return quantile(differences_s, 0.5) * 1e3, float(low), float(high)


def _time_each(images: Sequence[bytes], call: Callable[[bytes], object]) -> list[float]:
    samples = []
    for image in images:
        start_s = time.perf_counter()
        call(image)
        samples.append(time.perf_counter() - start_s)
    return samples


def serve_load(setting: FigureSettings) -> Iterator[Figure]:
    """32 clients against the best loop over batches in this process; then three times the requests it can answer."""
    duration_s = 3.0 if setting.limit else 15.0
    for artifact, images, bounded in ((_large(setting), _photos(32), True), (_small(setting), pictures(32), False)):
        arguments = (f"m={artifact.path}", "--drain", "0", "--queue", "64", "--timeout", "60")
        served, inside = [], []
        with serve_process(setting.folder, *arguments) as server:
            for _ in range(3):
                served.append(_closed_loop(server.address, images, duration_s))
                inside.append(_best_batch_loop(artifact.path, images, duration_s))
            share = quantile(served, 0.5) / quantile(inside, 0.5)
            pairs = ", ".join(f"{one / other:.3f}" for one, other in zip(served, inside, strict=True))
            value = f"{share:.3f} x, {quantile(served, 0.5):.0f} against {quantile(inside, 0.5):.0f} images/s ({pairs})"
            name = f"32 clients over the best loop over batches in process, {artifact.path.stem}"
            yield Figure(name, value, ">= 0.8 x" if bounded else "stated", not bounded or share >= 0.8)
            yield _overload(server.address, images, quantile(served, 0.5), duration_s, artifact.path.stem, bounded)


def _closed_loop(address: Address, images: list[bytes], duration_s: float) -> float:
    """Images a second of 32 clients, each with one connection and one request at a time."""
    end_s = time.perf_counter() + duration_s
    counts = [0] * CLIENTS

    def ask(number: int) -> None:
        client = Client(address)
        while time.perf_counter() < end_s:
            status, _ = client.label(images[number % len(images)])
            if status != 200:
                raise RuntimeError(f"status {status}")
            counts[number] += 1
        client.close()

    start_s = time.perf_counter()
    _in_threads(CLIENTS, ask)
    return sum(counts) / (time.perf_counter() - start_s)


def _best_batch_loop(path: Path, images: list[bytes], duration_s: float) -> float:
    """Images a second of ``Classifier.predict``, at the best of a few batches."""
    rates = []
    with Classifier.open(path) as classifier:
        for batch in (1, 4, 8, 16, 32):
            classifier.predict(images, batch=batch)
            start_s, count = time.perf_counter(), 0
            while time.perf_counter() - start_s < duration_s / 5:
                count += len(classifier.predict(images, batch=batch))
            rates.append(count / (time.perf_counter() - start_s))
    return max(rates)


def _overload(
    address: Address, images: list[bytes], peak: float, duration_s: float, name: str, bounded: bool
) -> Figure:
    """Answers at three times the rate of the closed loop, each request at its own time and over its own connection."""
    rate = 3 * peak
    count = round(rate * duration_s)
    statuses: Counter[int] = Counter()
    start_s, lock = time.perf_counter() + 0.1, threading.Lock()
    numbers = iter(range(count))
    ended_s: list[float] = []

    def ask(_: int) -> None:
        while True:
            with lock:
                number = next(numbers, None)
            if number is None:
                return
            time.sleep(max(0.0, start_s + number / rate - time.perf_counter()))
            status = address.post("/v1/label", images[number % len(images)]).status
            with lock:
                statuses[status] += 1
                if status == 200:
                    ended_s.append(time.perf_counter())

    _in_threads(200, ask)
    busy_s = max(ended_s, default=start_s + duration_s) - start_s  # until the queue is empty again
    ratio = statuses[200] / busy_s / peak
    others = {status: count for status, count in statuses.items() if status not in (200, 503)}
    value = f"{ratio:.3f} x of the closed loop's; statuses {dict(sorted(statuses.items()))}"
    bound = ">= 0.9 x, and nothing but 200 and 503" if bounded else "nothing but 200 and 503"
    holds = not others and (ratio >= 0.9 or not bounded)
    return Figure(f"goodput at three times the knee, {name}", value, bound, holds)


def serve_answers(setting: FigureSettings) -> Iterator[Figure]:
    """8 clients with 2,000 requests each: every one gets the answer to its own image."""
    requests = setting.limit or TAGGED_REQUESTS
    artifact, images = _small(setting), pictures(requests)
    with Classifier.open(artifact.path, threads=1) as classifier:
        expected = [
            np.array([label.probability for label in sorted(prediction.labels, key=lambda label: label.index)])
            for prediction in classifier.predict(images, top=10)
        ]
    own = [0] * TAGGED_CLIENTS
    with serve_process(setting.folder, f"m={artifact.path}", "--drain", "0") as server:

        def ask(number: int) -> None:
            client = Client(server.address)
            order = random.Random(number).sample(range(requests), requests)
            for index in order:
                _, body = client.label(images[index], "?top=10")
                labels = sorted(json.loads(body)["images"][0]["labels"], key=lambda label: label["index"])
                answer = np.array([label["probability"] for label in labels])
                own[number] += int(np.abs(answer - expected[index]).max() < 1e-4)
            client.close()

        _in_threads(TAGGED_CLIENTS, ask)
    yield _count(f"{TAGGED_CLIENTS} clients, answers to their own images", sum(own), TAGGED_CLIENTS * requests)


def serve_memory(setting: FigureSettings) -> Iterator[Figure]:
    """Resident memory of the worker after a tenth of the requests, and after all."""
    requests = setting.limit or REQUESTS
    artifact, images = _small(setting), pictures(200)
    with serve_process(setting.folder, f"m={artifact.path}", "--drain", "0", "--log-format", "json") as server:
        (pid,) = server.workers()
        memory = []
        for share in (requests // 10, requests - requests // 10):
            ask_many(server.address, images, share)
            memory.append(resident_bytes(pid))
    growth = memory[1] / memory[0] - 1
    value = f"{growth:+.2%}, {memory[0] / 1e6:.1f} MB after {requests // 10:,} and {memory[1] / 1e6:.1f} MB after all"
    yield Figure(f"memory of the worker over {requests:,} requests", value, "within 2 %", abs(growth) <= 0.02)


def ask_many(address: Address, images: list[bytes], count: int) -> None:
    def ask(number: int) -> None:
        client = Client(address)
        for index in range(number, count, 8):
            client.label(images[index % len(images)])
        client.close()

    _in_threads(8, ask)


class _Load:
    """Clients that ask until they are refused, and count what is lost: any end of a connection without an answer."""

    def __init__(self, address: Address, images: list[bytes]) -> None:
        self.answered, self.lost, self.others = 0, 0, 0
        self._address, self._images = address, images
        self._ending = threading.Event()
        self._lock = threading.Lock()
        self._threads = [threading.Thread(target=self._ask, args=(number,)) for number in range(8)]
        for thread in self._threads:
            thread.start()

    def _ask(self, number: int) -> None:
        client = None
        while not self._ending.is_set():
            try:
                # half of the clients keep their connections, as long as the server does
                client = client if client is not None and number % 2 else Client(self._address)
                status, _ = client.label(self._images[number])
            except ConnectionRefusedError:
                return
            except Exception:
                with self._lock:
                    self.lost += 1
                client = None
                continue
            with self._lock:
                self.answered += status == 200
                self.others += status != 200

    def end(self) -> None:
        self._ending.set()
        for thread in self._threads:
            thread.join()


def serve_drain(setting: FigureSettings) -> Iterator[Figure]:
    """SIGTERM at random moments under load; and workers that are replaced while requests come."""
    stops = min(setting.limit or STOPS, STOPS)
    artifact, images = _small(setting), pictures(8)
    moments = random.Random(0)
    answered = lost = others = failed = 0
    for _ in range(stops):
        with serve_process(setting.folder, f"m={artifact.path}", "--workers", "2", "--drain", "0.5") as server:
            load = _Load(server.address, images)
            time.sleep(moments.uniform(0.05, 1.0))
            server.signal(signal.SIGTERM)
            failed += server.process.wait(LIMIT_S) != 0
            load.end()
            answered, lost, others = answered + load.answered, lost + load.lost, others + load.others
    value = f"{lost} lost, {others} refused, {answered:,} answered, {failed} exit codes other than 0"
    yield Figure(f"SIGTERM at {stops} random moments under load", value, "0 lost", lost == others == failed == 0)
    yield _rolling(setting, artifact, images)


def _rolling(setting: FigureSettings, artifact: Artifact, images: list[bytes]) -> Figure:
    wanted = setting.limit or ROLLING_REQUESTS
    with serve_process(setting.folder, f"m={artifact.path}", "--workers", "2", "--drain", "1") as server:
        load, rounds = _Load(server.address, images), 0
        while load.answered < wanted or not rounds:
            server.signal(signal.SIGHUP)
            rounds += 1
            _wait_for_rounds(server, rounds)
        load.end()
    value = f"{load.lost} lost, {load.others} refused of {load.answered:,}, {rounds} replacements of both workers"
    holds = load.lost == load.others == 0
    return Figure(f"two workers replaced under load, {wanted:,} requests", value, "0 lost", holds)


def _wait_for_rounds(server: ServeProcess, rounds: int) -> None:
    end_s = time.monotonic() + LIMIT_S
    while len(server.events("workers-replaced")) < rounds:
        if time.monotonic() > end_s:
            raise RuntimeError("the workers were not replaced in time")
        time.sleep(0.1)
