"""Artifacts for a real GPU, and a folder of engines that is the tests' own."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import pytest

from exporter.export_request import ExportListener, ExportRequest
from exporter.models.variants import variant
from exporter.precision.spec import PrecisionSpec
from exporter.targets import onnx_file, torch_program
from runtimes import Artifact
from runtimes.protocol import Array

SILENT = ExportListener(step=lambda _: None, notice=lambda _: None)


@dataclass(frozen=True)
class Samples:
    """An untrained ResNet-20 in every format that a test opens, by precision."""

    onnx: dict[str, Artifact]
    programs: dict[str, Artifact]

    def of(self, formats: tuple[str, ...], precision: str) -> Artifact:
        """The artifact in one of the formats."""
        return (self.onnx if "onnx" in formats else self.programs)[precision]


@pytest.fixture(scope="session")
def samples(onnx_artifact: Artifact, pt2_artifact: Artifact, tmp_path_factory: pytest.TempPathFactory) -> Samples:
    folder = tmp_path_factory.mktemp("gpu")
    graphs, programs = {"fp32": onnx_artifact}, {"fp32": pt2_artifact}
    for name in ("tf32", "fp16"):
        graph, program = (
            ExportRequest(variant("resnet20"), f"{folder}/resnet20.{name}.{suffix}") for suffix in ("onnx", "pt2")
        )
        graphs[name] = onnx_file.export(graph, SILENT, precision_spec=PrecisionSpec(name))
        programs[name] = torch_program.export(program, SILENT, PrecisionSpec(name))
    return Samples(graphs, programs)


@pytest.fixture(scope="session", autouse=True)
def _engines_of_the_tests(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("REXPORT_CACHE", str(tmp_path_factory.mktemp("engines")))
        yield


def images(batch: int, seed: int = 0) -> dict[str, Array]:
    """Noise for the ResNet-20."""
    return {"input": np.random.default_rng(seed).standard_normal((batch, 3, 32, 32), np.float32)}
