"""The comment at the head of each file: what it is, what was checked, and what to do with it."""

from __future__ import annotations

from collections.abc import Sequence

from exporter.deploy.cluster.deployment import Deployment

NOT_APPLIED = "rexport applies nothing to a cluster: try the file in a namespace of its own first."
"""Said in every file for Kubernetes, since no cluster takes part in the tests."""


def head_lines(what: str, deployment: Deployment, *further: str) -> Sequence[str]:
    """Return the lines of the comment.

    Args:
        what: What the file is.
        deployment: The artifact and its containers.
        further: What was checked and what to do, a line each.
    """
    from importlib.metadata import version

    artifact = deployment.artifact
    origin = f"Written by rexport {version('rexport')} for {artifact.path.name}"
    return (what, f"{origin}, SHA-256 {deployment.digest}.", *further)
