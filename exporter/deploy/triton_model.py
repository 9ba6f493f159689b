"""A model of Triton's Python backend: it serves an artifact of rexport, images included.

``rexport triton --backend python`` copies this file as ``model.py``. It needs ``rexport`` and the library of the
artifact's backend in the Python environment of Triton; folders in ``PYTHONPATH`` are searched as well.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import triton_python_backend_utils as pb_utils

sys.path[:0] = [folder for folder in os.environ.get("PYTHONPATH", "").split(os.pathsep) if folder]  # ignored by Triton

import runtimes  # noqa: E402
from runtimes.errors import InputError, RexportError  # noqa: E402
from runtimes.images.preprocessing import fit_or_name  # noqa: E402
from runtimes.network_io import NetworkInput  # noqa: E402

IMAGE = "image"
"""The input of encoded images. A request has either this input or the network's own."""


class TritonPythonModel:
    """The model that Triton loads, one object for each instance."""

    def initialize(self, args: dict[str, str]) -> None:
        """Open the artifact.

        Raises:
            TritonModelException: The artifact cannot be opened, or is not the one of the configuration.
        """
        _check_transfer()
        parameters = {
            name: entry["string_value"] for name, entry in json.loads(args["model_config"])["parameters"].items()
        }
        version = args["model_version"]
        path = Path(args["model_repository"], version, parameters["rexport.file"])
        threads = parameters.get("rexport.threads")
        try:
            self._runtime = runtimes.open(
                path,
                parameters.get("rexport.backend"),
                parameters["rexport.device"],
                None if threads is None else int(threads),
            )
        except RexportError as error:
            raise pb_utils.TritonModelException(f"{error} [{error.code}]") from error
        manifest = self._runtime.artifact.manifest
        if manifest is None or manifest.sha256 != parameters.get(f"rexport.sha256.{version}"):
            raise pb_utils.TritonModelException(f"{path}: the configuration names another file for version {version}")
        if manifest.preprocessing is not None:
            self._preprocessing = manifest.preprocessing
            self._images = NetworkInput.find(self._runtime, manifest.preprocessing)

    def execute(self, requests: Sequence[Any]) -> list[Any]:
        """Answer requests, each with its own answer or its own error. All rows go through the network at once."""
        answers: list[Any] = [None] * len(requests)
        rows: list[tuple[int, Any]] = []
        for number, request in enumerate(requests):
            try:
                rows.append((number, self._feed(request)))
            except RexportError as error:
                answers[number] = _refusal(error)
        if rows:
            self._answer(rows, answers)
        return answers

    def _feed(self, request: Any) -> Any:
        """Return the network's input for a request."""
        spec = self._runtime.inputs[0]
        tensors = {tensor.name(): tensor for tensor in request.inputs()}
        if len(tensors) != 1:
            raise InputError(f"send {IMAGE} or {spec.name}, not both", code="inputs-both")
        if spec.name in tensors:
            return tensors[spec.name].as_numpy()
        images = [bytes(image) for image in tensors[IMAGE].as_numpy().reshape(-1)]
        pixels = [fit_or_name(image, self._preprocessing, number) for number, image in enumerate(images)]
        return self._images.from_pixels(np.stack(pixels), self._preprocessing)

    def _answer(self, rows: Sequence[tuple[int, Any]], answers: list[Any]) -> None:
        name = self._runtime.inputs[0].name
        ends = np.cumsum([len(feed) for _, feed in rows])
        try:
            outputs = self._runtime.infer({name: np.concatenate([feed for _, feed in rows])})
        except RexportError as error:
            for number, _ in rows:
                answers[number] = _refusal(error)
            return
        for (number, feed), end in zip(rows, ends, strict=True):
            part = slice(end - len(feed), end)
            answers[number] = pb_utils.InferenceResponse(
                [pb_utils.Tensor(key, np.ascontiguousarray(value[part])) for key, value in outputs.items()]
            )

    def finalize(self) -> None:
        """Free the network, when no request is running any more."""
        self._runtime.close()


def _refusal(error: RexportError) -> Any:
    return pb_utils.InferenceResponse(error=pb_utils.TritonError(f"{error} [{error.code}]"))


def _check_transfer() -> None:
    """Raise an error if this Triton misreads the arrays of this NumPy, as those before NumPy 2 do with NumPy 2."""
    sent = np.arange(1, 9, dtype=np.float32)
    received = pb_utils.Tensor.from_dlpack("y", pb_utils.Tensor("x", sent)).as_numpy()  # read from memory, as a request
    if not np.array_equal(sent, received):
        raise pb_utils.TritonModelException(
            f"this Triton cannot exchange arrays with NumPy {np.__version__} (pip install 'numpy<2')"
        )
