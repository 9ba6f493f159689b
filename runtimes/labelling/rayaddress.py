"""``RayAddress``: where a Ray cluster is, and whether it is safe to send work there."""

from __future__ import annotations

import ipaddress
import os
import socket
from collections.abc import Mapping
from dataclasses import dataclass

from runtimes.errors import BackendUnavailableError, UsageError, quote

LOCAL, AUTO = "local", "auto"
"""A cluster of this command alone, and the cluster that this machine belongs to."""

CONNECT_S = 5.0
"""Seconds to wait for the port of a cluster. Ray itself tries for more than two minutes."""


@dataclass(frozen=True)
class RayAddress:
    """The address of a Ray cluster.

    Attributes:
        host: The host of the cluster's head node, or ``None`` for ``local`` and for the cluster of this machine.
        port: Its port, or ``None``.
        local: Whether a cluster is started for this command, and ended with it.
    """

    host: str | None
    port: int | None
    local: bool

    @classmethod
    def parse(cls, text: str, environment: Mapping[str, str] = os.environ) -> RayAddress:
        """Return the address for ``local``, ``auto`` or ``HOST:PORT``.

        Args:
            text: The address. ``auto`` means the variable ``RAY_ADDRESS``, or else the cluster of this machine.
            environment: The variables.

        Raises:
            UsageError: The text is none of the three.
        """
        if text == LOCAL:
            return cls(None, None, local=True)
        if text == AUTO:
            text = environment.get("RAY_ADDRESS", "")
            if text in ("", AUTO, LOCAL):
                return cls(None, None, local=False)
        host, separator, port = text.rpartition(":")
        if "/" in text or not separator or not host or not (port.isdecimal() and 0 < int(port) < 65536):
            raise UsageError(
                f"{quote(text)!r} is not the address of a Ray cluster: expected local, auto or HOST:PORT",
                code="ray-address-invalid",
                hint="the port of ray start --head is 6379 by default; ray:// clients are not supported, so run the "
                "command on a node of the cluster",
            )
        return cls(host.strip("[]"), int(port), local=False)

    def __str__(self) -> str:
        """Return the address in the form that Ray takes."""
        if self.host is None:
            return LOCAL if self.local else AUTO
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"

    def check_authentication(self, environment: Mapping[str, str] = os.environ) -> None:
        """Check that work goes to another machine only if the cluster asks for a token.

        A Ray cluster without a token runs the code of anyone who reaches its port.

        Raises:
            UsageError: The host is not of this machine's loopback, and ``RAY_AUTH_MODE`` is not ``token``.
        """
        if self.host is None or is_loopback(self.host) or environment.get("RAY_AUTH_MODE", "").lower() == "token":
            return
        raise UsageError(
            f"the Ray cluster {self} is reached over the network, and RAY_AUTH_MODE is not token: anyone who reaches "
            "its ports could run code on it",
            code="ray-without-token",
            hint="set RAY_AUTH_MODE=token and RAY_AUTH_TOKEN_PATH=FILE here and on all nodes; ray get-auth-token "
            "--generate makes the token",
        )

    def check_reachable(self) -> None:
        """Check that something listens at the address.

        Raises:
            BackendUnavailableError: Nothing does, or the host is unknown.
        """
        try:
            self._connect(self.host)
        except OSError as error:
            raise BackendUnavailableError(
                f"no Ray cluster answers at {self}: {quote(error.strerror or error)}",
                code="ray-unreachable",
                hint="ray start --head starts one; --ray local needs none",
            ) from error

    def is_on_loopback_alone(self) -> bool:
        """Return whether the cluster listens on the loopback address alone.

        Ray replaces a loopback address by that of the machine, and then tries for minutes to reach such a cluster.
        """
        if self.host is None or not is_loopback(self.host):
            return False
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
            try:
                probe.connect(("192.0.2.1", 1))  # sends nothing: the system only chooses the address to send from
                self._connect(probe.getsockname()[0])
            except OSError:
                return True
        return False

    def _connect(self, host: str | None) -> None:
        """Connect to the port on a host and disconnect. Without a host or a port, do nothing."""
        if host is not None and self.port is not None:
            socket.create_connection((host, self.port), timeout=CONNECT_S).close()


def is_loopback(host: str) -> bool:
    """Return whether a host name or an IP address is one of this machine that no other machine reaches."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
