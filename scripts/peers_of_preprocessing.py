"""Writes what torchvision, timm and transformers make of small images, which the tests compare with rexport.

Run it where these libraries are installed: ``python scripts/peers_of_preprocessing.py``. rexport is not needed. It
writes ``tests/runtimes/images/peers.npz`` with images, and cases in JSON: the library, the configuration as a file of
its kind, the image, and the shape of the pixels before normalisation, which follow one another as uint8.
"""

from __future__ import annotations

import importlib.metadata
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import PIL.Image

OUT = Path(__file__).resolve().parents[1] / "tests" / "runtimes" / "images" / "peers.npz"
SIZE = 8
MEAN, STD = [0.485, 0.456, 0.406], [0.229, 0.224, 0.225]
FILTERS = ("nearest", "bilinear", "bicubic", "lanczos", "box", "hamming")
SIDES = ((23, 33), (31, 19))  # height and width of the images
Case = tuple[dict[str, Any], np.ndarray[Any, np.dtype[np.uint8]]]


def main() -> None:
    images = [_image(height, width, seed) for seed, (height, width) in enumerate(SIDES)]
    cases = [*_torchvision(images), *_torch(images), *_timm(images), *_transformers(images)]
    libraries = ("pillow", "torch", "torchvision", "timm", "transformers")
    versions = {name: importlib.metadata.version(name) for name in libraries}
    arrays = {f"image{number}": image for number, image in enumerate(images)}
    arrays["pixels"] = np.concatenate([pixels.ravel() for _, pixels in cases])
    records = [case | {"shape": pixels.shape} for case, pixels in cases]
    text = json.dumps({"versions": versions, "cases": records})
    arrays["cases"] = np.frombuffer(text.encode(), np.uint8)
    np.savez_compressed(OUT, allow_pickle=False, **arrays)


def _image(height: int, width: int, seed: int) -> np.ndarray[Any, np.dtype[np.uint8]]:
    """Waves with noise: smooth enough for filters to agree on, and no pixel like another."""
    random = np.random.default_rng(seed)
    rows, columns = np.mgrid[:height, :width]
    waves = [128 + 90 * np.sin(rows / (2 + channel) + columns / (5 - channel)) for channel in range(3)]
    return (np.stack(waves, axis=2) + random.integers(-30, 31, (height, width, 3))).clip(0, 255).astype(np.uint8)


def _torchvision(images: list[Any]) -> Iterator[Case]:
    from torchvision.transforms import CenterCrop, InterpolationMode, Resize

    for name in FILTERS:
        for image, resize in ((0, [11]), (1, [SIZE, SIZE + 4])):
            crop = [SIZE, SIZE] if len(resize) == 1 else resize
            mode = InterpolationMode(name)
            whole = resize if len(resize) == 2 else resize[0]
            done = CenterCrop(crop)(Resize(whole, mode)(PIL.Image.fromarray(images[image])))
            file = {"crop_size": crop, "resize_size": resize, "mean": MEAN, "std": STD, "interpolation": str(mode)}
            yield {"peer": "torchvision", "image": image, "file": file}, np.asarray(done)


def _torch(images: list[Any]) -> Iterator[Case]:
    """Without antialiasing, in float32."""
    import torch

    for name in ("bilinear", "bicubic"):
        for image, size in ((0, [SIZE, SIZE + 4]), (1, [42, 25])):
            tensor = torch.from_numpy(images[image]).permute(2, 0, 1)[None].float()
            done = torch.nn.functional.interpolate(tensor, size, mode=name, antialias=False, align_corners=False)
            pixels = done.round().clamp(0, 255).to(torch.uint8)[0].permute(1, 2, 0).numpy()[:12, :12]
            file = {"crop_size": size, "resize_size": size, "mean": MEAN, "std": STD, "interpolation": name}
            yield {"peer": "torch", "image": image, "file": file | {"antialias": False}}, pixels


def _timm(images: list[Any]) -> Iterator[Case]:
    from timm.data import create_transform, resolve_data_config

    for image, crop_pct, crop_mode, filter in (
        (0, 0.875, "center", "bicubic"),
        (1, 0.95, "center", "bilinear"),
        (0, 0.9, "squash", "bicubic"),
        (1, 1.0, "squash", "bilinear"),
    ):
        file = {"input_size": [3, SIZE, SIZE], "interpolation": filter, "crop_pct": crop_pct, "crop_mode": crop_mode}
        file |= {"mean": MEAN, "std": STD}
        transform = create_transform(**resolve_data_config(pretrained_cfg=file))
        steps = [step for step in transform.transforms if type(step).__name__ in ("Resize", "CenterCrop")]
        picture = PIL.Image.fromarray(images[image])
        for step in steps:
            picture = step(picture)
        yield {"peer": "timm", "image": image, "file": {"pretrained_cfg": file}}, np.asarray(picture)


def _transformers(images: list[Any]) -> Iterator[Case]:
    """The processors that resize with Pillow, without their last steps. Those of torchvision may differ by 1."""
    from transformers import BitImageProcessorPil, ConvNextImageProcessorPil, ViTImageProcessorPil

    moments = {"image_mean": MEAN, "image_std": STD}
    square = {"height": SIZE, "width": SIZE}
    for processor, file in (
        (ConvNextImageProcessorPil, {"crop_pct": 0.875, "size": {"shortest_edge": SIZE}, "resample": 3}),
        (
            BitImageProcessorPil,
            {"size": {"shortest_edge": 11}, "crop_size": square, "do_center_crop": True, "resample": 3},
        ),
        (ViTImageProcessorPil, {"size": square, "resample": 2}),
    ):
        file = {"image_processor_type": processor.__name__.removesuffix("Pil"), "do_resize": True, **file, **moments}
        worker = processor(**{name: value for name, value in file.items() if name != "image_processor_type"})
        for image in range(len(images)):
            picture = PIL.Image.fromarray(images[image])
            done = worker(picture, do_rescale=False, do_normalize=False, return_tensors="np")["pixel_values"][0]
            yield {"peer": "transformers", "image": image, "file": file}, done.transpose(1, 2, 0).astype(np.uint8)


if __name__ == "__main__":
    main()
