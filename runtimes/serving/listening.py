"""Sockets that a server listens at, and how the system is told to take no more connections."""

from __future__ import annotations

import ctypes
import socket

from runtimes.errors import ResourceError

BACKLOG = 2048
"""The number of connections that wait to be accepted, at most."""


def listen(host: str, port: int) -> socket.socket:
    """Return a listening socket, which the caller closes.

    Args:
        host: The host.
        port: The port, or 0 for any free one.

    Raises:
        ResourceError: The address cannot be used.
    """
    listener = _bind(host, port, reuse_port=False)
    listener.listen(BACKLOG)
    return listener


def reserve(host: str, port: int) -> socket.socket:
    """Return a bound socket that takes no connections, and whose port other processes may listen at.

    Args:
        host: The host.
        port: The port, or 0 for any free one.

    Raises:
        ResourceError: The address cannot be used.
    """
    return _bind(host, port, reuse_port=True)


def _bind(host: str, port: int, reuse_port: bool) -> socket.socket:
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        bound = socket.socket(family, kind, protocol)
        try:
            bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            if reuse_port:
                bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
            bound.bind(address)
        except BaseException:
            bound.close()
            raise
    except OSError as error:
        raise ResourceError(
            f"cannot listen at {host}:{port}: {error.strerror}",
            code="address-unusable",
            hint="choose another --host or --port; --port 0 takes a free one",
            errno=error.errno,
        ) from error
    return bound


def address_of(bound: socket.socket) -> str:
    """Return the address of a socket as it stands in a URL."""
    host, port = bound.getsockname()[:2]
    return f"[{host}]:{port}" if bound.family == socket.AF_INET6 else f"{host}:{port}"


class _Filter(ctypes.Structure):
    _fields_ = (("code", ctypes.c_ushort), ("jt", ctypes.c_ubyte), ("jf", ctypes.c_ubyte), ("k", ctypes.c_uint32))


class _FilterProgram(ctypes.Structure):
    _fields_ = (("len", ctypes.c_ushort), ("filter", ctypes.POINTER(_Filter)))


_SO_ATTACH_FILTER = 26
"""The option of Linux that filters the packets of a socket."""

_RETURN_NOTHING = 0x06
"""The instruction that drops a packet: ``BPF_RET | BPF_K`` with the length 0."""


def refuse_new_connections(listener: socket.socket) -> None:
    """Drop all packets that would open another connection. Those that wait to be accepted stay.

    Closing a listening socket resets the connections that wait in its queue. Between the last ``accept`` and ``close``
    a client could connect; with this filter none can.

    Raises:
        OSError: The system has no such filter.
    """
    drop = _Filter(_RETURN_NOTHING, 0, 0, 0)
    program = _FilterProgram(1, ctypes.pointer(drop))
    listener.setsockopt(socket.SOL_SOCKET, _SO_ATTACH_FILTER, bytes(program))
