"""What the Triton of ``make peers`` serves of repositories that ``rexport triton --backend python`` writes.

Bits, counts and losses, no times. The server runs on loopback with ONNX Runtime at one thread.
"""

from __future__ import annotations

import io
import random
import threading
import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np

import runtimes
from exporter.data.opening import open_dataset
from exporter.deploy.served import ServerConnection
from exporter.deploy.triton_config import as_text, build_config, parse_config
from exporter.deploy.triton_repository import TritonRequest, add_version
from exporter.deploy.triton_settings import BACKENDS, TritonSettings
from exporter.export_request import ExportRequest
from exporter.models.variants import VARIANTS
from exporter.precision.spec import FP32, PrecisionSpec
from exporter.precision.table import PRECISIONS
from exporter.targets import onnx_file
from runtimes.errors import ArtifactError, BackendUnavailableError, RexportError
from runtimes.images.preprocessing import fit_or_name
from runtimes.network_io import NetworkInput
from scripts.figures.setting import SILENT, Figure, FigureSettings
from scripts.triton_server import STOP_LIMIT_S, TritonServer, triton_server

MODELS = {"fp32": (FP32, False), "int8": (PrecisionSpec("int8"), False), "raw": (FP32, True)}
"""The served models: the precision, and whether the input is raw pixels."""

IMAGES = 1_000
CLIENTS = 8
REQUESTS = 200
"""The number of requests of each client."""

GATE_IMAGES = 100
"""The number of images for the gates of the exports, whose graphs are not what is measured."""

SIGTERM_TRIES = 10
LATEST_SIGTERM_S = 0.5
LOAD_AFTER_S = 0.2


def measure_triton(setting: FigureSettings) -> Iterator[Figure]:
    """Differences of served logits and labels, dynamic batches, and requests that SIGTERM loses."""
    artifacts = dict(_export(setting.folder))
    images = list(_images(setting.limit or IMAGES))
    repository = setting.folder / "repository"
    for name, path in artifacts.items():
        order = TritonRequest(repository, TritonSettings("python", threads=1, opened_with="onnxruntime"), name)
        add_version(path, order, lambda _: None)
    with triton_server(repository) as server:
        for name, path in artifacts.items():
            for url in (server.http, server.grpc):
                yield _differences(name, path, url, images)
        yield _batches(server, images)
    yield _losses(repository, images, max(SIGTERM_TRIES, setting.rounds))
    yield _configurations(setting.folder / "precisions")


def _configurations(folder: Path) -> Figure:
    """Export the bundled network in every precision, and count the configurations that Triton's message takes."""
    folder.mkdir()
    parsed, wrong = 0, 0
    for precision in PRECISIONS:
        for raw in (False, True):
            target = f"{folder}/{precision}{'-raw' if raw else ''}.onnx"
            request = ExportRequest(VARIANTS["resnet20"], target, weights="bundled", raw=raw)
            manifest = onnx_file.export(
                request, SILENT, None, PrecisionSpec(precision, gate_images=GATE_IMAGES)
            ).manifest
            assert manifest is not None
            for backend, row in BACKENDS.items():
                if "onnx" in row.formats:
                    config = build_config("net", manifest, TritonSettings(backend), {1: manifest.sha256})
                    text = as_text(config)
                    parsed += int(parse_config(text, folder) == config)
                    wrong += _is_refused(text.replace("max_batch_size", "max_batch"), folder)
    count = 2 * len(PRECISIONS) * sum("onnx" in row.formats for row in BACKENDS.values())
    value = f"{parsed} of {count} parse as ModelConfig, {wrong} of {count} with a wrong field are refused"
    return Figure("configurations of all precisions and backends", value, "all", parsed == wrong == count)


def _is_refused(text: str, path: Path) -> bool:
    try:
        parse_config(text, path)
    except ArtifactError:
        return True
    return False


def _export(folder: Path) -> Iterator[tuple[str, Path]]:
    for name, (precision, raw) in MODELS.items():
        request = ExportRequest(VARIANTS["resnet20"], f"{folder}/{name}.onnx", weights="bundled", raw=raw)
        yield name, onnx_file.export(request, SILENT, None, precision).path


def _images(limit: int) -> Iterator[bytes]:
    """Yield PNG files of test images."""
    from PIL import Image

    dataset = open_dataset("fashion-mnist", limit)
    for number in range(len(dataset)):
        buffer = io.BytesIO()
        Image.fromarray(np.asarray(dataset.image(number)).squeeze()).save(buffer, "PNG")
        yield buffer.getvalue()


def _column(image: bytes) -> np.ndarray[tuple[int, ...], np.dtype[np.object_]]:
    return np.array([[image]], object)


def _differences(name: str, path: Path, url: str, images: list[bytes]) -> Figure:
    """Compare each image, sent as an array and as a file, with the runtime in this process; batch 1."""
    differing, labels = Counter[str](), 0
    with (
        ServerConnection(url) as server,
        runtimes.Classifier.open(path, "onnxruntime", threads=1) as classifier,
    ):
        view, runtime = classifier.preprocessing, classifier.runtime
        entry = NetworkInput.find(runtime, view)
        for image in images:
            array = entry.from_pixels(fit_or_name(image, view, 0)[None], view)
            expected = runtime.infer({entry.spec.name: array})["logits"]
            for kind, feeds in (("arrays", {entry.spec.name: array}), ("image files", {"image": _column(image)})):
                served = server.infer(name, feeds)["logits"]
                differing[kind] += int((served.view(np.uint32) != expected.view(np.uint32)).sum())
            labels += int(served.argmax() != classifier.predict(image)[0].labels[0].index)
    logits = len(images) * expected.shape[1]
    value = (
        f"{differing['arrays']} of {logits:,} logits differ from arrays, {differing['image files']} from image files; "
        f"{labels} of {len(images):,} labels differ from Classifier.predict"
    )
    bad = differing.total() + labels
    return Figure(f"{name} by Triton over {url.partition(':')[0]}", value, "0, 0 and 0", bad == 0)


def _batches(server: TritonServer, images: list[bytes]) -> Figure:
    """Count the executions of many clients' requests, each of one image."""
    requests, executions = server.metric("nv_inference_count"), server.metric("nv_inference_exec_count")

    def ask(client: int) -> None:
        with ServerConnection(server.grpc) as connection:
            for number in range(REQUESTS):
                connection.infer("fp32", {"image": _column(images[(client * REQUESTS + number) % len(images)])})

    with ThreadPoolExecutor(CLIENTS) as pool:
        list(pool.map(ask, range(CLIENTS)))
    requests = server.metric("nv_inference_count") - requests
    executions = server.metric("nv_inference_exec_count") - executions
    value = f"{requests:,.0f} requests of {CLIENTS} clients in {executions:,.0f} executions"
    return Figure("dynamic batches of model.py", value, "fewer executions than requests", executions < requests)


def _losses(repository: Path, images: list[bytes], tries: int) -> Figure:
    """Send SIGTERM at random moments under load, which goes on for ``LOAD_AFTER_S`` as until a balancer has noticed."""
    generator, outcomes, codes = random.Random(0), Counter[tuple[str, str]](), Counter[int]()
    for _ in range(tries):
        with triton_server(repository) as server:
            load = _Load(server, images)
            time.sleep(generator.uniform(LATEST_SIGTERM_S / 10, LATEST_SIGTERM_S))
            load.signalled_s = time.perf_counter()
            server.process.terminate()
            time.sleep(LOAD_AFTER_S)
            outcomes += load.stop()
            codes[server.process.wait(STOP_LIMIT_S)] += 1
    lost = sum(count for (_, outcome), count in outcomes.items() if outcome != "answered")
    words = ", ".join(f"{count:,} sent {when} {outcome}" for (when, outcome), count in sorted(outcomes.items()))
    exits = ", ".join(f"{code} ({count} times)" for code, count in codes.items())
    value = f"{lost} requests lost in {tries} tries: {words}; exit codes {exits}"
    return Figure("SIGTERM to Triton under load", value, "0, exit code 0", lost == 0 and set(codes) == {0})


class _Load:
    """Clients that ask one after the other until they are stopped, or not answered.

    Attributes:
        signalled_s: The time of the signal, by ``time.perf_counter``.
    """

    def __init__(self, server: TritonServer, images: list[bytes]) -> None:
        self.signalled_s = float("inf")
        self._stopped = threading.Event()
        self._records: list[tuple[float, str]] = []
        urls = [server.http, server.grpc] * (CLIENTS // 2)
        started = threading.Barrier(CLIENTS + 1)
        self._threads = [threading.Thread(target=self._ask, args=(url, images, started)) for url in urls]
        for thread in self._threads:
            thread.start()
        started.wait()

    def _ask(self, url: str, images: list[bytes], started: threading.Barrier) -> None:
        with ServerConnection(url) as connection:
            connection.infer("fp32", {"image": _column(images[0])})
            started.wait()
            number, outcome = 0, "answered"
            while outcome == "answered" and not self._stopped.is_set():
                sent_s, outcome = time.perf_counter(), _outcome(connection, images[number % len(images)])
                self._records.append((sent_s, outcome))
                number += 1

    def stop(self) -> Counter[tuple[str, str]]:
        """Let the clients finish, and count what became of the requests that were sent before and after the signal."""
        self._stopped.set()
        for thread in self._threads:
            thread.join()
        when = {True: "before the signal", False: "after it"}
        return Counter((when[sent_s < self.signalled_s], outcome) for sent_s, outcome in self._records)


def _outcome(connection: ServerConnection, image: bytes) -> str:
    try:
        connection.infer("fp32", {"image": _column(image)})
    except BackendUnavailableError:
        return "no connection"
    except RexportError:
        return "refused"
    return "answered"
