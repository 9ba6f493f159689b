"""The shapes of a load test, and how its requests come in: the names that users type. Nothing heavy is imported."""

from __future__ import annotations

from typing import Literal, TypeAlias, get_args

ShapeName: TypeAlias = Literal["closed", "open", "paced", "clients", "batches", "cold"]
SHAPES: tuple[ShapeName, ...] = get_args(ShapeName)

Arrivals: TypeAlias = Literal["fixed", "poisson"]
ARRIVALS: tuple[Arrivals, ...] = get_args(Arrivals)
