"""The parity check of a running server: the test vectors of artifacts, answered by what is served."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np

from exporter.deploy.served import RemoteModel, ServedConfiguration, ServerConnection
from exporter.deploy.served_versions import ServedVersion, VerificationRequest, list_versions, models_of
from exporter.deploy.triton_config import DIGEST_KEY, IMAGE
from exporter.deploy.vector_images import png_images
from exporter.inspect.manifest_view import describe_parity, parity_reference
from runtimes import Artifact, parity
from runtimes.artifacts.manifest import Manifest, Parity
from runtimes.errors import BackendUnavailableError, CheckFailedError, ModelMismatchError, Reason, RexportError, quote
from runtimes.escaping import MAX_LINE, printable
from runtimes.images.preprocessing import fit_or_name
from runtimes.network_io import NetworkInput
from runtimes.parity import OutputDifference
from runtimes.protocol import Description
from runtimes.runtime import Runtime
from runtimes.tensors.spec import Arrays, TensorSpec


@dataclass(frozen=True)
class ServedParity:
    """The passed check of a served version.

    Attributes:
        model: The name of the model.
        version: The version, or an empty text for the server's choice.
        url: The address of the server.
        digest_reported: Whether the server reported the digest of its model file, which is then the artifact's.
        parity: The comparison of the served outputs with those of PyTorch.
        image_difference: The largest difference of the outputs for encoded images from those for the arrays that
            rexport prepares from the same images here. ``None`` if the model takes no encoded images.
    """

    model: str
    version: str
    url: str
    digest_reported: bool
    parity: Parity
    image_difference: float | None


class ServedSession:
    """A served version as the session of a ``Runtime``. Only one thread at a time may use it.

    Args:
        server: The connection, which stays the caller's.
        served: The version.
        description: The server's description of it.

    Attributes:
        inputs: The inputs without the one for encoded images.
        outputs: The outputs.
        description: The server.
    """

    def __init__(self, server: ServerConnection, served: ServedVersion, description: RemoteModel) -> None:
        name, _, version = server.server().partition(" ")
        self.inputs: tuple[TensorSpec, ...] = tuple(spec for spec in description.inputs if spec.name != IMAGE)
        self.outputs = description.outputs
        self.description = Description(name, version, "unknown", description.platform, "unknown", 0)
        self._server = server
        self._served = served

    def run(self, arrays: Arrays) -> Arrays:
        """Send one request and return its outputs by name."""
        return self._server.infer(self._served.model, arrays, self._served.version)

    def bind(self, arrays: Arrays) -> Callable[[], None]:
        """Return a function that sends the request and waits for its answer."""

        def run_once() -> None:
            self.run(arrays)

        return run_once

    def close(self) -> None:
        """Do nothing: the connection belongs to the caller."""


def verify_served(
    request: VerificationRequest, notify: Callable[[Reason], None]
) -> Iterator[ServedParity | RexportError]:
    """Yield, for each version that has to be served, its passed check or the error.

    Of a repository, these are the versions that the server offers, and the newest one in any case.

    Args:
        request: What is to be verified.
        notify: Called with each notice.

    Raises:
        BackendUnavailableError: Nothing answers at the address, the server is not ready, or the client's library is
            not installed.
        ArtifactError: The path is neither an artifact nor a repository that rexport wrote.
        UsageError: The address is invalid, or the repository has no such model.
    """
    with ServerConnection(request.url, request.timeout_s) as server:
        models = models_of(request)
        name = server.server()
        if not server.is_ready():
            raise BackendUnavailableError(
                f"{name} at {request.url} is not ready",
                code="server-not-ready",
                hint="wait until its models are loaded; its log says why one is not",
            )
        for name, versions in models.items():
            try:
                description = server.model(name)
                for served in list_versions(name, versions, description, server):
                    yield _verify(server, served, notify)
            except RexportError as error:
                yield error
                if isinstance(error, BackendUnavailableError):  # nothing else will be answered either
                    return


def _verify(server: ServerConnection, served: ServedVersion, notify: Callable[[Reason], None]) -> ServedParity:
    artifact, description = Artifact.read(served.path), server.model(served.model, served.version)
    configuration = server.configuration(served.model, served.version)
    vectors, reference = artifact.vectors(), parity_reference(artifact)
    digest_reported = _check_digest(server, served, artifact, configuration)
    if not digest_reported:
        notify(
            Reason(
                "served-digest-unknown",
                f"{server.url} does not report which file {served.model} is: only its outputs are checked",
            )
        )
    session = ServedSession(server, served, description)
    _require_interface(server, served, artifact.manifest, session)
    runtime, largest_batch = Runtime(artifact, session), None if configuration is None else configuration.largest_batch
    record = parity.check(
        runtime, vectors, reference.tolerance, reference.description, reference.images, largest_batch=largest_batch
    )
    difference = None
    if artifact.manifest is not None and any(spec.name == IMAGE for spec in description.inputs):
        difference = _image_difference(runtime, session, png_images(vectors, artifact.manifest), record)
    return ServedParity(served.model, served.version, server.url, digest_reported, record, difference)


def _check_digest(
    server: ServerConnection, served: ServedVersion, artifact: Artifact, configuration: ServedConfiguration | None
) -> bool:
    """Return whether the server reports a digest.

    Raises:
        ModelMismatchError: It is another one.
    """
    parameters = {} if configuration is None else configuration.parameters
    digests = {key.removeprefix(DIGEST_KEY): value for key, value in parameters.items() if key.startswith(DIGEST_KEY)}
    if served.version:
        digests = {version: digest for version, digest in digests.items() if version == served.version}
    if not digests or artifact.manifest is None:
        return False
    if artifact.manifest.sha256 not in digests.values():
        raise ModelMismatchError(
            f"{server.url} serves another file as {served.model}: its SHA-256 begins with "
            f"{quote(next(iter(digests.values())))[:12]}, that of the artifact with {artifact.manifest.sha256[:12]}",
            code="served-digest-mismatch",
            path=served.path,
            hint="restart the server with this repository, or choose another --model",
        )
    return True


def _require_interface(
    server: ServerConnection, served: ServedVersion, manifest: Manifest | None, session: ServedSession
) -> None:
    """Raise ``ModelMismatchError`` if the server's inputs and outputs are not those of the artifact."""
    if manifest is None:
        return
    pairs = ((manifest.inputs, session.inputs), (manifest.outputs, session.outputs))
    if all(_same_tensors(ours, theirs) for ours, theirs in pairs):
        return
    found, expected = (*session.inputs, *session.outputs), (*manifest.inputs, *manifest.outputs)
    raise ModelMismatchError(
        f"{server.url} serves another model as {served.model}: {'; '.join(map(str, found))}, but the artifact has "
        f"{'; '.join(map(str, expected))}",
        code="served-interface-mismatch",
        path=served.path,
        hint="choose another --model",
    )


def _same_tensors(ours: tuple[TensorSpec, ...], theirs: tuple[TensorSpec, ...]) -> bool:
    def facts(specs: tuple[TensorSpec, ...]) -> list[tuple[object, ...]]:
        sizes = (tuple(size if isinstance(size, int) else None for size in spec.shape) for spec in specs)
        return sorted(((spec.name, spec.dtype, shape) for spec, shape in zip(specs, sizes, strict=True)), key=str)

    return facts(ours) == facts(theirs)


def _image_difference(runtime: Runtime, session: ServedSession, images: tuple[bytes, ...], record: Parity) -> float:
    """Return the largest difference of the outputs for encoded images from those for arrays prepared here.

    Raises:
        CheckFailedError: It exceeds the tolerance of the parity check.
    """
    manifest = runtime.artifact.manifest
    assert manifest is not None
    assert manifest.preprocessing is not None
    view, entry = manifest.preprocessing, NetworkInput.find(runtime, manifest.preprocessing)
    batch, results = max(record.batches), []
    for start in range(0, len(images), batch):
        part = [images[(start + offset) % len(images)] for offset in range(batch)]
        pixels = np.stack([fit_or_name(image, view, start) for image in part])
        expected = runtime.infer({entry.spec.name: entry.from_pixels(pixels, view)})
        answers = session.run({IMAGE: np.array(part, object).reshape((batch,) if entry.batch else (batch, 1))})
        results += [
            OutputDifference.compare(name, answers[name], expected[name], manifest.activation) for name in expected
        ]
    worst = max(result.relative_difference for result in results)
    if not worst <= record.tolerance:
        raise CheckFailedError(
            f"the server prepares images differently: its outputs for encoded images differ by {worst:.2e} of their "
            f"size (limit {record.tolerance:.0e}) from those for arrays that were prepared here",
            code="served-images-differ",
            path=runtime.artifact.path,
        )
    return max(result.max_difference for result in results)


def as_text(result: ServedParity) -> str:
    """Return a passed check as one line of text."""
    version = f" version {result.version}" if result.version else ""
    difference, images = result.image_difference, ""
    if difference is not None:
        images = (
            f"; image files give {'the same outputs' if not difference else f'outputs up to {difference:.1e} away'}"
        )
    line = f"{result.model}{version} at {result.url}: parity passed: {describe_parity(result.parity)}{images}"
    return printable(line, MAX_LINE)
