"""The configuration of a model for Triton: a ``ModelConfig`` message of a manifest, and of a ``config.pbtxt``."""

from __future__ import annotations

import importlib
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from exporter.deploy.served import BYTES, DATATYPES, EXTRA
from exporter.deploy.triton_settings import (
    BACKENDS,
    MODEL_FILES,
    TritonBackend,
    TritonSettings,
    largest_batch,
)
from runtimes import files
from runtimes.artifacts.manifest import Manifest
from runtimes.errors import ArtifactError, BackendUnavailableError, CompatibilityError, quote
from runtimes.images.spec import IMAGE_CHANNELS
from runtimes.libraries import importing, missing_library
from runtimes.network_io import LOGITS
from runtimes.tensors.spec import TensorSpec

CONFIG_LIMIT_BYTES = 1 << 20
"""The largest size of a ``config.pbtxt``."""

IMAGE = "image"
"""The input of encoded images, which a model of the Python backend has beside the network's own input."""

FILE_KEY, DIGEST_KEY, BACKEND_KEY, DEVICE_KEY = (
    "rexport.file", "rexport.sha256.", "rexport.backend", "rexport.device",
)  # fmt: skip
"""The parameters that rexport writes. The digest's key ends in the version."""


def build_config(name: str, manifest: Manifest, settings: TritonSettings, digests: Mapping[int, str]) -> Any:
    """Return the configuration as a ``ModelConfig`` message.

    Args:
        name: The name of the model.
        manifest: The manifest of its newest version.
        settings: How Triton runs the model.
        digests: The SHA-256 of the model file of each version.

    Raises:
        BackendUnavailableError: The library with the message is not installed.
        CompatibilityError: As for ``TritonSettings.backend_for``.
        UsageError: As for ``TritonSettings.backend_for`` and ``largest_batch``.
    """
    messages, backend = _messages(), settings.backend_for(manifest)
    row, most = BACKENDS[backend], largest_batch(manifest, settings)
    device = settings.device or row.devices[0]
    config = messages.ModelConfig(
        name=name,
        backend=backend,
        default_model_filename="model.py" if backend == "python" else MODEL_FILES[manifest.format],
        max_batch_size=most,
        input=[_tensor(messages.ModelInput, spec, most) for spec in manifest.inputs],
        output=[_tensor(messages.ModelOutput, spec, most) for spec in manifest.outputs],
        instance_group=[
            messages.ModelInstanceGroup(count=settings.instances, kind="KIND_CPU" if device == "cpu" else "KIND_GPU")
        ],
        version_policy=messages.ModelVersionPolicy(latest=messages.ModelVersionPolicy.Latest(num_versions=1)),
    )
    if most:
        config.dynamic_batching.max_queue_delay_microseconds = round(settings.delay_s * 1e6)
        config.dynamic_batching.default_queue_policy.max_queue_size = settings.queue
    if backend == "python" and takes_images(manifest):
        for entry in config.input:
            entry.optional = True
        dims = [1] if most else [manifest.inputs[0].fixed_batch]
        config.input.append(messages.ModelInput(name=IMAGE, data_type="TYPE_STRING", dims=dims, optional=True))
    if labels_of(manifest) is not None and config.output[0].name == LOGITS:
        config.output[0].label_filename = "labels.txt"
    for key, value in _parameters(manifest, settings, backend, digests).items():
        config.parameters[key].string_value = value
    _add_warmup(messages, config)
    return config


def labels_of(manifest: Manifest) -> tuple[str, ...] | None:
    """Return the labels that Triton can give to the numbers of the logits, or ``None``.

    Triton gives the first label to the first number. One output is the score of the second of two labels, so that it
    would get the wrong one.
    """
    sizes = {spec.name: spec.shape[-1] for spec in manifest.outputs}
    return manifest.labels if manifest.labels is not None and sizes.get(LOGITS) == len(manifest.labels) else None


def takes_images(manifest: Manifest) -> bool:
    """Return whether ``model.py`` can prepare encoded images for the network: grey or colour ones, as known."""
    return manifest.preprocessing is not None and manifest.preprocessing.channels in IMAGE_CHANNELS


def _parameters(
    manifest: Manifest, settings: TritonSettings, backend: TritonBackend, digests: Mapping[int, str]
) -> dict[str, str]:
    row = BACKENDS[backend]
    values = {FILE_KEY: MODEL_FILES[manifest.format]}
    values |= {f"{DIGEST_KEY}{version}": digest for version, digest in sorted(digests.items())}
    if settings.threads is not None and row.threads_key is not None:
        values[row.threads_key] = str(settings.threads)
    if backend == "python":
        values[DEVICE_KEY] = settings.device or row.devices[0]
        if settings.opened_with is not None:
            values[BACKEND_KEY] = settings.opened_with
    return values


def _tensor(kind: Any, spec: TensorSpec, most: int) -> Any:
    shape = spec.shape[1:] if most else spec.shape
    sizes = [size if isinstance(size, int) else -1 for size in shape]
    return kind(name=spec.name, data_type=_type_name(spec.dtype), dims=sizes)


def _type_name(dtype: str) -> str:
    key = next((key for key, name in DATATYPES.items() if name == dtype), None)
    if key is None:
        raise CompatibilityError(f"Triton has no data type {dtype}", code="triton-dtype-unknown")
    return "TYPE_STRING" if key == BYTES else f"TYPE_{key}"


def warmup_file(name: str) -> str:
    """Return the name of the file, in the folder ``warmup``, that holds the warm-up request of an input."""
    return f"{name}.bin"


def _add_warmup(messages: Any, config: Any) -> None:
    """Add a request for each input, of one image, or of a fixed batch. A request never has both kinds of input."""
    for entry in config.input:
        source = messages.ModelWarmup.Input(
            data_type=entry.data_type, dims=entry.dims, input_data_file=warmup_file(entry.name)
        )
        config.model_warmup.append(
            messages.ModelWarmup(name=f"first test vector: {entry.name}", batch_size=1, inputs={entry.name: source})
        )


def as_text(config: Any) -> str:
    """Return a configuration as the text of ``config.pbtxt``."""
    text = importlib.import_module("google.protobuf.text_format").MessageToString(config)
    return f"# Written by rexport triton, which also reads it again.\n{text}"


def parse_config(text: str, path: Path) -> Any:
    """Return the ``ModelConfig`` message of the text of a ``config.pbtxt``.

    Args:
        text: The text.
        path: The file, for the message.

    Raises:
        ArtifactError: The text has an unknown field, or a value of the wrong kind. The message names line and column.
        BackendUnavailableError: The library with the message is not installed.
    """
    messages = _messages()
    library = importlib.import_module("google.protobuf.text_format")
    try:
        return library.Parse(text, messages.ModelConfig())
    except library.ParseError as error:
        raise ArtifactError(
            f"this is not a configuration of a model: {quote(error)}",
            code="triton-config-invalid",
            path=path,
            hint="rexport triton writes it again in an empty folder",
        ) from error


def read_config(folder: Path) -> Any:
    """Return the configuration of a model in a repository, as a message.

    Args:
        folder: The folder of the model.

    Raises:
        ArtifactError: The folder has no configuration that rexport wrote, or it is broken.
        ResourceError: The file cannot be read.
    """
    path = folder / "config.pbtxt"
    if not path.is_file():
        raise _foreign(folder, "has no config.pbtxt")
    config = parse_config(files.read_bounded(path, CONFIG_LIMIT_BYTES).decode("utf-8", "replace"), path)
    if FILE_KEY not in config.parameters:
        raise _foreign(folder, "holds a model that rexport did not write")
    return config


def _foreign(folder: Path, what: str) -> ArtifactError:
    return ArtifactError(
        f"the folder {what}", code="triton-folder-foreign", path=folder, hint="choose another --name or folder"
    )


def digests_of(config: Any) -> dict[int, str]:
    """Return the digests of the model files that a configuration names, by version."""
    found = {}
    for key, value in config.parameters.items():
        match = re.fullmatch(rf"{re.escape(DIGEST_KEY)}([1-9]\d*)", key)
        if match:
            found[int(match[1])] = value.string_value
    return found


def interface_of(config: Any) -> dict[str, object]:
    """Return what clients of a model rely on, and what all its versions share: it must not change with a version."""
    return {
        "backend": config.backend,
        "file": config.parameters[FILE_KEY].string_value,
        "inputs": [(each.name, each.data_type, list(each.dims)) for each in config.input],
        "outputs": [(each.name, each.data_type, list(each.dims)) for each in config.output],
        "batching": config.max_batch_size > 0,
    }


def _messages() -> Any:
    missing = missing_library("tritonclient", EXTRA)
    if missing is not None:
        raise BackendUnavailableError(str(missing), code=missing.code)
    with importing("tritonclient", EXTRA):
        return importlib.import_module("tritonclient.grpc.model_config_pb2")
