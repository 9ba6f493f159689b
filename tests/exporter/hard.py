"""A network that int8 breaks: a few channels are much larger than the others, so that one scale does not fit them all.

In float32 it is the same function as without: the next convolution takes the channels as much smaller.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from PIL import Image
from safetensors.torch import save_file

from exporter.export_request import ExportRequest
from exporter.models.resnet import build
from exporter.preprocessing.options import PreprocessingOptions
from tests.exporter.small import BASIC

LAYER = "layer2.0.conv2/Conv"
"""The layer that takes the channels of wrong scale."""

FACTOR = 2000.0
"""How much larger one of the channels is."""

WEIGHT = 8.0
"""How much larger the output of the block is than its shortcut, so that the error of the layer counts."""

IMAGES = 40


def hard_request(folder: Path, out: Path) -> ExportRequest:
    """The export of the network, with images in ``folder/images`` whose classes are its own predictions."""
    torch.manual_seed(0)
    model = build(BASIC)
    model.eval()
    state = {name: value.clone() for name, value in model.state_dict().items()}
    block = LAYER.partition(".conv2")[0]
    state[f"{block}.bn2.weight"] *= WEIGHT
    for name in ("weight", "bias"):
        state[f"{block}.bn1.{name}"][0] *= FACTOR
    state[f"{block}.conv2.weight"][:, 0] /= FACTOR
    save_file(state, folder / "hard.safetensors")
    model.load_state_dict(state)
    pixels = np.random.default_rng(1).integers(0, 256, (IMAGES, *BASIC.size, 3), np.uint8)
    with torch.inference_mode():
        inputs = (torch.from_numpy(pixels).permute(0, 3, 1, 2).float() / 255 - 0.5) / 0.25
        targets = model(inputs).argmax(1).tolist()
    targets[: BASIC.classes] = range(BASIC.classes)  # each class has an image
    for number, target in enumerate(targets):
        path = folder / "images" / str(target) / f"{number:03}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(pixels[number]).save(path)
    return ExportRequest(
        BASIC,
        f"{out}/",
        weights=str(folder / "hard.safetensors"),
        preprocessing=PreprocessingOptions(mean=(0.5, 0.5, 0.5), std=(0.25, 0.25, 0.25)),
        data=str(folder / "images"),
        force=True,
    )
