"""The server of ``rbench load --url``: which of its models an artifact is, and the pair that stands for it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from benchmarks.records.plan import Endpoint
from benchmarks.records.request import Pair, Subject
from benchmarks.worker.remote_session import UNKNOWN as UNKNOWN
from benchmarks.worker.remote_session import RemoteRuntime, RemoteSession
from exporter.deploy.served import RemoteModel, ServerConnection
from runtimes import Artifact, Backend
from runtimes.errors import BackendUnavailableError, ModelMismatchError, UsageError, quote
from runtimes.protocol import Options, TensorSpec


def find_endpoint(wanted: Endpoint, subject: Subject, notice: Callable[[str], None]) -> Endpoint:
    """The served model, as the server describes it.

    Args:
        wanted: The address, and the model's name and version as far as the user gave them.
        subject: The network of the artifact that is served there.
        notice: Called with a line if the model's name is a guess.

    Raises:
        UsageError: The address is invalid, or it is not clear which of the server's models is meant.
        ArtifactError: The artifact has no test vectors to check the answers with.
        ModelMismatchError: The server does not offer the model, or it has other inputs or outputs.
        BackendUnavailableError: Nothing answers there, or the client's library is not installed.
    """
    artifact = subject.own
    assert artifact is not None
    artifact.vectors()
    try:
        with ServerConnection(wanted.url, wanted.timeout_s) as server:
            name = wanted.model or _choose_model(server, artifact, notice)
            model = server.model(name, wanted.version)
            _check_model(model, artifact, wanted.url)
            return replace(wanted, model=name, server=server.server(), versions=model.versions)
    except BackendUnavailableError as error:
        if error.code == "server-timeout":
            error.say(error.what, "--request-timeout waits longer")
        raise


def _choose_model(server: ServerConnection, artifact: Artifact, notice: Callable[[str], None]) -> str:
    """The model with the name of the file or of the network, or the only one."""
    assert artifact.manifest is not None
    names = dict.fromkeys((artifact.path.stem, artifact.manifest.name))
    offered = server.models()
    chosen = next((name for name in names if _is_offered(server, name, offered)), None)
    if chosen is None and offered is not None and len(offered) == 1:
        (chosen,) = offered
    if chosen is None:
        known = "" if offered is None else f"; it offers {', '.join(map(quote, offered)) or 'no model'}"
        raise UsageError(
            f"{server.url} has no model called {' or '.join(map(quote, names))}{known}",
            code="model-not-named",
            hint="name it with --model",
        )
    notice(f"model {chosen} of the server; --model names another one")
    return chosen


def _is_offered(server: ServerConnection, name: str, offered: tuple[str, ...] | None) -> bool:
    return server.is_ready(name) if offered is None else name in offered


def _check_model(model: RemoteModel, artifact: Artifact, url: str) -> None:
    assert artifact.manifest is not None
    for kind, wanted, found in (
        ("input", artifact.manifest.inputs, model.inputs),
        ("output", artifact.manifest.outputs, model.outputs),
    ):
        known = {spec.name: spec for spec in found}
        for spec in wanted:
            if not _is_alike(spec, known.get(spec.name)):
                raise ModelMismatchError(
                    f"model {quote(model.name)} at {url} has no {kind} {spec}; it has {', '.join(map(str, found))}",
                    code="served-model-differs",
                    hint="name the artifact that is served, or another model with --model",
                )


def _is_alike(spec: TensorSpec, served: TensorSpec | None) -> bool:
    return served is not None and served.dtype == spec.dtype and len(served.shape) == len(spec.shape)


def make_pair(subject: Subject, endpoint: Endpoint) -> Pair:
    """The pair of an artifact and its server, which stands in for a backend and is called ``triton/grpc`` or alike."""
    (typed,) = subject.typed
    assert isinstance(typed.made, Artifact)

    def open_session(artifact: Artifact, _: Options) -> RemoteSession:
        return RemoteRuntime(artifact, endpoint).session

    name = f"{endpoint.server.partition(' ')[0]}/{endpoint.protocol}"
    backend = Backend(name, endpoint.server, (typed.format,), (), 0, lambda: None, open_session)
    return Pair(subject, backend, typed, typed.made)
