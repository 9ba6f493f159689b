"""``rbench load --url`` against a real server with a script."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from click.testing import CliRunner

from benchmarks.analysis.figures import Figures
from benchmarks.commands.measure import load
from benchmarks.load import rate_search
from benchmarks.load.run import LoadSpec, run
from benchmarks.records import store
from benchmarks.records.plan import Endpoint, ShapeName
from benchmarks.records.request import BenchmarkRequest, RunListener
from benchmarks.records.result import Result
from benchmarks.records.samples import ServedLoad
from benchmarks.worker.served_load import find_host_kind
from runtimes.errors import ArtifactError, BackendUnavailableError, ModelMismatchError, RexportError, UsageError
from tests.benchmarks.load.scripted_server import Ports, ServerScript, scripted_server
from tests.benchmarks.scripts import RAW, artifact, foreign
from tests.refusals import refuses

STALL_S = 0.5

SILENT = RunListener(lambda *_: None, lambda _: None)


def measure(path: Path, url: str, shape: ShapeName, rate_per_s: float | None = None, duration_s: float = 0.5) -> Result:
    load_spec = LoadSpec((shape,), rate_per_s, frames_per_s=50.0, clients=(3,), endpoint=Endpoint(url))
    request = BenchmarkRequest((str(path),), duration_s=duration_s, batches=(2,))
    *_, result = run(request, load_spec, SILENT)
    return result


def served(result: Result) -> ServedLoad:
    assert result.status == "ok", result.reason
    assert result.load is not None
    assert result.load.served is not None
    return result.load.served


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return artifact(tmp_path_factory.mktemp("served"))


@pytest.fixture(scope="module")
def ports() -> Iterator[Ports]:
    with scripted_server(ServerScript(delays_s=(0.02,))) as found:
        yield found


@pytest.mark.parametrize("protocol", ["http", "grpc"])
def test_a_served_row_says_what_answered_and_how_long(protocol: str, path: Path, ports: Ports) -> None:
    result = measure(path, getattr(ports, protocol), "server", rate_per_s=60.0)
    about, result_load = served(result), result.load
    assert result_load is not None
    assert (about.protocol, about.host, about.server) == (protocol, "loopback", "scripted 1.2")
    assert (about.model, about.model_version, about.failures) == ("net", "3", {})
    assert (result.identity.backend, result.ran.backend_version) == (f"scripted/{protocol}", "1.2")
    assert (result.asked.device, result.ran.device) == (None, "unknown")
    assert len(result_load.services_s) == len(result_load.responses_s) > 10
    assert min(result_load.services_s) >= 0.02
    assert all(
        response >= service for service, response in zip(result_load.services_s, result_load.responses_s, strict=True)
    )
    assert about.null_s
    assert min(about.null_s) < 0.02
    codes = [warning.code for warning in Figures(result).disturbances or ()]
    assert not {"others-busy", "threads-waited", "system-waited"} & {*codes}  # the server is no disturbance


def test_a_stall_shows_in_all_that_wait_behind_it(path: Path) -> None:
    """A single stream hides it, which is why the open loop exists."""
    with scripted_server(ServerScript(delays_s=(0.02,), stall_every=30, stall_s=STALL_S)) as ports:
        load_spec = LoadSpec(("single-stream", "fixed-rate"), frames_per_s=50.0, endpoint=Endpoint(ports.http))
        results = list(run(BenchmarkRequest((str(path),), duration_s=1.2), load_spec, SILENT))
    waiting = []
    for result in results:
        assert served(result).failures == {}
        assert result.load is not None
        waiting.append(sum(response > STALL_S / 3 for response in result.load.responses_s))
    stream, fixed = waiting
    assert 1 <= stream <= 3
    assert 15 <= fixed <= 60


@pytest.mark.parametrize(
    ("host", "kind"),
    [("127.0.0.1", "loopback"), ("localhost", "loopback"), ("10.255.255.254", "private"), ("8.8.8.8", "public")],
)
def test_the_place_of_a_server_follows_from_its_address(host: str, kind: str) -> None:
    assert find_host_kind(host) == kind


def test_a_rate_beyond_the_client_is_said_to_be_its_limit(path: Path) -> None:
    with scripted_server(ServerScript()) as ports:
        result = measure(path, ports.http, "server", rate_per_s=20_000.0, duration_s=0.2)
    assert served(result).null_s
    assert "client-limited" in [warning.code for warning in Figures(result).warnings]


def test_refused_and_dropped_requests_are_counted(path: Path) -> None:
    script = ServerScript(delays_s=(0.005,), refuse_every=5, drop_every=9, busy_only=True, chunked=True)
    with scripted_server(script) as ports:
        result = measure(path, ports.http, "clients")
    about, result_load = served(result), result.load
    assert result_load is not None
    assert {*about.failures} == {"connection", "http-503"}
    assert 0.1 < about.failed / (about.failed + len(result_load.services_s)) < 0.5
    assert "requests-failed" in [warning.code for warning in Figures(result).warnings]


@pytest.mark.parametrize(
    ("script", "code"),
    [
        (ServerScript(scale=1.5), "vectors-not-matched"),
        (ServerScript(delays_s=(0.005,), scale=1.5, busy_only=True), "served-output-changed"),
        (ServerScript(refuse_every=1), "request-unanswered"),
    ],
)
def test_wrong_answers_get_no_number(script: ServerScript, code: str, path: Path) -> None:
    with scripted_server(script) as ports:
        result = measure(path, ports.http, "clients")
    assert (result.status, result.load) == ("failed", None)
    assert result.reason is not None
    assert result.reason.code == code


def test_a_search_records_all_its_rates(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rate_search, "LEAST_REQUESTS", 40)
    monkeypatch.setattr(rate_search, "MOST_POINTS", 2)
    with scripted_server(ServerScript(delays_s=(0.02,), serial=True)) as ports:
        load_spec = LoadSpec(endpoint=Endpoint(ports.http, limit_s=0.9))
        results = list(run(BenchmarkRequest((str(path),), duration_s=0.2), load_spec, SILENT))
    assert [served(result).limit_s for result in results] == [0.9] * 3
    loads = [result.load for result in results if result.load is not None]
    assert [load.shape for load in loads] == ["single-stream", *["server"] * 2]
    assert loads[1].rate_per_s == pytest.approx(0.7 * loads[0].achieved_per_s)


@pytest.mark.parametrize(
    ("kind", "code", "endpoint"),
    [
        (ModelMismatchError, "model-not-served", Endpoint("{http}", model="other")),
        (ModelMismatchError, "model-not-served", Endpoint("{http}", version="4")),
        (BackendUnavailableError, "server-unreachable", Endpoint("http://127.0.0.1:9")),
        (UsageError, "url-invalid", Endpoint("127.0.0.1:8000")),
    ],
)
def test_what_is_not_served_is_refused(
    kind: type[RexportError], code: str, endpoint: Endpoint, path: Path, ports: Ports
) -> None:
    url = endpoint.url.format(http=ports.http)
    load_spec = LoadSpec(endpoint=Endpoint(url, endpoint.model, endpoint.version))
    with refuses(kind, code):
        next(run(BenchmarkRequest((str(path),)), load_spec, SILENT))


def test_another_artifact_than_the_served_one_is_refused(ports: Ports, tmp_path: Path) -> None:
    load_spec, raw = LoadSpec(endpoint=Endpoint(ports.http)), artifact(tmp_path, RAW)
    with refuses(ModelMismatchError, "served-model-differs", "input"):
        next(run(BenchmarkRequest((str(raw),)), load_spec, SILENT))
    with refuses(ArtifactError, "vectors-absent"):
        next(run(BenchmarkRequest((str(foreign(tmp_path, name="other.fake")),)), load_spec, SILENT))
    with refuses(UsageError, "load-url-needs-artifact"):
        next(run(BenchmarkRequest(("resnet20",)), load_spec, SILENT))


@pytest.mark.parametrize(
    ("options", "code"),
    [
        (["--max-p99", "20ms"], "max-p99-needs-url"),
        (["--url", "http://127.0.0.1:9", "--max-p99", "20"], "usage"),
        (["--url", "http://127.0.0.1:9", "--max-p99", "10s"], "limit-out-of-range"),
        (["--url", "http://user:secret@127.0.0.1:9"], "url-with-credentials"),
        (["--url", "http://127.0.0.1:9", "--shape", "cold"], "cold-start-of-server"),
    ],
)
def test_options_that_contradict_are_refused(options: list[str], code: str, path: Path) -> None:
    done = CliRunner().invoke(load, [str(path), *options])
    assert done.stdout == ""
    if done.exception is not None and not isinstance(done.exception, SystemExit):
        assert isinstance(done.exception, UsageError)
        assert done.exception.code == code
    else:
        assert (done.exit_code, code) == (2, "usage")
    assert "secret" not in f"{done.exception}{done.stderr}"


def test_lines_of_other_loads_stay_as_they_were(path: Path, tmp_path: Path) -> None:
    load_spec = LoadSpec(("single-stream",))
    (result,) = run(BenchmarkRequest((str(path),), duration_s=0.02), load_spec, SILENT)
    store.ResultsFile(tmp_path / "lines.jsonl").append(result, {})
    assert '"served"' not in (tmp_path / "lines.jsonl").read_text()
    assert store.read(tmp_path / "lines.jsonl") == (result,)
