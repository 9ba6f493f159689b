"""What ``rbench load`` runs: one network, and the runtimes that open it."""

from __future__ import annotations

from pathlib import Path

from benchmarks.records.request import BenchmarkRequest, RunListener
from benchmarks.records.subject import FP32, Pair, PrecisionVariant, Refusal, Subject
from exporter.data.dataset import BUNDLED_NAME
from exporter.models.variants import VARIANTS, variant
from runtimes import Artifact, Backend, available_backends
from runtimes.backends.registry import select_candidates
from runtimes.errors import UsageError, quote
from runtimes.processors import usable_processors


def subject(request: BenchmarkRequest, folder: Path, listener: RunListener) -> Subject:
    """What was named: a file as it is, a variant exported into ``folder``. It has no twin, as a load is compared with
    nothing.

    Raises:
        UsageError: several, or an unknown variant; weights for a file.
        RexportError: the artifact cannot be read, or the variant cannot be exported.
    """
    if len(request.subjects) != 1:
        raise UsageError(f"a load is run on one artifact or variant, not on {len(request.subjects)}")
    (name,) = request.subjects
    if name not in VARIANTS and not Path(name).exists() and not Path(name).suffix and Path(name).name == name:
        variant(name)  # raises, and lists the variants
    artifact = _export_variant(name, request, folder, listener) if name in VARIANTS else _read(name, request)
    manifest = artifact.manifest
    known = manifest is not None and manifest.dataset == BUNDLED_NAME and manifest.preprocessing is not None
    first = None if manifest is None else manifest.inputs[0].shape[0]
    return Subject(
        name=name if name in VARIANTS else artifact.path.name,
        own=None if name in VARIANTS else artifact,
        network=artifact.path.name if manifest is None else manifest.name,
        weights=None if manifest is None else manifest.weights,
        typed=(PrecisionVariant(None if manifest is None else manifest.precision, artifact),),
        reference=PrecisionVariant(FP32, Refusal("skipped", "a load is compared with nothing")),
        fixed_batch=first if isinstance(first, int) else None,
        data=BUNDLED_NAME if known else None,
    )


def _export_variant(name: str, request: BenchmarkRequest, folder: Path, listener: RunListener) -> Artifact:
    from exporter import network
    from exporter.targets import onnx_file

    def step(words: str) -> None:
        listener.step(name, words)

    step("exporting")
    wanted = network.ExportRequest(variant(name), f"{folder}/", request.weights or "random", request.seed)
    return onnx_file.export(wanted, network.ExportListener(step, lambda line: listener.notice(str(line))))


def _read(name: str, request: BenchmarkRequest) -> Artifact:
    if request.weights is not None:
        raise UsageError("--weights is for variants, and a file is to be run", hint="leave it out")
    return Artifact.read(name)


def choose_runtimes(subject: Subject, request: BenchmarkRequest) -> tuple[tuple[Pair, int], ...]:
    """The runtimes that were asked for, or the one that ``runtimes.open`` takes, each with its threads.

    Raises:
        UsageError: one is unknown, or does not open the file; no runtime opens it on the device.
        BackendUnavailableError: the artifact was tuned for what is not here.
    """
    (typed,) = subject.typed
    assert isinstance(typed.made, Artifact)
    if not request.backends:
        candidates = select_candidates(typed.made, None, request.device, request.threads, request.cuda_graphs)
        there = [candidate for candidate in candidates if candidate.row.missing() is None]
        row, options = (there or candidates)[0]
        return ((_pair(row, typed, request.device), options.threads),)
    threads = request.threads or usable_processors()
    rows = (_find_backend(name, typed.made) for name in dict.fromkeys(request.backends))
    return tuple((_pair(row, typed, request.device), threads) for row in rows)


def _find_backend(name: str, artifact: Artifact) -> Backend:
    known = {backend.name: backend for backend in available_backends()}
    if name not in known:
        raise UsageError(f"no runtime {quote(name)!r}", hint=f"one of {', '.join(known)}")
    if artifact.format.name not in known[name].formats:
        raise UsageError(f"runtime {name} does not open {artifact.format.name} files", path=artifact.path)
    return known[name]


def _pair(backend: Backend, typed: PrecisionVariant, device: str) -> Pair:
    missing = backend.missing()
    if missing is not None:
        return Pair(backend, typed, Refusal("skipped", missing.sentence))
    if device not in backend.devices:
        refusal = Refusal("skipped", f"it runs on {', '.join(backend.devices)}, and {device} was asked for")
        return Pair(backend, typed, refusal)
    return Pair(backend, typed, typed.made)
