"""Environments of other servers and runtimes, which ``make peers`` makes of ``scripts/peers/NAME.txt``."""

from __future__ import annotations

from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]


def peer(name: str) -> Path:
    """The folder of an environment, as ``.peers/triton``. A test that asks for one that is not there is skipped."""
    folder = ROOT / ".peers" / name
    if not (folder / ".complete").exists():
        pytest.skip(f"there is no .peers/{name} here; make peers makes it")
    return folder
