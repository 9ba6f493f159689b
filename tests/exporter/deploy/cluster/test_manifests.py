"""``rexport manifests``: what the files say about an artifact, what is assumed and printed, and what is refused."""

from __future__ import annotations

import json
import shlex
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import click
import pytest
import yaml

from exporter.cli import cli
from exporter.deploy.cluster import kubernetes, pins, yaml_text
from exporter.deploy.cluster.deployment import Resources
from exporter.deploy.cluster.head import NOT_APPLIED
from runtimes import Artifact
from runtimes.errors import BackendUnavailableError
from tests.exporter.deploy.cluster.kuberay_fields import RESOURCES, field_faults, pod_specifications
from tests.exporter.deploy.cluster.written import manifests, text_of
from tests.refusals import error_codes, refuses

KINDS = {
    "kserve": (),
    "rayservice": ("--replicas", "1..3"),
    "rayjob": ("s3://photos/", "s3://labels/"),
    "compose": (),
    "dockerfile": (),
}

TEXTS = {
    "--image": "compose",
    "--name": "kserve",
    "--memory": "kserve",
    "--secret": "rayservice",
    "--claim": "rayjob",
    "--storage-uri": "kserve",
    "--base": "dockerfile",
}
"""The options for texts, and a file that each of them is for."""


def resource_of(artifact: Artifact, kind: str, *arguments: str) -> dict[str, Any]:
    resource = yaml.safe_load(text_of(kind, artifact.path, *(arguments or KINDS[kind])))
    assert isinstance(resource, dict)
    return resource


@pytest.mark.parametrize("kind", KINDS)
def test_every_file_names_the_artifact_and_what_was_checked(kind: str, onnx_artifact: Artifact) -> None:
    assert onnx_artifact.manifest is not None
    text = text_of(kind, onnx_artifact.path, *KINDS[kind])
    head = text[: text.index("\n\n")] if kind == "dockerfile" else text
    assert onnx_artifact.manifest.sha256 in head
    assert "hecked" in head
    assert not text.endswith("\n\n")


@pytest.mark.parametrize("kind", ["kserve", "rayservice", "rayjob"])
def test_every_file_for_kubernetes_says_that_it_was_not_applied(kind: str, onnx_artifact: Artifact) -> None:
    assert NOT_APPLIED in text_of(kind, onnx_artifact.path, *KINDS[kind])


@pytest.mark.parametrize("kind", KINDS)
def test_the_same_command_writes_the_same_bytes(kind: str, onnx_artifact: Artifact) -> None:
    assert text_of(kind, onnx_artifact.path, *KINDS[kind]) == text_of(kind, onnx_artifact.path, *KINDS[kind])


@pytest.mark.parametrize("kind", ["rayservice", "rayjob"])
def test_resources_of_kuberay_have_known_fields_only(kind: str, onnx_artifact: Artifact) -> None:
    resource = resource_of(onnx_artifact, kind)
    assert list(field_faults(resource["spec"], RESOURCES[resource["kind"]])) == []


def test_an_unknown_field_of_kuberay_is_caught(onnx_artifact: Artifact) -> None:
    resource = resource_of(onnx_artifact, "rayjob")
    resource["spec"]["entryPoint"] = resource["spec"].pop("entrypoint")
    resource["spec"]["rayClusterSpec"]["workerGroupSpecs"][0]["replicas"] = "2"
    resource["spec"]["rayClusterSpec"]["authOptions"]["mode"] = "none"
    faults = sorted(field_faults(resource["spec"], RESOURCES["RayJob"]))
    assert [fault.partition(" ")[0] for fault in faults] == [
        "spec.entryPoint",
        "spec.rayClusterSpec.authOptions.mode",
        "spec.rayClusterSpec.workerGroupSpecs[0].replicas",
    ]


@pytest.mark.parametrize("kind", ["rayservice", "rayjob"])
def test_ray_wants_a_token_and_drains_before_it_is_killed(kind: str, onnx_artifact: Artifact) -> None:
    resource = resource_of(onnx_artifact, kind)
    spec = resource["spec"]
    assert (spec.get("rayClusterSpec") or spec["rayClusterConfig"])["authOptions"] == {"mode": "token"}
    for pod in pod_specifications(resource):
        variables = {entry["name"]: entry["value"] for entry in pod["containers"][0]["env"]}
        drain_s = int(variables["RAY_GRACEFUL_SHUTDOWN_DRAIN_TIMEOUT_S"])
        assert 0 < drain_s < pod["terminationGracePeriodSeconds"]


def test_the_job_runs_rexport_label_on_the_cluster(onnx_artifact: Artifact) -> None:
    resource = resource_of(onnx_artifact, "rayjob", "s3://my photos/", "s3://labels/", "--workers", "3", "--cpus", "4")
    words = shlex.split(resource["spec"]["entrypoint"])
    assert words[:3] == ["rexport", "label", "s3://my photos/"]
    values = dict(zip(words[3::2], words[4::2], strict=True))
    assert values["--artifact"] == f"/models/{onnx_artifact.path.name}"
    assert (values["--out"], values["--ray"], values["--workers"], values["--threads"]) == (
        "s3://labels/", "auto", "3", "4",
    )  # fmt: skip


@pytest.mark.parametrize(
    ("arguments", "code"),
    [
        (("kserve", "--predictor", "triton"), "repository-address-missing"),
        (("kserve", "--name", "My Model"), "name-not-dns"),
        (("kserve", "--name", "m" * 41), "name-not-dns"),
        (("kserve", "--memory", "2GB"), "memory-unreadable"),
        (("kserve", "--image", "resnet20 v1"), "image-unreadable"),
        (("kserve", "--replicas", "3..1"), "usage"),
        (("kserve", "--replicas", "0"), "usage"),
        (("rayjob", "photos/", "s3://labels/"), "path-not-shared"),
        (("rayjob", "s3://photos/", "/data/labels"), "path-not-shared"),
        (("rayjob", "/data/photos", "/database/labels", "--claim", "photos"), "path-not-shared"),
        (("rayjob", "/data/../etc", "/data/labels", "--claim", "photos"), "path-not-shared"),
        (("rayjob", "/data/photos", "/data/./../labels", "--claim", "photos"), "path-not-shared"),
        (("rayjob", "file:///etc", "s3://labels/"), "path-not-shared"),
        (("rayjob", "file:///data/%2e%2e/etc", "s3://labels/", "--claim", "photos"), "path-not-shared"),
        (("rayjob", "/photos/a://b", "s3://labels/"), "path-not-shared"),
        (("rayjob", "/data/photos", "/data/labels/../photos/", "--claim", "photos"), "output-is-source"),
        (("rayjob", "/data/photos", "file:///data/photos", "--claim", "photos"), "output-is-source"),
        (("rayjob", "s3://photos/a", "s3://photos/a/"), "output-is-source"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, tuple) else value,
)
def test_what_a_cluster_would_refuse_is_refused(arguments: tuple[str, ...], code: str, onnx_artifact: Artifact) -> None:
    kind, *rest = arguments
    done = manifests(kind, onnx_artifact.path, *rest)
    assert (done.code, error_codes(done.stderr), done.stdout) == (2, [code], "")


@pytest.mark.parametrize("value", ["", "x\nRUN evil", "x y", "ä", "x\x1b[2J"])
@pytest.mark.parametrize("name", TEXTS)
def test_a_text_that_is_written_as_it_is_has_plain_characters(name: str, value: str, onnx_artifact: Artifact) -> None:
    kind = TEXTS[name]
    done = manifests(kind, onnx_artifact.path, *KINDS[kind], name, value)
    assert (done.code, len(error_codes(done.stderr)), done.stdout) == (2, 1, "")


def test_all_texts_of_the_files_are_tried() -> None:
    group = cli.commands["manifests"]
    assert isinstance(group, click.Group)
    found = {
        parameter.opts[0]
        for command in group.commands.values()
        for parameter in command.params
        if parameter.type is click.STRING and isinstance(parameter, click.Option)
    }
    assert found == TEXTS.keys()


@pytest.mark.parametrize(
    ("kind", "option", "command", "its_option"),
    [
        ("kserve", "max_batch", "serve", "max_batch"),
        ("rayservice", "queue", "serve", "queue"),
        ("rayservice", "gpus", "serve", "gpus_per_worker"),
        ("rayjob", "workers", "label", "workers"),
        ("rayjob", "gpus", "label", "gpus_per_worker"),
    ],
)
def test_numbers_have_the_bounds_of_the_command_they_are_for(
    kind: str, option: str, command: str, its_option: str
) -> None:
    group = cli.commands["manifests"]
    assert isinstance(group, click.Group)
    bounds = [
        (parameter.type.min, parameter.type.max)
        for found, name in ((group.commands[kind], option), (cli.commands[command], its_option))
        for parameter in found.params
        if parameter.name == name and isinstance(parameter.type, click.IntRange | click.FloatRange)
    ]
    assert (len(bounds), bounds[0]) == (2, bounds[1])


def test_assumptions_are_printed(onnx_artifact: Artifact) -> None:
    done = manifests("kserve", onnx_artifact.path)
    assert [line.partition("]")[0] for line in done.stderr.splitlines()] == [
        "warning[image-assumed", "warning[memory-assumed",
    ]  # fmt: skip
    done = manifests("kserve", onnx_artifact.path, "--image", "registry.example.org/net:1", "--memory", "512Mi")
    assert done.stderr == ""


def test_a_file_is_written_once_and_replaced_by_force(onnx_artifact: Artifact, tmp_path: Path) -> None:
    out = tmp_path / "compose.yaml"
    first = manifests("compose", onnx_artifact.path, "-o", out)
    assert (first.code, first.stdout) == (0, f"{out}\n")
    written = out.read_bytes()
    again = manifests("compose", onnx_artifact.path, "-o", out, "--port", "9000")
    assert (again.code, error_codes(again.stderr)) == (2, ["target-exists"])
    assert out.read_bytes() == written
    assert manifests("compose", onnx_artifact.path, "-o", out, "--port", "9000", "--force").code == 0
    assert "9000" in out.read_text()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["compose.yaml"]


def test_a_dash_is_standard_output(onnx_artifact: Artifact) -> None:
    dash, default = manifests("compose", onnx_artifact.path, "-o", "-"), manifests("compose", onnx_artifact.path)
    assert (dash.code, dash.stdout) == (0, default.stdout)


def test_a_folder_that_is_missing_is_named(onnx_artifact: Artifact, tmp_path: Path) -> None:
    done = manifests("compose", onnx_artifact.path, "-o", tmp_path / "none" / "compose.yaml")
    assert (done.code, error_codes(done.stderr)) == (6, ["folder-missing"])
    assert f"mkdir -p {tmp_path / 'none'}" in done.stderr


def test_the_image_has_all_files_of_the_artifact(onnx_artifact: Artifact) -> None:
    text = text_of("dockerfile", onnx_artifact.path)
    files = {path.name for path in onnx_artifact.path.parent.glob(f"{onnx_artifact.path.name}*")}
    assert len(files) == 3
    assert all(f'"{name}"' in text for name in files)


def test_the_image_pins_every_library_that_serving_needs() -> None:
    import importlib

    found = dict(line.split("==") for line in pins.requirement_pins(("cpu", "images", "serve")))
    assert {"numpy", "onnxruntime", "pillow", "fastapi", "starlette", "uvicorn", "pydantic-core"} <= set(found)
    assert found["numpy"] == importlib.import_module("numpy").__version__
    assert "torch" not in found


def test_a_version_that_is_unknown_here_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    from importlib import metadata

    real = metadata.version

    def version(name: str) -> str:
        if name == "uvicorn":
            raise metadata.PackageNotFoundError(name)
        return real(name)

    monkeypatch.setattr(metadata, "version", version)
    with refuses(BackendUnavailableError, "version-unknown", "uvicorn"):
        pins.requirement_pins(("serve",))


def test_a_missing_writer_of_yaml_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    import importlib.util

    monkeypatch.setattr(importlib.util, "find_spec", lambda _: None)
    with refuses(BackendUnavailableError, "library-missing", "yaml", "rexport[manifests]"):
        yaml_text.yaml_text((), {})


def test_dollar_signs_of_an_argument_stay() -> None:
    deployment = SimpleNamespace(image="i", secret=None, claim=None, resources=None)
    container = kubernetes.Container("c", ("$(HOME)", "a$$b", "$$(A)"), resources=Resources(1, "1Gi"))
    fields = kubernetes.container_fields(deployment, container)  # type: ignore[arg-type]
    assert fields["args"] == ["$$(HOME)", "a$$$$b", "$$$$(A)"]  # Kubernetes writes one dollar sign for two


def test_the_commands_in_the_files_are_commands_of_rexport(onnx_artifact: Artifact) -> None:
    predictor = resource_of(onnx_artifact, "kserve", "--max-batch", "8")["spec"]["predictor"]
    text = text_of("dockerfile", onnx_artifact.path)
    job = resource_of(onnx_artifact, "rayjob", "s3://photos/", "s3://labels/", "--gpus", "1")
    lines = [
        predictor["containers"][0]["args"],
        json.loads(text[text.index('CMD ["serve"') :].removeprefix("CMD ")),
        shlex.split(job["spec"]["entrypoint"])[1:],
    ]  # fmt: skip
    for name, *arguments in lines:
        cli.commands[name].make_context(name, arguments)


def test_a_command_that_rexport_does_not_take_is_caught() -> None:
    with pytest.raises(click.NoSuchOption):
        cli.commands["serve"].make_context("serve", ["model.onnx", "--dwell", "3"])
