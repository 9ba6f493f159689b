"""The image input of an opened network, and the outputs that a classifier uses."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from runtimes.errors import ArtifactError, CompatibilityError, ModelMismatchError
from runtimes.images.preprocessing import Pixels, normalise
from runtimes.images.spec import IMAGE_CHANNELS, Preprocessing
from runtimes.runtime import Runtime
from runtimes.tensors.spec import TensorSpec

LOGITS, FEATURES, CAM = "logits", "features", "cam"
"""The names of the outputs that a classifier uses."""


@dataclass(frozen=True)
class NetworkInput:
    """The image input of a network.

    Attributes:
        spec: The specification of the input.
        channels_last: Whether the input is (n, h, w, c) and not (n, c, h, w).
        batch: The fixed batch, or ``None`` if the batch may vary.
    """

    spec: TensorSpec
    channels_last: bool
    batch: int | None

    @classmethod
    def find(cls, runtime: Runtime, preprocessing: Preprocessing) -> NetworkInput:
        """Return the image input of an opened network.

        Args:
            runtime: The opened network.
            preprocessing: The preparation of images, whose size and channels have to fit.

        Raises:
            ArtifactError: The network does not take images.
            ModelMismatchError: The images from ``preprocessing`` do not fit the input.
        """
        path, hint = runtime.artifact.path, "pass arrays with runtimes.open and Runtime.infer"
        spec = runtime.inputs[0] if len(runtime.inputs) == 1 else None
        if spec is None or len(spec.shape) != 4 or not (_takes_pixels(spec) or np.dtype(spec.dtype).kind == "f"):
            inputs = "; ".join(map(str, runtime.inputs))
            raise ArtifactError(
                f"the network is not an image classifier: its inputs are {inputs}",
                code="input-not-images",
                path=path,
                hint=hint,
            )
        size = preprocessing.size
        first = _fits(spec, (preprocessing.channels, *size))
        last = _fits(spec, (*size, preprocessing.channels))
        if last or (first and not _takes_pixels(spec)):
            return cls(spec, _takes_pixels(spec) or not first, spec.fixed_batch)
        if first:
            raise ArtifactError(
                f"a network of raw pixels must take channels last, but its input is {spec}",
                code="pixels-channels-first",
                path=path,
                hint=hint,
            )
        raise ModelMismatchError(
            f"preprocessing gives {preprocessing.channels} channels of {size[0]} x {size[1]} pixels, but the network's "
            f"input is {spec}",
            code="preprocessing-mismatch",
            path=path,
            hint="pass a preprocessing of this size and number of channels",
        )

    def from_pixels(self, pixels: Pixels, preprocessing: Preprocessing, fill: bool = True) -> NDArray[Any]:
        """Return the network's input for fitted images.

        Args:
            pixels: The images, uint8 (n, h, w, c).
            preprocessing: The normalisation of a network that takes floats.
            fill: Whether zeros fill a fixed batch.
        """
        inputs: NDArray[Any] = pixels
        if not _takes_pixels(self.spec):
            inputs = normalise(pixels, preprocessing)
            inputs = inputs.transpose(0, 2, 3, 1) if self.channels_last else inputs
        if fill and self.batch is not None and len(inputs) < self.batch:
            inputs = np.concatenate([inputs, np.zeros((self.batch - len(inputs), *inputs.shape[1:]), inputs.dtype)])
        return np.ascontiguousarray(inputs, self.spec.dtype)


def check_image_channels(channels: int | None, path: Path) -> None:
    """Check that image files can be prepared for a network, before any of them is read.

    Args:
        channels: The number of input channels, or ``None`` if unknown.
        path: The model file.

    Raises:
        CompatibilityError: No image file has so many channels.
    """
    if channels is not None and channels not in IMAGE_CHANNELS:
        raise CompatibilityError(
            f"the network takes {channels} channels, and image files have {' or '.join(map(str, IMAGE_CHANNELS))}",
            code="channels-not-of-images",
            path=path,
            hint="rexport serve takes its tensors",
        )


def _takes_pixels(spec: TensorSpec) -> bool:
    """Return whether the network takes raw pixels and normalises them in the graph."""
    return spec.dtype == "uint8"


def _fits(spec: TensorSpec, shape: tuple[int, ...]) -> bool:
    return all(
        isinstance(expected, str) or expected == size for expected, size in zip(spec.shape[1:], shape, strict=True)
    )


def find_outputs(runtime: Runtime) -> dict[str, TensorSpec]:
    """Return the outputs that a classifier uses, by what they are.

    The logits are the output called ``logits``. A network without one is a trunk if an output is called ``features``,
    ``cam`` or ``stage1``; in any other network, the first output is the logits.

    Args:
        runtime: The opened network.

    Raises:
        ArtifactError: An output has not the expected number of dimensions.
    """
    known = {spec.name: spec for spec in runtime.outputs}
    result = {name: known[name] for name in (LOGITS, FEATURES, CAM) if name in known}
    if not result and "stage1" not in known:
        result = {LOGITS: runtime.outputs[0]}
    for name, spec in result.items():
        if len(spec.shape) != (4 if name == CAM else 2):
            raise ArtifactError(
                f"the network is not a classifier: its output {name} is {spec}",
                code="output-not-classes",
                path=runtime.artifact.path,
                hint="read the output with runtimes.open and Runtime.infer",
            )
    return result
