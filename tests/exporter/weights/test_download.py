"""Downloads from a real server that breaks off, lies, forgets ranges, or is not there."""

from __future__ import annotations

import contextlib
import hashlib
import http.server
import multiprocessing
import os
import socket
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from exporter.weights import download
from runtimes.errors import IntegrityError, ResourceError, UsageError
from tests.refusals import refuses

CONTENT = bytes(range(256)) * 4096
NAME = f"resnet18-{hashlib.sha256(CONTENT).hexdigest()[:8]}.pth"


@dataclass
class Server:
    """What the server does, and what it was asked."""

    content: bytes = CONTENT
    ranges: bool = True
    break_after: list[int] = field(default_factory=list)
    status: int = 0
    redirect: str = ""
    with_length: bool = True
    asked: list[str | None] = field(default_factory=list)
    url: str = ""


def _handler(server: Server) -> type[http.server.BaseHTTPRequestHandler]:
    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            wanted = self.headers.get("Range")
            server.asked.append(wanted)
            if server.redirect:
                self.send_response(302)
                self.send_header("Location", server.redirect)
                self.end_headers()
                return
            if server.status:
                self.send_error(server.status)
                return
            start = int(wanted.removeprefix("bytes=").removesuffix("-")) if wanted and server.ranges else 0
            total = len(server.content)
            if start and start >= total:
                self.send_response(416)
                self.send_header("Content-Range", f"bytes */{total}")
                self.end_headers()
                return
            self.send_response(206 if start else 200)
            if start:
                self.send_header("Content-Range", f"bytes {start}-{total - 1}/{total}")
            if server.with_length:
                self.send_header("Content-Length", str(total - start))
            self.end_headers()
            end = start + server.break_after.pop(0) if server.break_after else total
            with contextlib.suppress(OSError):
                self.wfile.write(server.content[start:end])

        def log_message(self, format: str, *args: object) -> None:
            del format, args

    return Handler


@pytest.fixture
def server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    running = Server()
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), _handler(running)) as listener:
        thread = threading.Thread(target=listener.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        running.url = f"http://127.0.0.1:{listener.server_address[1]}/models"
        monkeypatch.setenv("REXPORT_IMAGENET_URL", running.url)
        monkeypatch.setenv("REXPORT_CACHE", str(tmp_path / "cache"))
        monkeypatch.setenv("no_proxy", "*")
        yield running
        listener.shutdown()
        thread.join()


def expect_download_notice(line: str) -> None:
    assert line.startswith("downloading http://127.0.0.1:")


def list_cache(tmp_path: Path) -> list[str]:
    return sorted(os.listdir(tmp_path / "cache"))


def part_of(tmp_path: Path, content: bytes) -> Path:
    (tmp_path / "cache").mkdir()
    part = tmp_path / "cache" / f"{NAME}.part"
    part.write_bytes(content)
    return part


def test_a_file_is_downloaded_once_and_reused(
    server: Server, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    path = download.fetch(NAME, expect_download_notice)
    assert path.read_bytes() == CONTENT
    assert download.fetch(NAME, expect_download_notice) == path
    assert server.asked == [None]
    assert list_cache(tmp_path) == [NAME]
    assert capfd.readouterr() == ("", "")


@pytest.mark.usefixtures("server")
def test_a_cached_file_needs_no_network(monkeypatch: pytest.MonkeyPatch) -> None:
    path = download.fetch(NAME, expect_download_notice)
    monkeypatch.setenv("REXPORT_IMAGENET_URL", "http://127.0.0.1:9/none")
    assert download.fetch(NAME, expect_download_notice) == path


def test_a_damaged_cached_file_is_fetched_again(server: Server) -> None:
    path = download.fetch(NAME, expect_download_notice)
    path.write_bytes(CONTENT[:-1])
    assert download.fetch(NAME, expect_download_notice).read_bytes() == CONTENT
    assert server.asked == [None, None]


def test_a_broken_connection_is_taken_up_again(server: Server, tmp_path: Path) -> None:
    server.break_after = [1000, 300_000]
    assert download.fetch(NAME, expect_download_notice).read_bytes() == CONTENT
    assert server.asked == [None, "bytes=1000-", "bytes=301000-"]
    assert list_cache(tmp_path) == [NAME]


def test_a_part_of_an_earlier_process_is_continued(server: Server, tmp_path: Path) -> None:
    part_of(tmp_path, CONTENT[:4321])
    assert download.fetch(NAME, expect_download_notice).read_bytes() == CONTENT
    assert server.asked == ["bytes=4321-"]


def test_a_server_without_ranges_is_asked_from_the_start(server: Server, tmp_path: Path) -> None:
    server.ranges = False
    part_of(tmp_path, b"x" * 4321)
    assert download.fetch(NAME, expect_download_notice).read_bytes() == CONTENT


def test_a_whole_part_is_taken_as_it_is(server: Server, tmp_path: Path) -> None:
    part_of(tmp_path, CONTENT)
    assert download.fetch(NAME, expect_download_notice).read_bytes() == CONTENT
    assert server.asked == [f"bytes={len(CONTENT)}-"]


def test_a_part_that_is_too_long_is_thrown_away(server: Server, tmp_path: Path) -> None:
    part_of(tmp_path, CONTENT + b"more")
    assert download.fetch(NAME, expect_download_notice).read_bytes() == CONTENT
    assert server.asked[-1] is None


def test_after_repeated_breaks_the_part_is_kept(server: Server, tmp_path: Path) -> None:
    server.break_after = [1000] * 5
    with refuses(ResourceError, "download-failed", "1,048,576", "5,000 bytes"):
        download.fetch(NAME, expect_download_notice)
    assert list_cache(tmp_path) == [f"{NAME}.part"]
    assert download.fetch(NAME, expect_download_notice).read_bytes() == CONTENT


def test_other_bytes_than_promised_are_removed(server: Server, tmp_path: Path) -> None:
    server.content = CONTENT[::-1]
    with refuses(IntegrityError, "download-digest-mismatch"):
        download.fetch(NAME, expect_download_notice)
    assert list_cache(tmp_path) == []


def test_a_cut_that_no_length_tells_of_is_found_by_the_digest(server: Server) -> None:
    server.with_length = False
    server.break_after = [1000]
    with refuses(IntegrityError, "download-digest-mismatch"):
        download.fetch(NAME, expect_download_notice)


def test_too_many_bytes_are_not_believed(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(download, "MAX_BYTES", 1000)
    with refuses(ResourceError, "download-size-excessive", "1,048,576"):
        download.fetch(NAME, expect_download_notice)
    server.with_length = False
    with refuses(ResourceError, "download-too-large", "1,000"):
        download.fetch(NAME, expect_download_notice)


@pytest.mark.parametrize("status", [403, 404, 500])
def test_the_servers_refusal_is_reported(server: Server, status: int) -> None:
    server.status = status
    with refuses(ResourceError, "download-refused", NAME, status):
        download.fetch(NAME, expect_download_notice)


def test_redirects_lead_to_http_alone(server: Server) -> None:
    server.redirect = "ftp://127.0.0.1/etc/passwd"
    with refuses(ResourceError, "download-failed", "ftp://"):
        download.fetch(NAME, expect_download_notice)
    server.redirect = "file:///etc/passwd"
    with refuses(ResourceError, "download-refused", "302"):
        download.fetch(NAME, expect_download_notice)


@pytest.mark.usefixtures("server")
@pytest.mark.parametrize("address", ["file:///models", "ftp://host/models", "models"])
def test_a_mirror_must_be_http(monkeypatch: pytest.MonkeyPatch, address: str) -> None:
    monkeypatch.setenv("REXPORT_IMAGENET_URL", address)
    with refuses(UsageError, "mirror-address-invalid", "REXPORT_IMAGENET_URL"):
        download.fetch(NAME, expect_download_notice)


@pytest.mark.usefixtures("server")
def test_without_a_network_the_alternatives_are_named(monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        monkeypatch.setenv("REXPORT_IMAGENET_URL", f"http://127.0.0.1:{free.getsockname()[1]}")
        with refuses(
            ResourceError, "download-failed", "Connection refused", "--weights FILE", "--weights bundled"
        ) as caught:
            download.fetch(NAME, expect_download_notice)
    assert "\n" not in str(caught.value)


@pytest.mark.usefixtures("server")
def test_a_silent_server_times_out(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(download, "TIMEOUT_S", 0.1)
    with socket.create_server(("127.0.0.1", 0)) as mute:
        monkeypatch.setenv("REXPORT_IMAGENET_URL", f"http://127.0.0.1:{mute.getsockname()[1]}")
        with refuses(ResourceError, "download-failed", "timed out"):
            download.fetch(NAME, expect_download_notice)


def test_an_unwritable_cache_is_refused_before_the_download(
    server: Server, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("REXPORT_CACHE", str(tmp_path / "file" / "cache"))
    with refuses(ResourceError, "file-access-failed", "REXPORT_CACHE"):
        download.fetch(NAME, expect_download_notice)
    assert server.asked == []


def _fetch(results: multiprocessing.Queue[str]) -> None:
    results.put(hashlib.sha256(download.fetch(NAME, expect_download_notice).read_bytes()).hexdigest())


def test_processes_share_one_download(server: Server, tmp_path: Path) -> None:
    context = multiprocessing.get_context("spawn")
    results: multiprocessing.Queue[str] = context.Queue()
    processes = [context.Process(target=_fetch, args=(results,)) for _ in range(3)]
    for process in processes:
        process.start()
    digests = {results.get(timeout=60) for _ in processes}
    for process in processes:
        process.join()
    assert digests == {hashlib.sha256(CONTENT).hexdigest()}
    assert server.asked == [None]
    assert list_cache(tmp_path) == [NAME]


def test_the_download_tells_how_far_it_is(server: Server) -> None:
    told: list[tuple[float | None, str]] = []
    download.fetch(NAME, expect_download_notice, lambda share, detail: told.append((share, detail)))
    assert [share for share, _ in told] == [0.25, 0.5, 0.75, 1.0]
    assert told[-1][1] == f"{NAME} · 1 of 1 MB"
    server.with_length = False
    (download.cache_folder() / NAME).unlink()
    told.clear()
    download.fetch(NAME, expect_download_notice, lambda share, detail: told.append((share, detail)))
    assert {share for share, _ in told} == {None}
    assert told[-1][1] == f"{NAME} · 1 MB"


@pytest.mark.usefixtures("server")
def test_a_download_writes_nothing_itself(capfd: pytest.CaptureFixture[str]) -> None:
    download.fetch(NAME, expect_download_notice)
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize(
    ("variables", "folder"),
    [
        ({"REXPORT_CACHE": "/a", "XDG_CACHE_HOME": "/b", "HOME": "/c"}, "/a"),
        ({"XDG_CACHE_HOME": "/b", "HOME": "/c"}, "/b/rexport"),
        ({"XDG_CACHE_HOME": "relative", "HOME": "/c"}, "/c/.cache/rexport"),
        ({"HOME": "/c"}, "/c/.cache/rexport"),
    ],
)
def test_the_folder_of_the_cache(monkeypatch: pytest.MonkeyPatch, variables: dict[str, str], folder: str) -> None:
    for name in ("REXPORT_CACHE", "XDG_CACHE_HOME", "HOME"):
        monkeypatch.delenv(name, raising=False)
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    assert download.cache_folder() == Path(folder)


def _homeless() -> Path:
    raise RuntimeError("Could not determine home directory.")


def test_a_missing_home_folder_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("REXPORT_CACHE", "XDG_CACHE_HOME"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(Path, "home", _homeless)
    with refuses(ResourceError, "cache-folder-unknown"):
        download.cache_folder()


def test_the_published_names_carry_their_digests() -> None:
    assert all(len(name.split("-")[1].removesuffix(".pth")) == 8 for name in download.PUBLISHED.values())
