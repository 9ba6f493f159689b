from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

import runtimes
from benchmarks.records.request import Configuration, Pair, PrecisionVariant, Subject
from benchmarks.records.result import Result, Status
from benchmarks.records.store import FILE_NAME, ResultsFile
from runtimes import Artifact
from runtimes.artifacts.formats import FORMATS
from runtimes.errors import ArtifactError, UsageError
from scripts.gpu_ledger import STATE, Ledger, LedgerPart, digest_packages, machine_of
from tests.benchmarks.results import EMPTY, H200, MACHINE, change_facts
from tests.benchmarks.searches import subject
from tests.refusals import refuses

PART = LedgerPart("resnet20", "bundled", ("fp32",), (1, 8), ("onnxruntime",), "0")
HERE = machine_of(MACHINE)


def of(configuration: Configuration, status: Status = "ok") -> Result:
    pair = configuration.pair
    return change_facts(
        EMPTY,
        subject="resnet20",
        backend=pair.backend.name,
        precision=pair.typed.precision,
        batch=configuration.batch,
        status=status,
    )


@pytest.fixture
def network(tmp_path: Path) -> Subject:
    return subject(tmp_path, PrecisionVariant("fp32", Artifact(tmp_path / "net.onnx", FORMATS["onnx"], None)))


@pytest.fixture
def wanted(network: Subject) -> list[Configuration]:
    """The reference and ONNX Runtime, one image and eight."""
    by_name = {row.name: row for row in runtimes.available_backends()}
    found = []
    for batch in (1, 8):
        for name, typed in (("pytorch", network.reference), ("onnxruntime", network.typed[0])):
            found.append(Configuration(Pair(network, by_name[name], typed, typed.made), batch, 2))
    return found


def test_what_was_measured_is_not_measured_again(tmp_path: Path, network: Subject, wanted: list[Configuration]) -> None:
    ledger = Ledger(tmp_path / "out", HERE)
    assert ledger.list_remaining(wanted, network, "cpu") == wanted
    for configuration in wanted[:3]:
        ledger.keep(of(configuration))
    again = Ledger(tmp_path / "out", HERE)
    assert again.list_remaining(wanted, network, "cpu") == wanted[2:]  # batch 8: the reference beside what is left
    again.keep(of(wanted[3]))
    assert again.list_remaining(wanted, network, "cpu") == []
    assert len(again.by_network()) == 4


@pytest.mark.parametrize(("status", "left"), [("ok", 0), ("failed", 0), ("error", 0), ("skipped", 2)])
def test_what_could_not_run_is_tried_again(
    tmp_path: Path, network: Subject, wanted: list[Configuration], status: Status, left: int
) -> None:
    ledger = Ledger(tmp_path / "out", HERE)
    ledger.keep(of(wanted[0]))
    ledger.keep(of(wanted[1], status))
    assert len(ledger.list_remaining(wanted[:2], network, "cpu")) == left


def test_with_and_without_cuda_graphs_are_two(tmp_path: Path, network: Subject, wanted: list[Configuration]) -> None:
    ledger = Ledger(tmp_path / "out", HERE)
    ledger.keep(change_facts(of(wanted[1]), cuda_graphs=True))
    without = replace(wanted[1], cuda_graphs=False)
    assert ledger.list_remaining([wanted[1], without], network, "cuda") == [without]


def test_the_last_row_of_a_configuration_counts(tmp_path: Path, wanted: list[Configuration]) -> None:
    ledger = Ledger(tmp_path / "out", HERE)
    ledger.keep(change_facts(of(wanted[0]), run="first"))
    ledger.keep(change_facts(of(wanted[1]), subject="other"))
    ledger.keep(change_facts(of(wanted[2]), run="first"))
    ledger.keep(change_facts(of(wanted[0]), run="second"))
    results = [figures.result for figures in Ledger(tmp_path / "out", HERE).by_network()]
    assert [(each.identity.subject, each.identity.batch, each.run) for each in results] == [
        ("resnet20", 1, "second"),
        ("resnet20", 8, "first"),
        ("other", 1, EMPTY.run),
    ]


def test_a_network_is_complete_for_what_was_there(tmp_path: Path) -> None:
    ledger = Ledger(tmp_path / "out", HERE)
    assert not ledger.complete(PART)
    ledger.mark(PART)
    again = Ledger(tmp_path / "out", HERE)
    assert again.complete(PART)
    assert not again.complete(replace(PART, runtimes=("onnxruntime", "tensorrt")))
    assert not again.complete(replace(PART, installed="1"))
    assert not again.complete(replace(PART, batches=(1, 8, 64)))


def test_another_package_is_another_set() -> None:
    more = replace(MACHINE, packages={**MACHINE.packages, "tensorrt": "11.4.0"})
    assert digest_packages(MACHINE) == digest_packages(replace(MACHINE, cpu="x")) != digest_packages(more)


def test_rows_of_another_machine_are_not_gone_on_with(tmp_path: Path) -> None:
    ResultsFile(tmp_path / FILE_NAME).append(EMPTY, {})
    there = machine_of(replace(MACHINE, gpus=(H200,)))
    assert there == ("Fast Processor 9", "NVIDIA H200")
    with refuses(UsageError, "machine-differs", "Fast Processor 9", "H200"):
        Ledger(tmp_path, there)


def test_a_state_that_is_something_else_is_refused(tmp_path: Path) -> None:
    (tmp_path / STATE).write_text("{")
    with refuses(ArtifactError, "json-invalid"):
        Ledger(tmp_path, HERE)
