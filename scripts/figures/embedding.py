"""What outputs on the device, a stream, futures and decoding on a GPU cost or save, against ``infer``."""

from __future__ import annotations

import io
from collections.abc import Callable, Iterator

import numpy as np
import PIL.Image

import runtimes
from exporter.export_request import ExportRequest
from exporter.models.variants import VARIANTS
from exporter.targets import onnx_file
from runtimes import Artifact, Classifier, Runtime
from runtimes.decoder_agreement import compare_decoders
from runtimes.images.preprocessing import prepare_images
from runtimes.tensors import cuda
from runtimes.tensors.spec import Arrays
from scripts.figures.setting import (
    IMAGENET_STATISTICS,
    SILENT,
    VARIANT,
    Figure,
    FigureSettings,
    ratio,
    time_interleaved,
)

BATCH, BATCHES = 8, 4


def measure_embedding(setting: FigureSettings) -> Iterator[Figure]:
    """The cost of a future, and of preparing images while the model runs, on a GPU if there is one. Only there: outputs
    that stay, a stream, and decoding. All in the same process and in turn."""
    device = "cpu" if cuda.missing() is not None else "cuda"
    artifact = _export(setting, raw=False)
    with runtimes.open(artifact.path, device=device) as runtime:
        yield _futures(setting, runtime)
        yield _overlap(setting, runtime, artifact)
        if device == "cuda":
            yield from _on_device(setting, runtime)
    if device == "cuda":
        yield _decoding(setting, _export(setting, raw=True))


def _compare(
    name: str, calls: tuple[Callable[[], object], Callable[[], object]], setting: FigureSettings, bound: float
) -> Figure:
    ours, bare = time_interleaved(calls, setting.rounds)
    return ratio(name, ours, bare, bound)


def _export(setting: FigureSettings, raw: bool) -> Artifact:
    path = f"{setting.folder}/{VARIANT}{'.raw' if raw else ''}.onnx"
    request = ExportRequest(VARIANTS[VARIANT], path, weights="random", raw=raw, preprocessing=IMAGENET_STATISTICS)
    return onnx_file.export(request, SILENT)


def _noise(runtime: Runtime, batch: int) -> Arrays:
    arrays = runtime.empty_inputs(batch)
    for array in arrays.values():
        array[:] = np.random.default_rng(0).standard_normal(array.shape)
    return arrays


def _futures(setting: FigureSettings, runtime: Runtime) -> Figure:
    feeds = _noise(runtime, 1)
    calls = (lambda: runtime.infer_async(feeds).result(), lambda: runtime.infer(feeds))
    return _compare("a future against infer, batch 1", calls, setting, 1.05)


def _overlap(setting: FigureSettings, runtime: Runtime, artifact: Artifact) -> Figure:
    assert artifact.manifest is not None
    assert artifact.manifest.preprocessing is not None
    images, preprocessing = [_photo(seed) for seed in range(BATCH)], artifact.manifest.preprocessing

    def prepare() -> Arrays:
        return {runtime.inputs[0].name: prepare_images(images, preprocessing)}

    def overlapped() -> None:
        future = runtime.infer_async(prepare())
        for _ in range(BATCHES - 1):
            feeds = prepare()
            future.result()
            future = runtime.infer_async(feeds)
        future.result()

    def alternating() -> None:
        for _ in range(BATCHES):
            runtime.infer(prepare())

    name = f"{BATCHES} batches of {BATCH} JPEG files, prepared while the model runs, against one after the other"
    return _compare(name, (overlapped, alternating), setting, 1.0)


def _photo(seed: int) -> bytes:
    small = np.random.default_rng(seed).integers(0, 256, (12, 16, 3), np.uint8)
    buffer = io.BytesIO()
    PIL.Image.fromarray(small).resize((500, 375), PIL.Image.Resampling.BICUBIC).save(buffer, "JPEG", quality=90)
    return buffer.getvalue()


def _on_device(setting: FigureSettings, runtime: Runtime) -> Iterator[Figure]:
    import torch

    name = runtime.inputs[0].name
    feeds = {name: torch.from_numpy(_noise(runtime, BATCH)[name]).cuda()}
    stream = torch.cuda.Stream()  # type: ignore[no-untyped-call]

    def on_stream() -> None:
        for _ in range(BATCHES):
            runtime.infer(feeds, device_outputs=True, stream=stream)
        stream.synchronize()

    def repeat(call: Callable[[], object]) -> Callable[[], object]:
        return lambda: [call() for _ in range(BATCHES)]

    host = repeat(lambda: runtime.infer(feeds))
    stay = repeat(lambda: runtime.infer(feeds, device_outputs=True))
    yield _compare("outputs that stay against infer", (stay, host), setting, 1.02)
    yield _compare("the caller's stream against infer", (on_stream, host), setting, 1.0)


def _decoding(setting: FigureSettings, artifact: Artifact) -> Figure:
    images = [_photo(seed) for seed in range(128)]
    with (
        Classifier.open(artifact.path, device="cuda", decoder="nvimgcodec") as gpu,
        Classifier.open(artifact.path, device="cuda") as host,
    ):
        agreement = compare_decoders(gpu, images)
        calls = (lambda: gpu.predict(images), lambda: host.predict(images))
        name = f"JPEG to label, decoded on the GPU (same labels: {agreement.share:.1%}), against Pillow"
        return _compare(name, calls, setting, 1.0)
