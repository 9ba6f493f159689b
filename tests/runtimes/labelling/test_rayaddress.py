"""Addresses of Ray clusters: what is one, and which are refused for want of a token or of an answer."""

from __future__ import annotations

import socket

import pytest

from runtimes.errors import BackendUnavailableError, UsageError
from runtimes.labelling.rayaddress import RayAddress, is_loopback
from tests.refusals import refuses


@pytest.mark.parametrize(
    ("text", "environment", "expected"),
    [
        ("local", {"RAY_ADDRESS": "10.0.0.1:6379"}, RayAddress(None, None, local=True)),
        ("auto", {}, RayAddress(None, None, local=False)),
        ("auto", {"RAY_ADDRESS": "auto"}, RayAddress(None, None, local=False)),
        ("auto", {"RAY_ADDRESS": "10.0.0.1:6379"}, RayAddress("10.0.0.1", 6379, local=False)),
        ("head.example:6380", {}, RayAddress("head.example", 6380, local=False)),
        ("[::1]:6379", {}, RayAddress("::1", 6379, local=False)),
    ],
)
def test_addresses(text: str, environment: dict[str, str], expected: RayAddress) -> None:
    address = RayAddress.parse(text, environment)
    assert address == expected
    assert RayAddress.parse(str(address), {}) == expected


@pytest.mark.parametrize("text", ["", "head", "ray://head:10001", "head:", ":6379", "head:0", "head:65536", "head:x"])
def test_what_is_no_address(text: str) -> None:
    with refuses(UsageError, "ray-address-invalid", repr(text)):
        RayAddress.parse(text, {})


@pytest.mark.parametrize("host", ["localhost", "127.0.0.1", "127.0.0.2", "::1"])
def test_loopback_needs_no_token(host: str) -> None:
    assert is_loopback(host)
    RayAddress(host, 6379, local=False).check_authentication({})


@pytest.mark.parametrize("environment", [{}, {"RAY_AUTH_MODE": "disabled"}])
@pytest.mark.parametrize("host", ["10.0.0.1", "head.example", "0.0.0.0", "::", "localhost.example"])
def test_a_network_address_needs_a_token(host: str, environment: dict[str, str]) -> None:
    address = RayAddress(host, 6379, local=False)
    with refuses(UsageError, "ray-without-token", host):
        address.check_authentication(environment)
    address.check_authentication({"RAY_AUTH_MODE": "token"})


def test_no_answer_is_an_error_within_seconds() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        address = RayAddress("127.0.0.1", server.getsockname()[1], local=False)
        address.check_reachable()
    with refuses(BackendUnavailableError, "ray-unreachable", address):
        address.check_reachable()


def test_a_server_on_loopback_alone_is_recognised() -> None:
    for host, alone in (("127.0.0.1", True), ("", False)):
        with socket.create_server((host, 0)) as server:
            address = RayAddress("127.0.0.1", server.getsockname()[1], local=False)
            assert address.is_on_loopback_alone() is alone
    assert not RayAddress("10.0.0.1", 6379, local=False).is_on_loopback_alone()
    assert not RayAddress(None, None, local=False).is_on_loopback_alone()
