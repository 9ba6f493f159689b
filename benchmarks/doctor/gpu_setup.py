"""How a GPU is set up, and which settings disturb measurements."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from pathlib import Path

from benchmarks.doctor.findings import Finding
from benchmarks.machine.gpu import EXCLUSIVE, Gpu

MPS_VARIABLE, MPS_FOLDER = "CUDA_MPS_PIPE_DIRECTORY", Path("/tmp/nvidia-mps")
"""The variable that names the folder of the multi-process service (MPS), and the folder without it."""

_SET = "sudo nvidia-smi"


def examine_setup(
    cards: Sequence[Gpu], users: Sequence[Sequence[str]] = (), root: Path = Path("/")
) -> Iterator[Finding]:
    """Yield findings about the settings of GPUs. Settings that the driver does not report are left out.

    Args:
        cards: The GPUs.
        users: For each GPU, the names of other processes that compute on it.
        root: The folder that holds ``tmp``.
    """
    for number, card in enumerate(cards):
        # Subjects name the GPU only where there are several.
        prefix, select = ("", "") if len(cards) == 1 else (f"GPU {number} ", f" -i {card.uuid}")
        yield from (finding for finding in _examine(card, prefix, f"{_SET}{select}", root) if finding is not None)
        if number < len(users) and users[number]:
            yield Finding(
                "gpu",
                f"{prefix}used by other processes",
                "warning",
                "gpu-in-use",
                f"{', '.join(users[number])}; measurements are disturbed while they compute",
            )


def _examine(card: Gpu, prefix: str, command: str, root: Path) -> Iterator[Finding | None]:
    yield _compute_mode(card, f"{prefix}compute mode", command)
    yield _mig(card, f"{prefix}MIG")
    yield _mps(card, f"{prefix}MPS", root)
    yield _persistence(card, f"{prefix}persistence mode", command)
    yield _clocks(card, f"{prefix}clocks", command)
    yield _power_limit(card, f"{prefix}power limit", command)
    if card.ecc is not None:
        yield Finding("gpu", f"{prefix}ECC", "ok", "gpu-ecc", "on" if card.ecc else "off")


def _compute_mode(card: Gpu, subject: str, command: str) -> Finding | None:
    if card.compute_mode is None:
        return None
    if card.compute_mode == "prohibited":
        return Finding(
            "gpu",
            subject,
            "broken",
            "gpu-mode-prohibited",
            "prohibited: no process can use the GPU",
            (f"{command} -c DEFAULT",),
        )
    if card.compute_mode == EXCLUSIVE:
        return Finding(
            "gpu",
            subject,
            "warning",
            "gpu-exclusive-process",
            "exclusive process: one process at a time, so backends cannot take turns and are measured one by one",
            (f"{command} -c DEFAULT",),
        )
    return Finding("gpu", subject, "ok", "gpu-compute-mode", f"{card.compute_mode}")


def _mig(card: Gpu, subject: str) -> Finding | None:
    if card.mig is None:
        return None
    if not card.mig:
        return Finding("gpu", subject, "ok", "gpu-whole", "off")
    return Finding(
        "gpu",
        subject,
        "warning",
        "gpu-divided",
        "on: clocks, power and memory are those of the whole GPU, which other instances share",
    )


def _mps(card: Gpu, subject: str, root: Path) -> Finding | None:
    folder = Path(os.environ.get(MPS_VARIABLE, MPS_FOLDER))
    running = (root / folder.relative_to("/") if folder.is_absolute() else folder).joinpath("control").exists()
    if not (card.mps or running):
        return None if card.mps is None else Finding("gpu", subject, "ok", "gpu-without-mps", "off")
    return Finding(
        "gpu",
        subject,
        "warning",
        "gpu-mps",
        "on: processes compute on the GPU at the same time, so other clients disturb measurements",
        ("echo quit | nvidia-cuda-mps-control",),
    )


def _persistence(card: Gpu, subject: str, command: str) -> Finding | None:
    if card.persistence is None:
        return None
    if card.persistence:
        return Finding("gpu", subject, "ok", "gpu-persistent", "on")
    return Finding(
        "gpu",
        subject,
        "warning",
        "gpu-not-persistent",
        "off: the driver may be loaded anew for each process, which makes load times longer",
        (f"{command} -pm 1",),
    )


def _clocks(card: Gpu, subject: str, command: str) -> Finding | None:
    """Return the finding about clocks. The driver does not report clocks that ``nvidia-smi -lgc`` has locked."""
    if card.sm_mhz_max is None:
        return None
    if card.application_mhz is not None and card.application_mhz < card.sm_mhz_max:
        return Finding(
            "gpu",
            subject,
            "ok",
            "gpu-clocks-set",
            f"{card.application_mhz:,} MHz for applications, of at most {card.sm_mhz_max:,} MHz",
        )
    return Finding(
        "gpu",
        subject,
        "ok",
        "gpu-clocks-free",
        f"up to {card.sm_mhz_max:,} MHz, and lower by load and temperature; `{command} -lgc MHZ` keeps a constant "
        "clock, which the driver does not report",
    )


def _power_limit(card: Gpu, subject: str, command: str) -> Finding | None:
    limit_w, default_w = card.power_limit_w, card.power_limit_default_w
    if limit_w is None:
        return None
    if default_w is None or limit_w >= default_w:
        return Finding("gpu", subject, "ok", "gpu-power-limit-usual", f"{limit_w:,.0f} W")
    return Finding(
        "gpu",
        subject,
        "warning",
        "gpu-power-limit-low",
        f"{limit_w:,.0f} W, below the usual {default_w:,.0f} W: the GPU is slower than others of its model",
        (f"{command} -pl {default_w:.0f}",),
    )
