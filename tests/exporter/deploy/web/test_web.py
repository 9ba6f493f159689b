"""What is written for a page, and what is refused. No browser opens these pages."""

from __future__ import annotations

import base64
import hashlib
import json
import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper
from PIL import Image

from exporter import cli
from exporter.deploy import page_files
from exporter.deploy.web import SiteRequest, write_site
from exporter.deploy.web_runtime import CODE, WASM
from exporter.preprocessing.options import PreprocessingOptions
from runtimes import Artifact
from runtimes.errors import CompatibilityError, InputError, UsageError
from tests.conftest import FakeFactory
from tests.exporter.command_line import here
from tests.exporter.small import SILENT, reason_codes, recording
from tests.refusals import error_codes, refuses


@pytest.fixture
def request_(labelling: Artifact, unused_runtime: Path, tmp_path: Path) -> SiteRequest:
    return SiteRequest(labelling.path, f"{tmp_path}/site/", unused_runtime)


def test_a_folder_holds_what_its_description_names(request_: SiteRequest, labelling: Artifact) -> None:
    notices, listener = recording()
    page = write_site(request_, listener)
    model = json.loads((page.parent / "model.json").read_text())
    for file in model["files"].values():
        content = (page.parent / file["path"]).read_bytes()
        assert (len(content), hashlib.sha256(content).hexdigest()) == (file["bytes"], file["sha256"])
    assert (page.parent / model["files"]["model"]["path"]).read_bytes() == labelling.path.read_bytes()
    assert model["outputs"] == {"logits": "logits", "cam": "cam"}
    assert model["labels"][9] == "Ankle boot"
    assert model["input"] == {
        "name": "input",
        "dtype": "float32",
        "channels_last": False,
        "shape": [1, 3, 32, 32],
    }
    assert len(model["samples"]) == 5
    assert reason_codes(notices) == ["web-runtime-version"]
    missing = [name for name in page_files.MODULES if not (page.parent / name).is_file()]
    assert missing == []


def test_the_check_is_the_first_test_vector(request_: SiteRequest, labelling: Artifact) -> None:
    check = json.loads((write_site(request_, SILENT).parent / "model.json").read_text())["check"]
    vectors = labelling.vectors()
    values = np.frombuffer(base64.b64decode(check["input"]), np.float32)
    np.testing.assert_array_equal(values, vectors.inputs[0].ravel())
    np.testing.assert_array_equal(np.float32(check["logits"]), vectors.logits[0])


def test_a_page_is_replaced_only_by_force(request_: SiteRequest) -> None:
    page = write_site(request_, SILENT)
    before = page.stat().st_ino
    with refuses(UsageError, "target-exists", page):
        write_site(request_, SILENT)
    assert page.stat().st_ino == before
    write_site(replace(request_, force=True), SILENT)
    assert page.stat().st_ino != before


@pytest.mark.parametrize("name", ["page.css", "model.json", "labeller.js"])
def test_a_file_beside_the_page_is_replaced_only_by_force(request_: SiteRequest, name: str) -> None:
    request_.page.parent.mkdir(exist_ok=True)
    path = request_.page.with_name(name)
    path.write_text("mine")
    with refuses(UsageError, "target-exists", name):
        write_site(request_, SILENT)
    assert (path.read_text(), request_.page.exists()) == ("mine", False)
    write_site(replace(request_, force=True), SILENT)
    assert path.read_text() != "mine"


def test_the_model_beside_its_page_stays(request_: SiteRequest) -> None:
    own = [request_.page.with_name("model.onnx"), request_.page.parent / "runtime" / "ort.wasm.min.mjs"]
    own[1].parent.mkdir(parents=True)
    for path in own:
        path.write_bytes(request_.model.read_bytes())
    write_site(replace(request_, model=own[0]), SILENT)
    assert [path.read_bytes() for path in own] == [request_.model.read_bytes()] * 2


def test_a_single_page_allows_its_own_code_alone(request_: SiteRequest, tmp_path: Path) -> None:
    page = write_site(replace(request_, out=f"{tmp_path}/page.html"), SILENT).read_text()
    policy = re.search(r'http-equiv="Content-Security-Policy" content="([^"]+)"', page)
    assert policy is not None
    for tag in ("style", 'script type="module"'):
        text = re.search(rf"<{tag}>(.*?)</{tag.split()[0]}>", page, re.DOTALL)
        assert text is not None
        digest = base64.b64encode(hashlib.sha256(text[1].encode()).digest()).decode()
        assert f"'sha256-{digest}'" in policy[1]
    assert "connect-src 'none'" in policy[1]
    assert not re.search(r'(src|href)="(?!data:)', page)


def test_words_of_a_model_do_not_become_markup(request_: SiteRequest, tmp_path: Path) -> None:
    names = tmp_path / "names.txt"
    names.write_text("\n".join(["</script><script>alert(1)</script>", *map(str, range(9))]))
    page = write_site(replace(request_, out=f"{tmp_path}/page.html", labels=names), SILENT).read_text()
    assert "alert(1)" in page
    assert "<script>alert" not in page


def test_the_combined_module_has_no_imports_and_no_name_twice() -> None:
    combined = page_files.combine_modules()
    assert not re.search(r"^\s*(import|export) .*from", combined, re.MULTILINE)
    assert not re.search(r"^export ", combined, re.MULTILINE)
    assert repeated_names(combined) == []


def test_a_name_twice_in_the_combined_module_is_found() -> None:
    assert repeated_names(page_files.combine_modules() + "\nfunction near(x) {}\n") == ["near"]


def repeated_names(combined: str) -> list[str]:
    """Names that two modules define: in one scope, the second definition replaces the first or is an error."""
    names = re.findall(r"^(?:async )?(?:function|class|const) (\w+)", combined, re.MULTILINE)
    return sorted({name for name in names if names.count(name) > 1})


def test_other_formats_are_refused(request_: SiteRequest, fake_artifact: FakeFactory) -> None:
    with refuses(CompatibilityError, "web-needs-onnx", "fake"):
        write_site(replace(request_, model=fake_artifact().path), SILENT)


def pooling(path: Path, channels: int, output: str, kind: int = TensorProto.FLOAT) -> Path:
    """Writes a network without a manifest, whose output is the mean of each channel."""
    shape = ["batch", channels, 8, 8]
    node = helper.make_node("ReduceMean", ["input", "axes"], [output], keepdims=0)
    axes = helper.make_tensor("axes", TensorProto.INT64, [2], [2, 3])
    graph = helper.make_graph(
        [node],
        "pooling",
        [helper.make_tensor_value_info("input", kind, shape)],
        [helper.make_tensor_value_info(output, kind, shape[:2])],
        [axes],
    )
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10), path)
    return path


def without_manifest(channels: int) -> PreprocessingOptions:
    return PreprocessingOptions(mean=(0.5,) * channels, std=(0.5,) * channels)


def test_a_model_without_a_manifest_has_no_check(request_: SiteRequest, tmp_path: Path) -> None:
    model = pooling(tmp_path / "pooling.onnx", 3, "means")
    page = write_site(replace(request_, model=model, preprocessing=without_manifest(3)), SILENT)
    description = json.loads((page.parent / "model.json").read_text())
    assert (description["name"], description["labels"], description["check"]) == ("pooling", None, None)
    assert (description["activation"], description["outputs"]) == ("softmax", {"logits": "means"})


def test_one_output_without_a_manifest_may_be_a_probability(request_: SiteRequest, tmp_path: Path) -> None:
    """The outputs for noise decide, as those of the first images do in Python."""
    model = pooling(tmp_path / "pooling.onnx", 1, "means")
    for scale, activation in ((0.5, "sigmoid"), (1.0, "none")):
        how = PreprocessingOptions(mean=(1 - scale,), std=(scale,))
        page = write_site(replace(request_, model=model, preprocessing=how, force=True), SILENT)
        assert json.loads((page.parent / "model.json").read_text())["activation"] == activation


def test_logits_are_no_page_of_probabilities(request_: SiteRequest, tmp_path: Path) -> None:
    model = pooling(tmp_path / "pooling.onnx", 3, "means")
    request = replace(request_, model=model, preprocessing=without_manifest(3), activation="none")
    with refuses(UsageError, "output-not-probability", "--activation softmax"):
        write_site(request, SILENT)
    assert not request_.page.exists()


def test_a_trunk_is_refused(request_: SiteRequest, tmp_path: Path) -> None:
    model = pooling(tmp_path / "trunk.onnx", 3, "features")
    with refuses(CompatibilityError, "web-needs-logits"):
        write_site(replace(request_, model=model, preprocessing=without_manifest(3)), SILENT)
    assert not request_.page.exists()


def test_five_channels_are_refused_and_leave_no_folder(request_: SiteRequest, tmp_path: Path) -> None:
    model = pooling(tmp_path / "five.onnx", 5, "logits")
    request = replace(request_, model=model, preprocessing=without_manifest(5), out=f"{tmp_path}/five/site/")
    with refuses(CompatibilityError, "channels-not-of-images", "5"):
        write_site(request, SILENT)
    assert not (tmp_path / "five").exists()


def test_an_input_of_another_type_is_refused(request_: SiteRequest, tmp_path: Path) -> None:
    model = pooling(tmp_path / "half.onnx", 3, "logits", TensorProto.FLOAT16)
    with refuses(CompatibilityError, "web-input-unsupported", "float16"):
        write_site(replace(request_, model=model, preprocessing=without_manifest(3)), SILENT)


def test_a_model_that_is_too_large_is_refused(request_: SiteRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("exporter.deploy.web.FILE_LIMIT_BYTES", 1000)
    write_site(request_, SILENT)
    with refuses(UsageError, "web-model-too-large", "1,000"):
        write_site(replace(request_, out=str(request_.page.with_name("page.html"))), SILENT)


def test_samples_keep_their_format_or_become_png(request_: SiteRequest, tmp_path: Path) -> None:
    image = Image.fromarray(np.random.default_rng(0).integers(0, 256, (9, 8, 3), np.uint8))
    image.save(tmp_path / "a.jpg")
    image.save(tmp_path / "b.tiff")
    samples = (tmp_path / "a.jpg", tmp_path / "b.tiff")
    page = write_site(replace(request_, samples=samples), SILENT)
    first, second = json.loads((page.parent / "model.json").read_text())["samples"]
    assert (first["name"], first["type"]) == ("a", "image/jpeg")
    assert base64.b64decode(first["content"]) == samples[0].read_bytes()
    assert (second["name"], second["type"]) == ("b", "image/png")


def test_a_broken_sample_and_too_many_are_refused(request_: SiteRequest, tmp_path: Path) -> None:
    broken = tmp_path / "broken.png"
    broken.write_bytes(b"\x89PNG\r\n\x1a\n")
    with refuses(InputError, "image-format-unknown", broken):
        write_site(replace(request_, samples=(broken,)), SILENT)
    with refuses(UsageError, "web-samples-too-many", 13):
        write_site(replace(request_, samples=(broken,) * 13), SILENT)


def test_the_command_prints_the_page(labelling: Artifact, unused_runtime: Path, tmp_path: Path) -> None:
    arguments = ("web", labelling.path, "--onnxruntime-web", unused_runtime)
    done = here(cli.main, *arguments, cwd=tmp_path)
    assert (done.code, done.stdout) == (0, "site/index.html\n")
    again = here(cli.main, *arguments, cwd=tmp_path)
    assert (again.code, again.stdout, error_codes(again.stderr)) == (2, "", ["target-exists"])
    names = sorted(path.name for path in (tmp_path / "site" / "runtime").iterdir())
    assert [re.sub(r"\.[0-9a-f]{8}(?=\.\w+$)", "", name) for name in names] == sorted((WASM, CODE))
