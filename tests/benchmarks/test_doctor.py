from __future__ import annotations

import sys
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from benchmarks import doctor
from benchmarks.doctor import sample_model, smoke_tests, view
from benchmarks.doctor.findings import DoctorReport, Finding, Topic, from_message
from benchmarks.doctor.gpu_probe import probe_gpus
from benchmarks.doctor.smoke_tests import Trial
from benchmarks.machine.environment import environment
from benchmarks.process.job import JobOutcome
from runtimes import Artifact, available_backends, codec
from runtimes.errors import CheckFailedError
from runtimes.protocol import Backend, Description

ABOUT = Description("openvino", "2026.4", "cpu", "CPU", "float32", 1)


def row(name: str) -> Backend:
    return next(each for each in available_backends() if each.name == name)


def stub(folder: Path, monkeypatch: pytest.MonkeyPatch, module: str, code: str) -> None:
    """A module that stands before the real one for every process started from here."""
    (folder / f"{module}.py").write_text(code)
    monkeypatch.setenv("PYTHONPATH", str(folder))


def tried(name: str, limit_s: float = 120.0, install: tuple[str, ...] = ()) -> Finding:
    return smoke_tests.run_trial(Trial(row(name), "cpu", install), lambda _: None, limit_s)


# The sample


@pytest.mark.parametrize("format", sample_model.FORMATS)
def test_the_sample_is_an_artifact_of_its_format(tmp_path: Path, format: str) -> None:
    artifact = Artifact.read(sample_model.write(format, tmp_path, tf32=False))
    artifact.check_digest()
    assert artifact.format.name == format
    assert artifact.vectors().logits.shape == (7, 10)
    assert not artifact.allows_tf32


def test_the_sample_s_onnx_is_valid_by_the_standard_s_own_checker() -> None:
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
    finding = tried(name)
    assert (finding.status, finding.subject, finding.mend) == ("ok", f"{name} on cpu", ())
    assert "gives the right answers; opened in" in finding.what


def test_steps_are_told() -> None:
    steps: list[str] = []
    smoke_tests.run_trial(Trial(row("onnxruntime"), "cpu"), steps.append)
    assert steps[-1] == "profile"  # of steps that come at once, the last is heard


@pytest.mark.parametrize(
    ("code", "what", "mend"),
    [
        (
            "raise ImportError('libfoo.so.3: cannot open shared object file')",
            "openvino is installed and cannot be imported: libfoo.so.3: cannot open shared object file",
            "pip install --force-reinstall 'rexport[openvino]'",
        ),
        (
            "import os, signal; os.kill(os.getpid(), signal.SIGILL)",
            "its process was ended by SIGILL during step 'open'",
            "pip install again",
        ),
        ("", "OpenVINO refused it: module 'openvino' has no attribute 'Core'", "pip install again"),
    ],
)
def test_a_library_that_is_broken_is_a_finding(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, code: str, what: str, mend: str
) -> None:
    stub(tmp_path, monkeypatch, "openvino", code)
    finding = tried("openvino", install=("pip install again",))
    assert (finding.status, finding.mend) == ("broken", (mend,))
    assert finding.what.startswith(what)


def test_a_library_that_hangs_is_ended_and_a_finding(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    stub(tmp_path, monkeypatch, "openvino", "import time; time.sleep(1000)")
    finding = tried("openvino", limit_s=5.0)
    assert finding.status == "broken"
    assert "gave no sign of life for 5 s during step 'open'" in finding.what


def test_a_library_that_makes_no_model_is_a_finding(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    stub(tmp_path, monkeypatch, "torch", "raise ImportError('libtorch_cpu.so: undefined symbol')")
    finding = tried("pytorch")
    assert finding.status == "broken"
    assert "during step 'make a model': ImportError: libtorch_cpu.so: undefined symbol" in finding.what


def test_wrong_answers_are_a_finding() -> None:
    """The expected answers are spoilt in place of a library's: a trial compares the two."""
    spoilt = "from benchmarks.doctor import sample_model, smoke_worker; import sys; right = sample_model.logits; "
    spoilt += "sample_model.logits = lambda images: right(images) * 1.001; sys.exit(smoke_worker.main(sys.argv[1:]))"
    program = (sys.executable, "-P", "-c", spoilt)
    finding = smoke_tests.run_trial(Trial(row("onnxruntime"), "cpu"), lambda _: None, program=program)
    assert finding.status == "broken"
    assert "no parity with its test vectors: relative difference" in finding.what


def test_a_format_that_cannot_be_made_here_is_told() -> None:
    strange = replace(row("openvino"), name="strange", formats=("tflite",))
    finding = smoke_tests.run_trial(Trial(strange, "cpu"), lambda _: None)
    assert finding.status == "warning"
    assert "installed and not tried" in finding.what


@pytest.mark.parametrize(
    ("outcome", "status"),
    [
        (JobOutcome("ok", description=ABOUT), "ok"),
        (JobOutcome("ok", note="not profiled: its profiler ended the process", description=ABOUT), "warning"),
        (JobOutcome("failed", "no parity"), "broken"),
        (JobOutcome("skipped", "this onnxruntime has no CUDAExecutionProvider (pip install x)"), "missing"),
        (JobOutcome("skipped", "CUDAExecutionProvider was asked for and cannot be loaded"), "broken"),
        (JobOutcome("error", "its process was ended by SIGSEGV: in onnxruntime"), "broken"),
    ],
)
def test_outcomes_on_a_gpu(outcome: JobOutcome, status: str) -> None:
    trial = Trial(row("onnxruntime"), "cuda", for_processors=("onnxruntime",))
    assert smoke_tests.judge_outcome(trial, outcome).status == status


@pytest.mark.parametrize(
    ("reason", "mend"),
    [
        ("its process was ended by SIGSEGV during step 'open'", ("pip install again",)),
        ("PyTorch could not compile it: no compiler (use backend pytorch)", ()),
        ("it cannot be imported (pip install that)", ("pip install that",)),
    ],
)
def test_a_message_that_says_what_to_do_gets_no_other_advice(reason: str, mend: tuple[str, ...]) -> None:
    trial = Trial(row("onnxruntime"), "cpu", install=("pip install again",))
    assert smoke_tests.judge_outcome(trial, JobOutcome("error", reason)).mend == mend


def test_what_is_there_is_tried_on_each_device_that_is_there() -> None:
    missing: Mapping[str, str | None] = {each.name: None for each in available_backends()} | {
        "openvino": "not installed"
    }
    for no_gpu, expected in ((True, {"cpu"}), (False, {"cpu", "cuda"})):
        plan = smoke_tests.plan_trials(available_backends(), missing, {}, (), no_gpu)
        assert {trial.device for trial in plan} == expected
        assert not {"openvino", "fake"} & {trial.row.name for trial in plan}


def test_without_a_gpu_there_is_nothing_to_install_for_one() -> None:
    reason = "tensorrt is not installed (pip install 'rexport[tensorrt]')"
    assert smoke_tests.absent(row("tensorrt"), reason, True).mend == ("pip install 'rexport[tensorrt]'",)
    without = smoke_tests.absent(row("tensorrt"), reason, False)
    assert (without.what, without.mend) == ("it runs on NVIDIA GPUs alone; tensorrt is not installed", ())


# Looking


def test_a_look_sees_what_is_missing_and_what_would_bring_it() -> None:
    seen, ending = probe_gpus()
    assert ending is None
    assert {name: reason is None for name, reason in seen.missing.items()} == {
        each.name: each.missing() is None for each in available_backends()
    }
    assert seen.installs["openvino"] == "openvino is not installed (pip install 'rexport[openvino]')"
    # This process may see more: setuptools puts the packages that it carries on the import path.
    ours = environment().packages
    assert seen.environment.packages.items() <= ours.items()
    assert {"numpy", "pytest"} & ours.keys() <= seen.environment.packages.keys()


@pytest.mark.parametrize(
    ("code", "expected"),
    [
        ("import os, signal; os.kill(os.getpid(), signal.SIGSEGV)", "was ended by SIGSEGV"),
        ("raise RuntimeError('no such symbol')", "ended with exit code 1: RuntimeError: no such symbol"),
    ],
)
def test_a_driver_s_library_that_ends_the_process_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, code: str, expected: str
) -> None:
    stub(tmp_path, monkeypatch, "pynvml", code)
    seen, ending = probe_gpus()
    assert ending == expected
    assert seen.environment.gpus == ()
    assert seen.cuda == seen.nvml == "the GPU's libraries could not be asked"


def test_a_driver_s_library_that_hangs_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    stub(tmp_path, monkeypatch, "pynvml", "import time; time.sleep(1000)")
    assert probe_gpus(5.0)[1] == "did not answer in 5 s"


def test_pytorch_without_a_compiler_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CXX", "no-such-compiler")
    reason = probe_gpus()[0].missing["inductor"]
    assert reason is not None
    assert reason.startswith("no C++ compiler 'no-such-compiler' (install g++")


def test_a_machine_that_cannot_be_looked_at_is_an_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    stub(tmp_path, monkeypatch, "numpy", "raise ImportError('numpy is for another processor')")
    with pytest.raises(CheckFailedError, match=r"could not be looked at.*numpy is for another processor"):
        probe_gpus()


# Messages, the report, the text


@pytest.mark.parametrize(
    ("message", "what", "mend"),
    [
        ("x is not installed (pip install 'rexport[x]')", "x is not installed", ("pip install 'rexport[x]'",)),
        (
            "no provider (pip uninstall onnxruntime, then pip install 'rexport[gpu]')",
            "no provider",
            ("pip uninstall onnxruntime", "pip install 'rexport[gpu]'"),
        ),
        ("too new (pip install 'a>=10.13,<11')", "too new", ("pip install 'a>=10.13,<11'",)),
        ("no driver (an NVIDIA driver)", "no driver (an NVIDIA driver)", ()),
        (
            "unloadable (pip install --upgrade 'rexport[gpu]', and a driver)",
            "unloadable (pip install --upgrade 'rexport[gpu]', and a driver)",
            (),
        ),
    ],
)
def test_the_command_in_a_message_is_told_apart(message: str, what: str, mend: tuple[str, ...]) -> None:
    assert from_message("gpu", "x", "missing", message) == Finding("gpu", "x", "missing", what, mend)


def report(*findings: Finding) -> DoctorReport:
    healthy = all(finding.status != "broken" for finding in findings)
    return DoctorReport("1", "/somewhere", replace(environment(), gpus=()), healthy, findings)


def test_the_text_begins_each_line_with_the_status_and_fits() -> None:
    topics: tuple[Topic, ...] = ("machine", "runtimes")
    long = "many words " * 30
    findings = [Finding(topic, "a thing", "missing", long, ("pip install 'x'",)) for topic in topics]
    lines = list(view.format_report(report(*findings)))
    assert lines[:2] == ["machine", lines[1]]
    assert lines[1].startswith("missing  a thing: many words")
    assert lines.count("         $ pip install 'x'") == 2
    assert max(map(len, lines)) <= 100
    assert not any(line != line.rstrip() for line in lines)
    assert lines[-1] == "everything that is installed works; 2 optional things are missing"


def test_the_verdict_names_what_is_broken() -> None:
    findings = (
        Finding("runtimes", "openvino on cpu", "broken", "it crashed"),
        Finding("machine", "load average", "warning", "high"),
    )
    assert view.verdict(report(*findings)) == "broken: openvino on cpu; 1 warning"


def test_every_topic_has_a_title() -> None:
    topics: tuple[Topic, ...] = Topic.__args__  # type: ignore[attr-defined]
    lines = list(view.format_report(report(*(Finding(topic, "a", "ok", "b") for topic in topics))))
    assert lines.count("ok       a: b") == len(topics)


def test_the_whole_examination(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor, "available_backends", lambda: (row("onnxruntime"), row("openvino"), row("tensorrt")))
    stub(tmp_path, monkeypatch, "openvino", "import os, signal; os.kill(os.getpid(), signal.SIGSEGV)")
    heard: list[str] = []
    found = doctor.examine(heard.append)
    by_subject = {finding.subject: finding for finding in found.findings if finding.topic == "runtimes"}
    assert by_subject["onnxruntime on cpu"].status == "ok"
    assert by_subject["openvino on cpu"].status == "broken"
    assert by_subject["openvino on cpu"].mend == ("pip install --force-reinstall 'rexport[openvino]'",)
    assert by_subject["tensorrt"].status == "missing"
    assert not found.healthy
    assert {finding.topic for finding in found.findings} == set(Topic.__args__)  # type: ignore[attr-defined]
    assert heard[0] == "looking at the machine"
    assert any(step.startswith("trying openvino on cpu: ") for step in heard)
    assert codec.loads(DoctorReport, codec.dumps(found)) == found
