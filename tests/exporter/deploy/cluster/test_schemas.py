"""What ``rexport manifests`` writes against the schemas that others publish, and a broken file against each of them."""

from __future__ import annotations

import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

from runtimes import Artifact
from tests.exporter.deploy.cluster.kuberay_fields import pod_specifications
from tests.exporter.deploy.cluster.written import text_of
from tests.peers import ROOT, peer

pytestmark = pytest.mark.peers

CHECK = Path(__file__).with_name("schema_check.py")
RAY = [
    ("rayservice", "--replicas", "1..3", "--gpus", "1", "--secret", "keys"),
    ("rayservice", "--claim", "photos", "--queue", "8"),
    ("rayjob", "s3://photos/", "s3://labels/", "--secret", "keys", "--workers", "3"),
    ("rayjob", "/data/photos", "/data/labels", "--claim", "photos", "--gpus", "1"),
]
KSERVE = [
    ("kserve", "--replicas", "1..3", "--gpus", "1", "--secret", "keys"),
    ("kserve", "--storage-uri", "s3://models/resnet20", "--max-batch", "8"),
    ("kserve", "--predictor", "triton", "--storage-uri", "s3://models/repository"),
]
DOCKERFILES = [(), ("--gpu",), ("--ray",), ("--ray", "--gpu")]


def write(artifact: Artifact, kind: str, *arguments: str) -> str:
    return text_of(kind, artifact.path, *arguments)


def faults(environment: str, check: str, text: str, folder: Path) -> list[str]:
    """The faults that the checker of a peer finds in a text."""
    file = folder / "checked.yaml"
    file.write_text(text, encoding="utf-8")
    python = peer(environment) / "bin/python"
    done = subprocess.run([python, CHECK, check, file], capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr
    return [line for line in done.stdout.splitlines() if line]


def pods(text: str) -> str:
    """The pods of a resource as resources of their own."""
    resource = yaml.safe_load(text)
    return str(yaml.safe_dump_all([as_pod(spec) for spec in pod_specifications(resource)]))


def as_pod(spec: dict[str, Any]) -> dict[str, Any]:
    return {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "pod"}, "spec": spec}


@pytest.mark.parametrize("arguments", RAY, ids=" ".join)
def test_pods_of_ray_fit_the_schema_of_kubernetes(
    arguments: tuple[str, ...], onnx_artifact: Artifact, tmp_path: Path
) -> None:
    assert faults("manifests", "pods", pods(write(onnx_artifact, *arguments)), tmp_path) == []


def test_a_broken_pod_is_caught(onnx_artifact: Artifact, tmp_path: Path) -> None:
    text = pods(write(onnx_artifact, *RAY[0])).replace("runAsNonRoot", "runAsNonRooot")
    assert len(faults("manifests", "pods", text, tmp_path)) == 2


@pytest.mark.parametrize("arguments", KSERVE, ids=" ".join)
def test_services_fit_the_models_of_kserve(arguments: tuple[str, ...], onnx_artifact: Artifact, tmp_path: Path) -> None:
    assert faults("kserve", "kserve", write(onnx_artifact, *arguments), tmp_path) == []


@pytest.mark.parametrize(
    ("good", "bad"),
    [
        ("minReplicas: 1", "minReplica: 1"),
        ("minReplicas: 1", "minReplicas: one"),
        ("protocolVersion: v2", "protocolVersion: 2"),
    ],
)
def test_a_broken_service_is_caught(good: str, bad: str, onnx_artifact: Artifact, tmp_path: Path) -> None:
    text = write(onnx_artifact, *KSERVE[2]).replace(good, bad)
    assert len(faults("kserve", "kserve", text, tmp_path)) == 1


def test_the_predictor_is_a_pod_of_kubernetes(onnx_artifact: Artifact, tmp_path: Path) -> None:
    spec = yaml.safe_load(write(onnx_artifact, *KSERVE[0]))["spec"]["predictor"]
    own = {key: value for key, value in spec.items() if not key.endswith("Replicas")}
    assert faults("manifests", "pods", yaml.safe_dump(as_pod(own)), tmp_path) == []


@pytest.mark.parametrize("arguments", RAY[:2], ids=" ".join)
def test_the_application_fits_the_schema_of_ray_serve(
    arguments: tuple[str, ...], onnx_artifact: Artifact, tmp_path: Path
) -> None:
    assert faults("rayserve", "rayserve", write(onnx_artifact, *arguments), tmp_path) == []


@pytest.mark.parametrize(
    ("good", "bad"),
    [("min_replicas: 1", "min_replicas: 9"), ("route_prefix", "prefix"), ("num_cpus: 2", "num_cpus: two")],
)
def test_a_broken_application_is_caught(good: str, bad: str, onnx_artifact: Artifact, tmp_path: Path) -> None:
    text = write(onnx_artifact, *RAY[0]).replace(good, bad)
    assert len(faults("rayserve", "rayserve", text, tmp_path)) == 1


@pytest.mark.parametrize("arguments", [(), ("--gpus", "2", "--port", "9000")], ids=" ".join)
def test_compose_files_fit_the_specification(
    arguments: tuple[str, ...], onnx_artifact: Artifact, tmp_path: Path
) -> None:
    assert faults("manifests", "compose", write(onnx_artifact, "compose", *arguments), tmp_path) == []


def test_a_broken_compose_file_is_caught(onnx_artifact: Artifact, tmp_path: Path) -> None:
    text = write(onnx_artifact, "compose").replace("stop_grace_period: 60s", "stop_grace_period: a while")
    assert len(faults("manifests", "compose", text, tmp_path)) == 1


def lint(text: str) -> list[str]:
    program = peer("manifests") / "bin/hadolint"
    done = subprocess.run([program, "-"], input=text, capture_output=True, text=True, timeout=60, check=False)
    return done.stdout.splitlines()


@pytest.mark.parametrize("arguments", DOCKERFILES, ids=" ".join)
def test_hadolint_finds_nothing_in_the_dockerfile(arguments: tuple[str, ...], onnx_artifact: Artifact) -> None:
    assert lint(write(onnx_artifact, "dockerfile", *arguments)) == []


def test_hadolint_finds_nothing_in_the_dockerfile_for_gpus() -> None:
    assert lint((ROOT / "scripts/gpu_check.Dockerfile").read_text()) == []


@pytest.mark.parametrize(
    ("good", "bad"), [("USER 1000", "USER root"), ("==", ">="), ("--no-cache-dir", ""), ("FROM", "FORM")]
)
def test_a_poor_dockerfile_is_caught(good: str, bad: str, onnx_artifact: Artifact) -> None:
    assert lint(write(onnx_artifact, "dockerfile").replace(good, bad)) != []
