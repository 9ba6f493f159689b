"""Files that people name as weights and that are none, as the programs write them, by what they are."""

from __future__ import annotations

import gzip
import io
import json
import lzma
import pickle
import struct
import tarfile
import warnings
import zipfile
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import nn

from exporter.models import resnet
from exporter.models.variants import variant

Content = Callable[[], bytes]
"""Makes the content of a file."""


def saved(content: object, **options: Any) -> bytes:
    """What ``torch.save`` writes."""
    buffer = io.BytesIO()
    torch.save(content, buffer, **options)
    return buffer.getvalue()


def network() -> dict[str, torch.Tensor]:
    """The state dict of resnet20."""
    return dict(resnet.build(variant("resnet20")).state_dict())


def replaced(**tensors: object) -> bytes:
    """A state dict in which a tensor is another."""
    return saved({**network(), **{name.replace("__", "."): tensor for name, tensor in tensors.items()}})


def zipped(**entries: bytes) -> bytes:
    """A zip archive; in a name, two underscores are a slash and one is a dot."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for name, content in entries.items():
            archive.writestr(zipfile.ZipInfo(name.replace("__", "/").replace("_", ".")), content)
    return buffer.getvalue()


def tarred(name: str, content: bytes) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        member = tarfile.TarInfo(name)
        member.size = len(content)
        archive.addfile(member, io.BytesIO(content))
    return buffer.getvalue()


def numpy_state(protocol: int = 4) -> bytes:
    """NumPy arrays, as converters from other frameworks pickle them."""
    return pickle.dumps({name: tensor.numpy() for name, tensor in network().items()}, protocol)


def jit_archive() -> bytes:
    buffer = io.BytesIO()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.jit.save(torch.jit.script(nn.Linear(2, 2)), buffer)
    return buffer.getvalue()


def program() -> bytes:
    """A ``.pt2`` file of ``torch.export``."""
    buffer = io.BytesIO()
    torch.export.save(torch.export.export(nn.Linear(2, 2), (torch.ones(1, 2),)), buffer)
    return buffer.getvalue()


def quantised() -> torch.Tensor:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return torch.quantize_per_tensor(torch.ones(10, 64), 0.1, 0, torch.qint8)


def shard_index() -> bytes:
    """The index of a checkpoint in several files, as Hugging Face writes it."""
    names = {"conv1.weight": "model-00001-of-00002.safetensors", "fc.weight": "model-00002-of-00002.safetensors"}
    return json.dumps({"metadata": {"total_size": 1}, "weight_map": names}, indent=2).encode()


def safetensors_of(dtype: str, size: int) -> bytes:
    header = json.dumps({"fc.weight": {"dtype": dtype, "shape": [8], "data_offsets": [0, 8 * size]}}).encode()
    return struct.pack("<Q", len(header)) + header + bytes(8 * size)


FOREIGN: dict[str, tuple[Content, str, str]] = {
    "quantised tensor": (lambda: replaced(fc__weight=quantised()), "weights-not-tensors", "quantised"),
    "numpy arrays in torch.save": (
        lambda: saved({name: tensor.numpy() for name, tensor in network().items()}), "weights-not-tensors", "from_numpy"
    ),
    "numpy arrays in a pickle": (numpy_state, "weights-not-tensors", "from_numpy"),
    "numpy arrays, protocol 2": (lambda: numpy_state(2), "weights-not-tensors", "from_numpy"),
    "npz": (lambda: npz(), "weights-unrecognised", "npz"),
    "npy": (lambda: npy(), "weights-unrecognised", "npy"),
    "whole module": (lambda: saved(nn.Linear(2, 2)), "pickle-calls-code", "state_dict"),
    "settings beside the weights": (
        lambda: saved({"state_dict": network(), "args": __import__("argparse").Namespace(lr=1)}),
        "pickle-calls-code", "argparse.Namespace",
    ),
    "pickle, protocol 0": (lambda: pickle.dumps({"a": 1}, 0), "weights-unrecognised", "pickle"),
    "pickle, protocol 4": (lambda: pickle.dumps({"a": 1}, 4), "foreign-pickle", "pickle"),
    "torch.save with protocol 4": (lambda: saved(network(), pickle_protocol=4), "pickle-protocol", "4"),
    "sparse tensor": (lambda: replaced(fc__weight=torch.eye(10, 64).to_sparse()), "weights-not-tensors", "to_dense"),
    "meta tensor": (
        lambda: replaced(fc__weight=torch.ones(10, 64, device="meta")), "weights-not-tensors", "meta device"
    ),
    "complex tensor": (
        lambda: replaced(fc__weight=torch.ones(10, 64, dtype=torch.complex64)), "tensor-dtype-wrong", "complex64"
    ),
    "float8 tensor": (
        lambda: replaced(fc__weight=torch.ones(10, 64).to(torch.float8_e4m3fn)), "tensor-dtype-wrong", "float8_e4m3fn"
    ),
    "int8 tensor": (lambda: replaced(fc__weight=torch.ones(10, 64).to(torch.int8)), "tensor-dtype-wrong", "int8"),
    "4-bit safetensors": (lambda: safetensors_of("F4", 1), "tensor-dtype-unknown", "F4"),
    "shard index": (shard_index, "weights-unrecognised", "model-00001-of-00002.safetensors"),
    "configuration in JSON": (lambda: b'{"architectures": ["ResNet"]}', "weights-unrecognised", "JSON"),
    "keras h5": (lambda: b"\x89HDF\r\n\x1a\n" + bytes(2048), "weights-unrecognised", "HDF5"),
    "keras archive": (
        lambda: zipped(metadata_json=b"{}", config_json=b"{}", model_weights_h5=b"\x89HDF\r\n\x1a\n"),
        "weights-unrecognised", "Keras",
    ),
    "TensorFlow checkpoint": (lambda: tensorflow_index(), "weights-unrecognised", "TensorFlow"),
    "TensorFlow Lite": (lambda: b"\x1c\x00\x00\x00TFL3" + bytes(64), "weights-unrecognised", "TensorFlow"),
    "GGUF": (lambda: b"GGUF\x03\x00\x00\x00" + bytes(64), "weights-unrecognised", "GGUF"),
    "ONNX": (lambda: b"\x08\x08\x12\x07pytorch\x1a\x032.7" + bytes(64), "weights-unrecognised", "ONNX"),
    "TensorRT engine": (lambda: b"ftrt" + bytes(64), "weights-unrecognised", "TensorRT"),
    "git-lfs pointer": (
        lambda: b"version https://git-lfs.github.com/spec/v1\noid sha256:" + b"0" * 64 + b"\nsize 9\n",
        "weights-unrecognised", "git lfs pull",
    ),
    "HTML page": (lambda: b"\n<!DOCTYPE html><html><body>404</body></html>", "weights-unrecognised", "HTML"),
    "XML error of a bucket": (
        lambda: b'<?xml version="1.0"?><Error><Code>AccessDenied</Code></Error>', "weights-unrecognised", "XML"
    ),
    "JSON error of a server": (lambda: b'{"error": "Entry not found"}', "weights-unrecognised", "JSON"),
    "plain text": (lambda: b"Access to model is restricted.\n" * 3, "weights-unrecognised", "text"),
    "empty file": (lambda: b"", "weights-unrecognised", "empty"),
    "zeros": (lambda: bytes(4096), "weights-unrecognised", "zeros"),
    "TorchScript": (jit_archive, "torchscript-program", "TorchScript"),
    ".pt2 program": (program, "pt2-program", ".pt2"),
    ".pth.tar that is a tar": (lambda: tarred("model/best.pth", saved({"a": 1})), "weights-unrecognised", "best.pth"),
    "gzip": (lambda: gzip.compress(saved(network()), mtime=0), "weights-unrecognised", "gunzip"),
    "xz": (lambda: lzma.compress(b"x" * 100), "weights-unrecognised", "unxz"),
    "bzip2": (lambda: __import__("bz2").compress(b"x" * 100), "weights-unrecognised", "bunzip2"),
    "zstd": (lambda: b"\x28\xb5\x2f\xfd" + bytes(64), "weights-unrecognised", "unzstd"),
    "7z": (lambda: b"7z\xbc\xaf\x27\x1c" + bytes(64), "weights-unrecognised", "7z"),
    "rar": (lambda: b"Rar!\x1a\x07\x01\x00" + bytes(64), "weights-unrecognised", "RAR"),
    "zip with a checkpoint": (lambda: zipped(runs__best_pth=saved({"a": 1})), "weights-unrecognised", "runs/best.pth"),
    "image": (lambda: b"\x89PNG\r\n\x1a\n" + bytes(64), "weights-unrecognised", "PNG"),
    "PyTorch tar of 2016": (lambda: tarred("pickle", b"\x80\x02}q\x00."), "weights-unrecognised", "0.1"),
    "optimizer alone": (lambda: saved(torch.optim.SGD(nn.Linear(2, 2).parameters(), 0.1).state_dict()),
                        "weights-optimizer-only", "optimizer"),
    "list of tensors": (lambda: saved([torch.ones(2)]), "state-dict-missing", "list"),
}  # fmt: skip
"""What a file is: its content, the code of the refusal, and what the message names."""


def npz() -> bytes:
    buffer = io.BytesIO()
    np.savez(buffer, **{"conv1.weight": np.ones(3)})
    return buffer.getvalue()


def npy() -> bytes:
    buffer = io.BytesIO()
    np.save(buffer, np.ones(3))
    return buffer.getvalue()


def tensorflow_index() -> bytes:
    """The end of an index of TensorFlow: the magic number of a table."""
    return bytes(200) + struct.pack("<Q", 0xDB4775248B80FB57)
