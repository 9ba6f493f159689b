"""What every reader has to hold: hostile files end in a documented error that names the file, soon and without traces.

The readers are the table of ``scripts.fuzz.readers``; a module that parses files and stands in no row is found here.
"""

from __future__ import annotations

import os
import random
import re
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from runtimes import codec
from runtimes.errors import ArtifactError, RexportError
from scripts.fuzz import mutations
from scripts.fuzz.campaign import Corpus, Finding, attack
from scripts.fuzz.judge import judge
from scripts.fuzz.readers import READERS
from tests.processes import default_interrupt, wait_for

REPOSITORY = Path(__file__).resolve().parents[1]

PARSERS = {
    *("json.loads", "json.load", "codec.loads", "codec.parse", "np.load", "zipfile.ZipFile", "tarfile.open"),
    *("mmap.mmap", "torch.load", "torch.export.load", "pickle.loads", "gzip.decompress", "np.frombuffer"),
    *("safe_open", "csv.reader", "ParquetFile", "parquet.ParquetFile", "parquet.read_table", "module.open"),
    *("pickletools.genops", "yaml.safe_load"),
}  # fmt: skip
"""The calls that turn the content of a file into data."""

TRUSTED = {
    "benchmarks.doctor.smoke_worker": "the order of the parent process",
    "benchmarks.paper.training.corpus": "files whose SHA-256 is published",
    "benchmarks.paper.training.tensor_file": "the header that safetensors wrote in this process",
    "benchmarks.process.isolated": "the reply of an own process",
    "benchmarks.process.worker_process": "messages of own workers",
    "benchmarks.worker.__main__": "the order of the parent process",
    "benchmarks.worker.trtexec": "the output of trtexec, which this process started",
    "exporter.data.opening": "the bundled images",
    "exporter.deploy.triton_model": "the configuration that Triton parsed",
    "exporter.weights.foreign_files": "only names a file that is refused",
    "exporter.weights.sources": "the bundled weights' own description",
    "runtimes.backends.onnxruntime.profiling": "the profile that ONNX Runtime wrote into an own folder",
    "runtimes.backends.pytorch.backend": "a program whose SHA-256 the manifest has",
    "runtimes.backends.tensorrt.inspector": "the layers that TensorRT describes",
    "runtimes.labelling.listing": "the listing that this job wrote, by its SHA-256 in the name",
    "runtimes.serving.datatypes": "requests: tests/runtimes/serving/test_hostile_requests.py",
    "runtimes.serving.inference_request": "requests: tests/runtimes/serving/test_hostile_requests.py",
    "runtimes.serving.supervisor": "messages of own workers",
    "runtimes.serving.worker": "the order of the parent process",
}
"""The modules that parse what no stranger wrote, or whose hostile input is tested elsewhere, and why."""


def test_every_parser_of_files_is_in_the_table() -> None:
    covered = {module for reader in READERS.values() for module in reader.modules}
    calls = re.compile(rf"(?<![\w.])({'|'.join(map(re.escape, sorted(PARSERS)))})\(")
    modules, parsers = set(), set()
    for package in ("exporter", "runtimes", "benchmarks", "rexport"):
        for path in (REPOSITORY / package).rglob("*.py"):
            module = ".".join(path.relative_to(REPOSITORY).with_suffix("").parts)
            modules.add(module)
            if calls.search(path.read_text(encoding="utf-8")):
                parsers.add(module)
    assert parsers - covered - TRUSTED.keys() == set()
    assert covered - modules == set()
    assert TRUSTED.keys() - parsers == set()


@pytest.fixture(scope="module")
def corpora(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Corpus]:
    made: dict[str, Corpus] = {}

    def corpus(name: str) -> Corpus:
        if name not in made:
            made[name] = Corpus(READERS[name], tmp_path_factory.mktemp("samples") / "made")
        return made[name]

    return corpus


@pytest.mark.parametrize("name", READERS)
def test_good_files_are_read(tmp_path: Path, corpora: Callable[[str], Corpus], name: str) -> None:
    corpus = corpora(name)
    assert list(attack(corpus, 0, iter(range(len(corpus.samples))), tmp_path / "scratch")) == []


def _attack(tmp_path: Path, corpus: Corpus, seed: int) -> None:
    folder = tmp_path / "scratch"
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    assert judge(corpus.reader, folder, corpus.content(seed, len(corpus.samples))).fault is None


@pytest.mark.parametrize("name", READERS)
@settings(max_examples=4, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck), database=None)
@given(seed=st.integers(0, 1 << 32))
def test_mutated_files_end_in_documented_errors(
    tmp_path: Path, corpora: Callable[[str], Corpus], name: str, seed: int
) -> None:
    _attack(tmp_path, corpora(name), seed)


@pytest.mark.slow
@pytest.mark.parametrize("name", READERS)
@settings(max_examples=100, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck), database=None)
@given(seed=st.integers(0, 1 << 32))
def test_many_mutated_files_do_so_as_well(
    tmp_path: Path, corpora: Callable[[str], Corpus], name: str, seed: int
) -> None:
    _attack(tmp_path, corpora(name), seed)


# Files that are no regular files, and disks that fail -----------------------------------------------------------------


def _unreadable(path: Path) -> None:
    """A regular file whose first byte cannot be read: the system answers EIO."""
    path.symlink_to("/proc/self/mem")


OBSTACLES: dict[str, Callable[[Path], object]] = {
    "a pipe": os.mkfifo,
    "a folder": Path.mkdir,
    "a device": lambda path: path.symlink_to("/dev/full"),
    "dangling link": lambda path: path.symlink_to("nothing"),
    "an input error": _unreadable,
}

ABSENT_MEANS_NONE = {"manifest", "label-job"}
"""Readers of files that need not be there."""

FOLDERS = {"archive", "label-tar", "label-list", "label-table", "web-runtime"}
"""Readers that take a folder as well."""


@pytest.mark.parametrize("obstacle", OBSTACLES)
@pytest.mark.parametrize("name", [name for name in READERS if name != "cifar"])
def test_what_is_no_file_is_refused_at_once(
    tmp_path: Path, corpora: Callable[[str], Corpus], name: str, obstacle: str
) -> None:
    corpus, reader = corpora(name), READERS[name]
    path = reader.place(tmp_path, reader.file, corpus.samples[0])
    (tmp_path / reader.file).unlink()
    OBSTACLES[obstacle](tmp_path / reader.file)
    if obstacle == "dangling link" and name in ABSENT_MEANS_NONE | {"onnx"}:
        pytest.skip("the file need not be there")
    if obstacle == "a folder" and name in FOLDERS:
        pytest.skip("a folder is read too")
    with pytest.raises(RexportError) as caught:
        reader.read(path)
    assert caught.value.code
    assert any(name in str(caught.value) for name in (tmp_path.name, "/dev/full", "/proc/self/mem", "/mem"))


# Numbers of JSON ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("text", mutations.HOSTILE_JSON)
@pytest.mark.parametrize("name", [name for name, reader in READERS.items() if reader.mutations is mutations.JSON])
def test_hostile_values_in_any_field(
    tmp_path: Path, corpora: Callable[[str], Corpus], monkeypatch: pytest.MonkeyPatch, name: str, text: str
) -> None:
    corpus, generator = corpora(name), random.Random(f"{name} {text}")
    folder = tmp_path / "scratch"
    folder.mkdir()
    monkeypatch.setattr(mutations, "HOSTILE_JSON", (text,))
    content = mutations.replace_value(generator, corpus.samples[0])
    assert judge(corpus.reader, folder, content).fault is None


AMBIGUOUS = ['{"a": 1, "a": 2}', '{"x": {"b": 1, "b": 1}}', "[NaN]", "1" * 5000]


@pytest.mark.parametrize("text", AMBIGUOUS)
def test_ambiguous_json_is_refused(text: str) -> None:
    with pytest.raises(ArtifactError) as caught:
        codec.parse(text)
    assert caught.value.code == "json-invalid"


def test_a_long_value_is_shown_in_short_time() -> None:
    deep: object = 1
    for _ in range(10_000):
        deep = [deep]
    assert len(codec.show(deep)) <= 200
    assert len(codec.show(["x" * 10] * 100_000)) <= 200


# The detector ---------------------------------------------------------------------------------------------------------


def _planted(read: Callable[[Path], object], folder: Path) -> list[Finding]:
    reader = replace(READERS["labels"], read=read, samples=lambda _: [b"cat\ndog\n"], limit_s=0.5, limit_bytes=64 << 20)
    return list(attack(Corpus(reader, folder / "samples"), 5, iter(range(40)), folder / "scratch"))


def _raises(_: Path) -> object:
    raise RuntimeError("planted")


def _says_no_file(_: Path) -> object:
    raise ArtifactError("planted", code="a-code")


def _writes(path: Path) -> object:
    return (path.parent / "left-over").write_text("x")


def _breaks_on_zero(path: Path) -> object:
    return 1 // len(path.read_bytes().replace(b"\0", b""))


def _burns_time(_: Path) -> object:
    import time

    start = time.process_time()
    while time.process_time() < start + 0.6:
        pass
    return None


PLANTED: dict[str, tuple[Callable[[Path], object], str]] = {
    "another exception": (_raises, "raises RuntimeError"),
    "an error without the file": (_says_no_file, "not name the"),
    "a file left over": (_writes, "changes the files"),
    "a fault on few files": (_breaks_on_zero, "ZeroDivisionError"),
    "memory": (lambda _: b"x" * (128 << 20), "of memory"),
}


@pytest.mark.parametrize("fault", PLANTED)
def test_a_planted_fault_is_found(tmp_path: Path, fault: str) -> None:
    read, words = PLANTED[fault]
    assert any(words in finding.fault for finding in _planted(read, tmp_path))


def test_a_slow_reader_is_found(tmp_path: Path) -> None:
    reader = replace(READERS["labels"], read=_burns_time, limit_s=0.5)
    assert "processor time" in (judge(reader, tmp_path, b"cat\n").fault or "")


@pytest.mark.parametrize("name", READERS)
def test_good_files_are_the_same_each_time(tmp_path: Path, corpora: Callable[[str], Corpus], name: str) -> None:
    """Else a finding could not be made again from its seed and its case, in a process with other addresses."""
    assert Corpus(READERS[name], tmp_path / "again").samples == corpora(name).samples


def test_findings_are_told_apart_by_rule_and_code() -> None:
    said = ("raises an A (a-code), which: 1", "raises an A (b-code), which: 1", "ends the process (SIGSEGV)")
    findings = [Finding("labels", 0, 0, fault) for fault in (*said, "ends the process (no answer in time)")]
    assert len({finding.signature for finding in findings}) == 4
    assert Finding("labels", 0, 1, "takes 5.1 s; at most 5 s").signature == (
        Finding("labels", 0, 2, "takes 17.9 s; at most 5 s").signature
    )


def test_the_same_seed_gives_the_same_files(corpora: Callable[[str], Corpus]) -> None:
    for name in ("manifest", "label-tar", "onnx"):
        corpus = corpora(name)
        assert [corpus.content(3, case) for case in range(20)] == [corpus.content(3, case) for case in range(20)]
        assert len({corpus.content(3, case) for case in range(20)}) > 10


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_an_interrupt_ends_the_campaigns(tmp_path: Path, number: signal.Signals, code: int) -> None:
    """The one at work within seconds of its ten minutes, with its process, and those that wait for it at once."""
    command = [sys.executable, "-m", "scripts.fuzz", "labels", "manifest", "--seconds", "600"]
    environment = os.environ | {"TMPDIR": str(tmp_path), "PYTHONUNBUFFERED": "1"}
    with default_interrupt():
        process = subprocess.Popen(
            command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True
        )
    try:
        assert process.stdout is not None
        assert "seed" in process.stdout.readline()
        wait_for(lambda: any(tmp_path.glob("rexport-fuzz-*/scratch")))
        os.killpg(process.pid, number)  # as a terminal and a service manager do
        _, stderr = process.communicate(timeout=60)
    finally:
        process.kill()
    assert (process.returncode, "Traceback" in stderr) == (code, False), stderr
    assert list(tmp_path.iterdir()) == []
