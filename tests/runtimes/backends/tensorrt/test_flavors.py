"""The two libraries' rows, held against TensorRT-RTX itself, and what their logs' messages become."""

from __future__ import annotations

import gc
import subprocess
import sys
import threading
from dataclasses import replace
from pathlib import Path

import pytest

from runtimes.backends.tensorrt import flavors
from runtimes.backends.tensorrt.flavors import (
    FLAVORS,
    Log,
    compute_capabilities,
    compute_capability,
    default_flavor,
    flavor,
    logger,
    needing_driver,
    sentence,
)
from runtimes.errors import BackendUnavailableError, UsageError
from tests.refusals import refuses

trt = pytest.importorskip("tensorrt_rtx")

RTX = FLAVORS["rtx"]
ABSENT = replace(FLAVORS["tensorrt"], module="tensorrt_that_nobody_has")


def test_importing_the_rows_imports_no_library() -> None:
    code = """
import sys, runtimes.backends.tensorrt.builder, runtimes.backends.tensorrt.engine_cache
from runtimes.backends.tensorrt.flavors import FLAVORS
[row.missing() for row in FLAVORS.values()]
sys.exit(", ".join({"tensorrt", "tensorrt_rtx", "cuda", "torch", "onnx"} & set(sys.modules)) or None)
"""
    subprocess.run([sys.executable, "-c", code], check=True, cwd=Path(__file__).resolve().parents[4])


def test_a_flavor_is_found_by_its_name() -> None:
    assert flavor("rtx") is RTX
    with refuses(UsageError, "flavor-unknown", "'Tensor'", "tensorrt, rtx"):
        flavor("Tensor")


def test_an_installed_library_is_given() -> None:
    assert RTX.missing() is None
    assert RTX.library() is trt
    assert RTX.version() == trt.__version__


def test_an_absent_library_is_told_with_its_pip_line() -> None:
    reason = ABSENT.missing()
    assert reason is not None
    assert reason.code == "library-missing"
    assert ABSENT.module in reason.sentence
    assert "'rexport[tensorrt]'" in reason.sentence
    with refuses(BackendUnavailableError, "flavor-unavailable", "TensorRT", reason):
        ABSENT.library()


@pytest.mark.parametrize("failure", [ImportError("libnvinfer.so.11"), OSError("ELF header")])
def test_a_library_that_cannot_be_imported_is_told(
    failure: Exception, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "tensorrt_half_there.py").write_text(f"raise {failure!r}")
    monkeypatch.syspath_prepend(tmp_path)
    with refuses(BackendUnavailableError, "library-not-importable", failure, "--force-reinstall"):
        replace(FLAVORS["tensorrt"], module="tensorrt_half_there").library()


@pytest.mark.parametrize("version", ["1.4.9", "0.9", "unreadable"])
def test_a_library_that_is_too_old_is_refused(version: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(trt, "__version__", version)
    with refuses(BackendUnavailableError, "flavor-too-old", "1.5", version, "--upgrade"):
        RTX.library()


def test_versions_are_compared_as_numbers(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(trt, "__version__", "1.13.0.7")
    assert RTX.library() is trt


def test_the_default_is_the_first_that_is_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(flavors, "FLAVORS", {"tensorrt": ABSENT, "rtx": RTX})
    assert default_flavor() is RTX
    there = replace(ABSENT, module="tensorrt_rtx")
    monkeypatch.setattr(flavors, "FLAVORS", {"tensorrt": there, "rtx": RTX})
    assert default_flavor() is there


def test_without_any_both_pip_lines_are_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(flavors, "FLAVORS", {"tensorrt": ABSENT, "rtx": replace(RTX, module="no_rtx_either")})
    with refuses(BackendUnavailableError, "tensorrt-missing", "'rexport[tensorrt]'", "'rexport[tensorrt-rtx]'"):
        default_flavor()


NO_DRIVER = "cudaError 35: CUDA driver version is insufficient for CUDA runtime version"
IN_CALL = "Dynamic input tensor input is missing dimensions in profile 1."
IN_PASS = "Cannot compile operation 'fc/Gemm' for Turing (SM75): FP32 GEMM is not supported."
SENTENCES = {
    "call": (
        f"IBuilder::buildSerializedNetwork: Error Code 4: API Usage Error ({IN_CALL} In validate at "
        "/_src/optimizer/api/network.cpp:4046)",
        IN_CALL,
    ),
    "pass": (
        "IBuilder::buildSerializedNetwork: Error Code 1: Myelin ([pass.cpp:337: check_turing_op_compatibility] "
        f"{IN_PASS} In compileGraph at /_src/optimizer/myelin/codeGenerator.cpp:2012)",
        IN_PASS,
    ),
    "macro": (
        "[checkMacros.cpp::catchCudaError::250] Error Code 1: Cuda Runtime (In catchCudaError at "
        f"/_src/common/dispatch/checkMacros.cpp:250 ({NO_DRIVER}))",
        f"({NO_DRIVER})",
    ),
    "lines": ("Failed to parse\nthe ONNX model.", "Failed to parse the ONNX model."),
    "parentheses": ("a tensor (1, 3)", "a tensor (1, 3)"),
}
"""What the library writes, and the sentence in it."""


@pytest.mark.parametrize("case", SENTENCES)
def test_a_message_becomes_its_sentence(case: str) -> None:
    message, expected = SENTENCES[case]
    assert sentence(message) == expected


def test_a_log_quotes_errors_once_and_a_missing_driver_last() -> None:
    log = Log()
    log.add("INTERNAL_ERROR", "Thread context has not been set! Using global log stream.")
    log.add("WARNING", "mind the gap")
    log.add("ERROR", NO_DRIVER)
    log.add("ERROR", "the reason")
    log.add("ERROR", "the reason")
    assert log.warnings == ("mind the gap",)
    assert log.describe_errors() == f"the reason; {NO_DRIVER}"


ALLOCATOR = "[virtualMemoryBuffer.cpp::resizePhysical::154] Error Code 2: OutOfMemory (no further information)"
REQUEST = "Requested amount of GPU memory (8 bytes) could not be allocated: out of memory"
TACTICS = "no tactics to implement the operation within workspace limit"


@pytest.mark.parametrize(
    ("message", "expected"), [(ALLOCATOR, True), (REQUEST, True), ("std::bad_alloc", True), (TACTICS, False)]
)
def test_a_log_tells_when_memory_ran_out(message: str, expected: bool) -> None:
    log = Log()
    log.add("ERROR", message)
    assert log.out_of_memory == expected


def test_an_empty_log_says_so_and_a_full_one_keeps_the_last() -> None:
    log = Log()
    assert "no reason" in log.describe_errors()
    for number in range(150):
        log.add("ERROR", f"message {number}")
    assert log.errors[0] == "message 50"
    assert log.errors[-1] == "message 149"


def test_a_log_prefers_what_was_said_to_its_own_thread() -> None:
    log = Log()
    other = threading.Thread(target=log.add, args=("ERROR", "another's"))
    other.start()
    other.join()
    assert log.errors == ("another's",)
    log.add("ERROR", "mine")
    assert log.errors == ("mine",)


def test_the_library_has_one_logger_that_tells_all_who_live() -> None:
    first, second, gone = Log(), Log(), Log()
    made = logger(RTX, first)
    assert logger(RTX, second) is made
    assert logger(RTX, gone) is made
    del gone
    gc.collect()
    network = trt.Builder(made).create_network(0)
    assert not trt.OnnxParser(network, made).parse(b"junk")
    assert any("parse the ONNX" in text for text in first.errors)
    assert first.errors == second.errors
    assert len(flavors._LOGGERS[id(trt)][2]) >= 2


def test_the_libraries_compute_capabilities_are_taken_by_it() -> None:
    known = compute_capabilities(RTX)
    assert "8.6" in known
    config = trt.Builder(logger(RTX, Log())).create_builder_config()
    config.num_compute_capabilities = len(known)
    for index, dotted in enumerate(known):
        assert config.set_compute_capability(compute_capability(RTX, dotted), index), dotted


def test_a_compute_capability_that_it_lacks_is_refused() -> None:
    with refuses(UsageError, "compute-capability-unsupported", "TensorRT-RTX", "9.0", "7.5, 8.0"):
        compute_capability(RTX, "9.0")


def test_a_library_that_builds_for_the_gpu_in_place_has_none(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(trt, "ComputeCapability")
    assert compute_capabilities(RTX) == ()
    with refuses(UsageError, "compute-capability-unsupported", "8.6", "omit it"):
        compute_capability(RTX, "8.6")


def test_a_factory_that_gives_nothing_wants_a_driver() -> None:
    log = Log()
    log.add("ERROR", NO_DRIVER)
    told = refuses(BackendUnavailableError, "driver-unusable", "TensorRT", NO_DRIVER, "nvidia-smi")
    with told, needing_driver(FLAVORS["tensorrt"], log):
        raise TypeError("pybind11::init(): factory function returned nullptr")  # as the true bindings do
