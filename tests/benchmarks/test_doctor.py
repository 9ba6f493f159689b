from __future__ import annotations

import sys
import tempfile
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from benchmarks import doctor
from benchmarks.doctor import findings as findings_module
from benchmarks.doctor import sample_model, smoke_tests
from benchmarks.doctor.findings import DoctorReport, Finding, Status, Topic, from_message, split_commands
from benchmarks.doctor.gpu_probe import NOT_PROBED, probe_gpus
from benchmarks.doctor.smoke_tests import SmokeTest
from benchmarks.machine.environment import environment
from benchmarks.process.job import JobOutcome
from runtimes import Artifact, available_backends, codec
from runtimes.errors import CheckFailedError, Reason
from runtimes.protocol import Backend, Description
from tests.refusals import refuses

ABOUT = Description("openvino", "2026.4", "cpu", "CPU", "float32", 1)


def row(name: str) -> Backend:
    return next(each for each in available_backends() if each.name == name)


def put_module(folder: Path, monkeypatch: pytest.MonkeyPatch, module: str, code: str) -> None:
    """A module that stands before the real one for every process started from here."""
    (folder / f"{module}.py").write_text(code)
    monkeypatch.setenv("PYTHONPATH", str(folder))


def run_trial(name: str, limit_s: float = 120.0, install: tuple[str, ...] = ()) -> Finding:
    return smoke_tests.run_smoke_test(SmokeTest(row(name), "cpu", install), lambda _: None, limit_s)


def finding(topic: Topic, subject: str, status: Status, what: str, mend: tuple[str, ...] = ()) -> Finding:
    return Finding(topic, subject, status, "a-code", what, mend)


# The sample


@pytest.mark.parametrize("format", sample_model.FORMATS)
def test_the_sample_is_an_artifact_of_its_format(tmp_path: Path, format: str) -> None:
    artifact = Artifact.read(sample_model.write(format, tmp_path, tf32=False))
    artifact.check_digest()
    assert artifact.format.name == format
    assert artifact.vectors().logits.shape == (7, 10)
    assert not artifact.allows_tf32


def test_the_sample_s_onnx_passes_the_standard_s_checker() -> None:
    import onnx

    model = onnx.load_model_from_string(sample_model.onnx_bytes())
    onnx.checker.check_model(model, full_check=True)
    assert [node.op_type for node in model.graph.node] == ["Conv", "Relu", "GlobalAveragePool", "Flatten", "Gemm"]


def test_the_sample_s_answers_are_pytorch_s() -> None:
    import torch
    from torch.nn.functional import conv2d

    images = np.random.default_rng(5).standard_normal((2, 3, 16, 16), np.float32)
    filters, bias, matrix = (torch.from_numpy(array).double() for array in sample_model.weights().values())
    convolved = conv2d(torch.from_numpy(images).double(), filters, bias, padding=1)
    expected = convolved.relu().mean((2, 3)) @ matrix.T
    np.testing.assert_allclose(sample_model.logits(images), expected.numpy(), rtol=1e-5)


# Trials


@pytest.mark.parametrize("name", ["onnxruntime", "openvino", "pytorch"])
def test_a_backend_that_works_is_ok(name: str) -> None:
    found = run_trial(name)
    assert (found.status, found.code, found.subject, found.mend) == ("ok", "backend-works", f"{name} on cpu", ())


def test_steps_are_reported() -> None:
    steps: list[str] = []
    smoke_tests.run_smoke_test(SmokeTest(row("onnxruntime"), "cpu"), steps.append)
    assert steps[-1] == "profile"  # of steps that come at once, the last is heard


@pytest.mark.parametrize(
    ("module", "value", "mend"),
    [
        ("not_loadable", "libfoo.so.3", "'rexport[openvino]'"),
        ("illegal", "SIGILL", "again"),
        ("empty", "'Core'", "again"),
    ],
)
def test_a_broken_library_is_a_finding(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, module: str, value: str, mend: str
) -> None:
    put_module(tmp_path, monkeypatch, "openvino", MODULES[module])
    found = run_trial("openvino", install=("pip install again",))
    assert (found.status, found.code) == ("broken", "backend-broken")
    assert [command.split()[-1] for command in found.mend] == [mend]
    assert value in found.what


MODULES = {
    "not_loadable": "raise ImportError('libfoo.so.3: cannot open shared object file')",
    "illegal": "import os, signal; os.kill(os.getpid(), signal.SIGILL)",
    "empty": "",
    "crashing": "import os, signal; os.kill(os.getpid(), signal.SIGSEGV)",
    "raising": "raise RuntimeError('no such symbol')",
}
"""Modules that stand for libraries of which something is wrong."""


def test_a_library_that_hangs_is_ended_and_a_finding(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    put_module(tmp_path, monkeypatch, "openvino", "import time; time.sleep(1000)")
    found = run_trial("openvino", limit_s=5.0)
    assert (found.status, found.code) == ("broken", "backend-broken")
    assert "5 s" in found.what
    assert "'open'" in found.what


def test_a_killed_library_leaves_no_temporary_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    temporary = tmp_path / "temporary"
    temporary.mkdir()
    monkeypatch.setenv("TMPDIR", str(temporary))
    monkeypatch.setattr(tempfile, "tempdir", None)  # where Python remembers the folder
    came = tmp_path / "came"
    leave = f"import os, signal, tempfile; tempfile.mkdtemp(); open({str(came)!r}, 'w')"
    put_module(tmp_path, monkeypatch, "openvino", f"{leave}; os.kill(os.getpid(), signal.SIGKILL)")
    assert run_trial("openvino").status == "broken"
    assert came.exists()
    assert list(temporary.iterdir()) == []


def test_a_library_that_makes_no_model_is_a_finding(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    put_module(tmp_path, monkeypatch, "torch", "raise ImportError('libtorch_cpu.so: undefined symbol')")
    found = run_trial("pytorch")
    assert (found.status, found.code) == ("broken", "backend-broken")
    assert "'make a model'" in found.what
    assert "libtorch_cpu.so" in found.what


def test_wrong_answers_are_a_finding() -> None:
    """The expected answers are spoilt in place of a library's: a trial compares the two."""
    spoilt = "from benchmarks.doctor import sample_model, smoke_worker; import sys; right = sample_model.logits; "
    spoilt += "sample_model.logits = lambda images: right(images) * 1.001; sys.exit(smoke_worker.main(sys.argv[1:]))"
    program = (sys.executable, "-P", "-c", spoilt)
    found = smoke_tests.run_smoke_test(SmokeTest(row("onnxruntime"), "cpu"), lambda _: None, program=program)
    assert (found.status, found.code) == ("broken", "backend-broken")
    assert "logits" in found.what


def test_a_format_without_a_sample_is_a_warning() -> None:
    strange = replace(row("openvino"), name="strange", formats=("tflite",))
    found = smoke_tests.run_smoke_test(SmokeTest(strange, "cpu"), lambda _: None)
    assert (found.status, found.code) == ("warning", "backend-not-tried")
    assert "tflite" in found.what


@pytest.mark.parametrize(
    ("outcome", "status"),
    [
        (JobOutcome("ok", description=ABOUT), "ok"),
        (JobOutcome("ok", notes=(Reason("profiler-crashed", "not profiled"),), description=ABOUT), "warning"),
        (JobOutcome("failed", Reason("a", "no parity")), "broken"),
        (JobOutcome("skipped", Reason("a", "onnxruntime lacks it")), "missing"),
        (JobOutcome("skipped", Reason("a", "CUDAExecutionProvider: not loaded")), "broken"),
        (JobOutcome("error", Reason("a", "SIGSEGV in onnxruntime")), "broken"),
    ],
)
def test_outcomes_on_a_gpu(outcome: JobOutcome, status: str) -> None:
    trial = SmokeTest(row("onnxruntime"), "cuda", for_processors=("onnxruntime",))
    assert smoke_tests.judge_outcome(trial, outcome).status == status


@pytest.mark.parametrize(
    ("reason", "mend"),
    [
        ("ended by SIGSEGV", ("pip install again",)),
        ("no compiler (another)", ()),
        ("unloadable (pip install that)", ("pip install that",)),
    ],
)
def test_a_message_with_a_command_gets_no_other_advice(reason: str, mend: tuple[str, ...]) -> None:
    trial = SmokeTest(row("onnxruntime"), "cpu", install=("pip install again",))
    assert smoke_tests.judge_outcome(trial, JobOutcome("error", Reason("a", reason))).mend == mend


def test_every_backend_is_tried_on_every_device() -> None:
    missing: Mapping[str, str | None] = {each.name: None for each in available_backends()} | {
        "openvino": "not installed"
    }
    for no_gpu, expected in ((True, {"cpu"}), (False, {"cpu", "cuda"})):
        plan = smoke_tests.plan_smoke_tests(available_backends(), missing, {}, (), no_gpu)
        assert {trial.device for trial in plan} == expected
        assert not {"openvino", "fake"} & {trial.row.name for trial in plan}


def test_without_a_gpu_there_is_nothing_to_install_for_one() -> None:
    reason = "tensorrt is not installed (pip install 'rexport[tensorrt]')"
    with_gpu = smoke_tests.absent(row("tensorrt"), reason, True)
    assert (with_gpu.code, with_gpu.mend) == ("backend-missing", ("pip install 'rexport[tensorrt]'",))
    without = smoke_tests.absent(row("tensorrt"), reason, False)
    assert (without.code, without.mend) == ("backend-needs-gpu", ())


# Looking


def test_a_probe_names_what_is_missing_and_what_brings_it() -> None:
    seen, ending = probe_gpus()
    assert ending is None
    assert {name: reason is None for name, reason in seen.missing.items()} == {
        each.name: each.missing() is None for each in available_backends()
    }
    assert split_commands(seen.installs["openvino"] or "")[1] == ("pip install 'rexport[openvino]'",)
    # This process may see more, and other versions: setuptools puts the packages that it carries on the import path.
    ours = environment().packages
    assert seen.environment.packages.keys() <= ours.keys()
    assert seen.environment.packages["torch"] == ours["torch"]
    assert {"numpy", "pytest"} & ours.keys() <= seen.environment.packages.keys()


@pytest.mark.parametrize(("module", "value"), [("crashing", "SIGSEGV"), ("raising", "RuntimeError: no such symbol")])
def test_a_driver_library_that_ends_its_process_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, module: str, value: str
) -> None:
    put_module(tmp_path, monkeypatch, "pynvml", MODULES[module])
    seen, ending = probe_gpus()
    assert value in (ending or "")
    assert seen.environment.gpus == ()
    assert str(seen.cuda) == seen.nvml == str(NOT_PROBED)


def test_a_driver_library_that_hangs_is_ended(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    put_module(tmp_path, monkeypatch, "pynvml", "import time; time.sleep(1000)")
    assert (probe_gpus(5.0)[1] or "").split()[-2:] == ["5", "s"]


def test_pytorch_without_a_compiler_names_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CXX", "no-such-compiler")
    reason = probe_gpus()[0].missing["inductor"]
    assert reason is not None
    assert "'no-such-compiler'" in reason
    assert "g++" in reason


def test_a_machine_that_cannot_be_probed_is_an_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    put_module(tmp_path, monkeypatch, "numpy", "raise ImportError('numpy is for another processor')")
    with refuses(CheckFailedError, "probe-failed", "numpy is for another processor"):
        probe_gpus()


# Messages, the report, the text


@pytest.mark.parametrize(
    "commands",
    [
        ("pip install 'rexport[x]'",),
        ("pip uninstall onnxruntime", "pip install 'rexport[gpu]'"),
        ("pip install 'a>=10.13,<11'",),
    ],
)
def test_the_commands_of_a_message_are_split_off(commands: tuple[str, ...]) -> None:
    message = Reason("a-code", f"no provider ({', then '.join(commands)})")
    assert split_commands(message.sentence) == ("no provider", commands)
    assert from_message("gpu", "x", "missing", message) == finding("gpu", "x", "missing", "no provider", commands)


@pytest.mark.parametrize("rest", ["an NVIDIA driver", "pip install x, and more"])
def test_words_in_parentheses_stay_in_the_message(rest: str) -> None:
    message = f"unloadable ({rest})"
    assert split_commands(message) == (message, ())


def report(*findings: Finding) -> DoctorReport:
    healthy = not findings_module.nothing_runs(findings) and all(each.status != "broken" for each in findings)
    return DoctorReport("1", "/somewhere", replace(environment(), gpus=()), healthy, findings)


def test_the_text_begins_each_line_with_the_status_and_fits() -> None:
    topics: tuple[Topic, ...] = ("machine", "runtimes")
    long = "many words " * 30
    findings = [finding(topic, "a thing", "missing", long, ("pip install 'x'",)) for topic in topics]
    findings.append(finding("runtimes", "openvino on cpu", "warning", "it works"))
    lines = list(findings_module.format_report(report(*findings)))
    assert lines[:2] == ["machine", lines[1]]
    assert lines[1].split(":")[0].split() == ["missing", "a", "thing"]
    assert lines.count("         $ pip install 'x'") == 2
    assert max(map(len, lines)) <= 100
    assert not any(line != line.rstrip() for line in lines)
    assert "2 optional components" in lines[-1]


def test_the_verdict_names_what_is_broken() -> None:
    findings = (
        finding("runtimes", "openvino on cpu", "broken", "it crashed"),
        finding("machine", "load average", "warning", "high"),
    )
    assert findings_module.verdict(report(*findings)).split("; ") == ["broken: openvino on cpu", "1 warning"]


def test_the_first_line_says_that_nothing_runs() -> None:
    findings = (
        finding("machine", "memory", "ok", "8 GiB"),
        finding("runtimes", "openvino", "missing", "not installed"),
    )
    first, command, *_, last = findings_module.format_report(report(*findings))
    assert first == "no backend can run a model here:"
    assert command.split() == ["$", "pip", "install", "'rexport[cpu]'"]
    assert last == "no backend can run a model here; 1 optional component is missing"
    assert not report(*findings).healthy
    works = (*findings, finding("runtimes", "onnxruntime on cpu", "ok", "it works"))
    assert report(*works).healthy
    assert "no backend" not in " ".join(findings_module.format_report(report(*works)))


def test_every_topic_has_a_title() -> None:
    topics: tuple[Topic, ...] = Topic.__args__  # type: ignore[attr-defined]
    lines = list(findings_module.format_report(report(*(finding(topic, "a", "ok", "b") for topic in topics))))
    assert lines.count("ok       a: b") == len(topics)


def test_the_whole_examination(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor, "available_backends", lambda: (row("onnxruntime"), row("openvino"), row("tensorrt")))
    put_module(tmp_path, monkeypatch, "openvino", MODULES["crashing"])
    heard: list[str] = []
    found = doctor.examine(heard.append)
    assert not findings_module.nothing_runs(found.findings)
    by_subject = {each.subject: each for each in found.findings if each.topic == "runtimes"}
    assert by_subject["onnxruntime on cpu"].status == "ok"
    assert by_subject["openvino on cpu"].status == "broken"
    assert by_subject["openvino on cpu"].mend == ("pip install --force-reinstall 'rexport[openvino]'",)
    assert by_subject["tensorrt"].status == "missing"
    assert not found.healthy
    assert {each.topic for each in found.findings} == set(Topic.__args__)  # type: ignore[attr-defined]
    assert any("openvino on cpu" in step for step in heard)
    assert all(each.code for each in found.findings)
    assert codec.loads(DoctorReport, codec.dumps(found)) == found
