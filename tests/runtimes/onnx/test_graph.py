"""ONNX files looked at before a backend is: external data that reaches outside, cuts, mutations, nesting."""

from __future__ import annotations

import errno
import os
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import helper, numpy_helper

import runtimes
from runtimes import Artifact
from runtimes.errors import ArtifactError, CompatibilityError, RexportError, UnsafeArtifactError
from runtimes.onnx import external_data
from runtimes.onnx import graph as onnxfile
from tests.refusals import refuses

BACKENDS = [row.name for row in runtimes.available_backends() if "onnx" in row.formats and row.missing() is None]
WEIGHTS = np.random.default_rng(0).standard_normal((4, 3, 3, 3)).astype(np.float32)


def network(opset: int = 20, ir: int = 10, channels_last: bool = False) -> Any:
    """A convolution and a mean: ``image`` (n, 3, 8, 8) to ``scores`` (n, 4); or ``image`` (n, 8, 8, 3)."""
    nodes = [
        helper.make_node("Conv", ["x", "w"], ["c"], pads=[1, 1, 1, 1]),
        helper.make_node("GlobalAveragePool", ["c"], ["p"]),
        helper.make_node("Flatten", ["p"], ["scores"]),
    ]
    if channels_last:
        nodes.insert(0, helper.make_node("Transpose", ["image"], ["x"], perm=[0, 3, 1, 2]))
    else:
        nodes[0].input[0] = "image"
    shape = ("n", 8, 8, 3) if channels_last else ("n", 3, 8, 8)
    graph = helper.make_graph(
        nodes,
        "net",
        [helper.make_tensor_value_info("image", onnx.TensorProto.FLOAT, shape)],
        [helper.make_tensor_value_info("scores", onnx.TensorProto.FLOAT, ("n", 4))],
        [numpy_helper.from_array(WEIGHTS, "w")],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)])
    model.ir_version = ir
    return model


def expected(images: np.ndarray[tuple[int, ...], np.dtype[np.float32]]) -> np.ndarray[tuple[int, ...], Any]:
    padded = np.pad(images, ((0, 0), (0, 0), (1, 1), (1, 1)))
    windows = np.lib.stride_tricks.sliding_window_view(padded, (3, 3), (2, 3))
    scores: np.ndarray[tuple[int, ...], Any] = np.einsum("nchwij,kcij->nk", windows, WEIGHTS, optimize=True) / 64
    return scores


def save_model(model: Any, path: Path) -> Path:
    path.write_bytes(model.SerializeToString())
    return path


def outside(tensor: Any, location: str, **more: str) -> None:
    """Makes the tensor say that its data lies at ``location``."""
    tensor.ClearField("raw_data")
    tensor.data_location = onnx.TensorProto.EXTERNAL
    for key, value in ({"location": location} | more).items():
        entry = tensor.external_data.add()
        entry.key, entry.value = key, value


def with_external(folder: Path, location: str, **more: str) -> Path:
    model = network()
    outside(model.graph.initializer[0], location, **more)
    return save_model(model, folder / "net.onnx")


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("location", ["w.bin", "./w.bin", "sub/w.bin"])
def test_good_external_data_is_used(tmp_path: Path, backend: str, location: str) -> None:
    (tmp_path / location).parent.mkdir(exist_ok=True)
    (tmp_path / location).write_bytes(b"\0" * 4096 + WEIGHTS.tobytes())
    path = with_external(tmp_path, location, offset="4096", length=str(WEIGHTS.nbytes))
    assert onnxfile.read(path).external == ((location, 4096 + WEIGHTS.nbytes),)
    images = np.random.default_rng(1).standard_normal((2, 3, 8, 8), np.float32)
    with runtimes.open(path, backend) as runtime:
        np.testing.assert_allclose(runtime.infer({"image": images})["scores"], expected(images), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    ("location", "kind", "code", "values"),
    [
        ("../w.bin", UnsafeArtifactError, "external-data-outside", ()),
        ("sub/../../w.bin", UnsafeArtifactError, "external-data-outside", ()),
        ("/dev/zero", UnsafeArtifactError, "external-data-absolute", ()),
        ("/etc/passwd", UnsafeArtifactError, "external-data-absolute", ()),
        ("", UnsafeArtifactError, "external-data-absolute", ()),
        ("sub\\w.bin", UnsafeArtifactError, "external-data-absolute", ()),
        ("w\0.bin", UnsafeArtifactError, "external-data-absolute", ()),
        ("*/_ORT_MEM_ADDR_/*", ArtifactError, "external-data-missing", ()),
        ("none.bin", ArtifactError, "external-data-missing", (os.strerror(errno.ENOENT),)),
        ("x" * 300, ArtifactError, "external-data-missing", (os.strerror(errno.ENAMETOOLONG),)),
        ("net.onnx/w.bin", ArtifactError, "external-data-missing", (os.strerror(errno.ENOTDIR),)),
        ("link.bin", UnsafeArtifactError, "external-data-symlink", ()),
        ("linked/w.bin", UnsafeArtifactError, "external-data-symlink", ()),
        ("hard.bin", UnsafeArtifactError, "external-data-not-plain", ()),
        ("pipe", UnsafeArtifactError, "external-data-not-plain", ()),
        ("folder", UnsafeArtifactError, "external-data-not-plain", ()),
        (".", UnsafeArtifactError, "external-data-not-plain", ()),
        ("short.bin", ArtifactError, "external-data-too-short", (10, 432)),
    ],
)
@pytest.mark.timeout(20)
def test_bad_external_data_never_reaches_a_backend(
    tmp_path: Path, location: str, kind: type[RexportError], code: str, values: tuple[object, ...]
) -> None:
    folder = tmp_path / "model"
    (folder / "folder").mkdir(parents=True)
    (tmp_path / "w.bin").write_bytes(WEIGHTS.tobytes())
    (folder / "link.bin").symlink_to(tmp_path / "w.bin")
    (folder / "linked").symlink_to(tmp_path)
    os.link(tmp_path / "w.bin", folder / "hard.bin")
    os.mkfifo(folder / "pipe")  # nobody writes to it: whoever opens it for reading waits for ever
    (folder / "short.bin").write_bytes(b"0123456789")
    path = with_external(folder, location, length=str(WEIGHTS.nbytes))
    for backend in (None, *BACKENDS):
        with refuses(kind, code, *values):
            runtimes.open(path, backend)


@pytest.mark.parametrize(
    ("more", "code", "value"),
    [
        ({"offset": "-1"}, "onnx-place-negative", ""),
        ({"length": "-432"}, "onnx-place-negative", ""),
        ({"offset": "many"}, "onnx-broken", "'many'"),
        ({"length": "9" * 5_000}, "onnx-broken", "limit"),
        ({"offset": str(1 << 62)}, "external-data-too-short", f"{1 << 62:,}"),
    ],
)
def test_impossible_places_in_external_data(tmp_path: Path, more: dict[str, str], code: str, value: str) -> None:
    (tmp_path / "w.bin").write_bytes(WEIGHTS.tobytes())
    with refuses(ArtifactError, code, value):
        Artifact.read(with_external(tmp_path, "w.bin", **more))


def evil() -> Any:
    tensor = numpy_helper.from_array(WEIGHTS, "evil")
    outside(tensor, "../evil.bin")
    return tensor


def in_attribute() -> Any:
    model = network()
    model.graph.node.append(helper.make_node("Constant", [], ["k"], value=evil()))
    return model


def in_attribute_list() -> Any:
    model = network()
    attribute = onnx.AttributeProto(name="values", type=onnx.AttributeProto.TENSORS)
    attribute.tensors.append(evil())
    model.graph.node[0].attribute.append(attribute)
    return model


def in_subgraph() -> Any:
    model = network()
    inner = helper.make_graph([], "inner", [], [], [evil()])
    model.graph.node.append(helper.make_node("If", ["b"], ["k"], then_branch=inner, else_branch=inner))
    return model


def in_function() -> Any:
    model = network()
    node = helper.make_node("Constant", [], ["k"], value=evil())
    model.functions.append(helper.make_function("own", "F", [], ["k"], [node], [helper.make_opsetid("", 20)]))
    return model


def in_training() -> Any:
    model = network()
    model.training_info.add().algorithm.initializer.append(evil())
    return model


def in_sparse() -> Any:
    model = network()
    model.graph.sparse_initializer.add().values.CopyFrom(evil())
    return model


@pytest.mark.parametrize("make", [in_attribute, in_attribute_list, in_subgraph, in_function, in_training, in_sparse])
def test_external_data_is_found_wherever_a_tensor_can_lie(tmp_path: Path, make: Callable[[], Any]) -> None:
    with refuses(UnsafeArtifactError, "external-data-outside"):
        Artifact.read(save_model(make(), tmp_path / "net.onnx"))


# Protocol buffers by hand: what a parser skips must not hide what another reads.


def varint(value: int) -> bytes:
    result = bytearray()
    while value > 0x7F:
        result.append(value & 0x7F | 0x80)
        value >>= 7
    return bytes((*result, value))


def field(number: int, content: bytes | int, wire: int | None = None) -> bytes:
    if isinstance(content, int):
        return varint(number << 3 | (0 if wire is None else wire)) + varint(content)
    if wire is not None:
        return varint(number << 3 | wire) + content
    return varint(number << 3 | 2) + varint(len(content)) + content


HEAD = field(1, 10) + field(8, field(1, b"") + field(2, 20))


def holding(tensor: bytes) -> bytes:
    return HEAD + field(7, field(5, tensor))


LOCATION = field(1, b"location")


@pytest.mark.parametrize(
    "entry",
    [
        LOCATION + field(2, b"../evil.bin") + field(2, b"good", wire=5),
        LOCATION + field(2, b"../evil.bin") + field(2, b"good.bin", wire=1),
        LOCATION + field(2, b"../evil.bin") + field(2, 7),
        LOCATION + field(1, 7) + field(2, b"../evil.bin"),
        field(1, b"checksum") + LOCATION + field(2, b"good.bin") + field(2, b"../evil.bin"),
    ],
)
def test_a_field_of_the_wrong_wire_type_hides_nothing(tmp_path: Path, entry: bytes) -> None:
    for name in ("good", "good.bin"):
        (tmp_path / name).write_bytes(WEIGHTS.tobytes())
    path = tmp_path / "net.onnx"
    path.write_bytes(holding(field(13, entry)))
    with refuses(UnsafeArtifactError, "external-data-outside", "evil.bin"):
        external_data.check(path)


def test_two_locations_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "net.onnx"
    entries = field(13, LOCATION + field(2, b"../evil.bin")) + field(13, LOCATION + field(2, b"good.bin"))
    path.write_bytes(holding(entries))
    with refuses(ArtifactError, "onnx-entry-twice", "'location'"):
        external_data.check(path)


@pytest.mark.parametrize(
    ("content", "code", "value"),
    [
        (HEAD + varint(7 << 3 | 2 | 1 << 33) + b"\0", "onnx-field-number", 7 | 1 << 30),
        (HEAD + b"\x02\0", "onnx-field-number", 0),
        (HEAD + field(7, b"", wire=3), "onnx-wire-type", 3),
        (HEAD + field(7, b"", wire=7), "onnx-wire-type", 7),
        (HEAD + b"\x3a\xff\xff\xff\xff\x7f", "onnx-field-cut", ""),
        (HEAD + b"\x80" * 20, "onnx-number-cut", ""),
        (b"\x12\x03abc", "onnx-without-version", ""),
        (b"\x12\x00\x12", "onnx-number-cut", ""),
        (holding(field(13, field(1, b"\xff\xfe"))), "onnx-broken", "0xff"),
    ],
)
def test_broken_wire_format(tmp_path: Path, content: bytes, code: str, value: object) -> None:
    path = tmp_path / "net.onnx"
    path.write_bytes(content)
    with refuses(ArtifactError, code, value):
        external_data.check(path)


def test_nesting_has_an_end(tmp_path: Path) -> None:
    path = tmp_path / "net.onnx"
    for depth, refused in ((8, False), (11, True), (400, True)):
        graph = b""
        for _ in range(depth):
            graph = field(1, field(5, field(6, graph)))
        path.write_bytes(HEAD + field(7, graph))
        if refused:
            with refuses(ArtifactError, "onnx-nested-too-deeply"):
                external_data.check(path)
        else:
            external_data.check(path)


def test_what_a_file_says_of_itself(tmp_path: Path) -> None:
    model = network(opset=17, ir=8)
    model.opset_import.append(helper.make_opsetid("com.example", 3))
    found = onnxfile.read(save_model(model, tmp_path / "net.onnx"))
    assert found == onnxfile.OnnxFile(ir_version=8, opset=17, precisions=("float32",), external=())


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize(("opset", "ir", "named"), [(999, 10, "999"), (20, 99, "99"), (0, 10, "0")])
def test_versions_that_nobody_knows(tmp_path: Path, backend: str, opset: int, ir: int, named: str) -> None:
    path = save_model(network(opset, ir), tmp_path / "net.onnx")
    with pytest.raises(CompatibilityError) as caught:
        runtimes.open(path, backend)
    assert named in str(caught.value)
    assert "onnxruntime_src" not in str(caught.value)


@pytest.mark.parametrize("backend", BACKENDS)
def test_a_foreign_channels_last_network(tmp_path: Path, backend: str) -> None:
    path = save_model(network(opset=9, ir=4, channels_last=True), tmp_path / "net.onnx")
    images = np.random.default_rng(1).standard_normal((2, 3, 8, 8), np.float32)
    with runtimes.open(path, backend) as runtime:
        assert [spec.name for spec in (*runtime.inputs, *runtime.outputs)] == ["image", "scores"]
        assert runtime.inputs[0].shape[1:] == (8, 8, 3)
        result = runtime.infer({"image": images.transpose(0, 2, 3, 1)})["scores"]
    np.testing.assert_allclose(result, expected(images), rtol=1e-4, atol=1e-5)


LIGHT = Path(onnx.__file__).parent / "backend" / "test" / "data" / "light" / "light_resnet50.onnx"


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.skipif(not LIGHT.exists(), reason="this onnx comes without its light models")
def test_a_foreign_resnet50_of_opset_9(backend: str) -> None:
    assert onnxfile.read(LIGHT).opset == 9
    with runtimes.open(LIGHT, backend) as runtime:
        assert runtime.artifact.manifest is None
        image = {runtime.inputs[0].name: np.zeros((1, 3, 224, 224), np.float32)}
        result = runtime.infer(image)[runtime.outputs[0].name]
    assert result.shape == (1, 1000)
    np.testing.assert_allclose(result.sum(), 1, rtol=1e-4)


@pytest.mark.parametrize("backend", BACKENDS)
def test_a_cut_file_is_an_artifact_error(tmp_path: Path, backend: str) -> None:
    sound = network().SerializeToString()
    path = tmp_path / "net.onnx"
    for size in (0, 1, 8, *range(16, len(sound), 41), len(sound) - 1):
        path.write_bytes(sound[:size])
        with pytest.raises((ArtifactError, CompatibilityError)):
            runtimes.open(path, backend)


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("seed", range(2))
def test_mutations_end_in_declared_errors(tmp_path: Path, backend: str, seed: int) -> None:
    sound = network().SerializeToString()
    path = tmp_path / "net.onnx"
    dice = random.Random(seed)
    opened = 0
    for turn in range(60):
        content = bytearray(sound)
        for _ in range(dice.randint(1, 3)):
            at = dice.randrange(len(content))
            content[at] = dice.choice((dice.randrange(256), content[at] ^ (1 << dice.randrange(8))))
        path.write_bytes(content)
        try:
            runtimes.open(path, backend).close()
            opened += 1
        except RexportError as error:
            assert error.exit_code in (3, 4), f"seed {seed}, turn {turn}: {error!r}"  # noqa: PT017
    assert 0 < opened < 60
