"""How strongly each layer responds: the standard deviation behind its batch-norm (He et al. 2015, Figure 7).

In a residual network this is taken before the addition as well, so it is the strength of the residual function. Hooks
are put on from outside and taken off again; the network knows nothing of it.
"""

from __future__ import annotations

import math
import sys
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import TypeAlias

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from benchmarks.format import times
from benchmarks.paper.training.recipe import count_layers
from benchmarks.records.findings import Check, Findings, FindingsTable, Line, Outcome, Panel, Provenance, floats
from exporter.models.resnet import ResNet
from exporter.models.variants import Variant, layers
from exporter.proportions import Interval
from runtimes.errors import ArtifactError, UsageError

Floats: TypeAlias = NDArray[np.float64]

RESAMPLES = 10_000
"""Of the bootstrap."""

SAID_PLAIN = "residual nets respond less strongly than their plain counterparts"
SAID_DEEPER = "the more layers a residual net has, the less each of them changes the signal"


@dataclass(frozen=True)
class Responses:
    """One network's responses: ``std`` holds one for each of ``layers``, in the order of the forward pass.

    Attributes:
        name: the network's, for people.
        images: how many they were taken over.
        layers: the convolutions' names, as ``exporter.models.variants.layers`` has them.
        std: over all images, channels and pixels of the batch-norm's output.
    """

    name: str
    variant: Variant
    images: int
    layers: tuple[str, ...]
    std: tuple[float, ...]


# Measuring ------------------------------------------------------------------------------------------------------------


class Moments:
    """Spread of numbers that come in parts: each part's float64 mean and variance are merged (Chan et al. 1979).

    Exact but for float64's rounding, however many parts there are and however far their mean lies from zero.
    """

    def __init__(self) -> None:
        self.count = 0
        self.mean = 0.0
        self.squares = 0.0

    def add(self, values: Tensor) -> None:
        """Takes the numbers of a tensor of any shape and any float type."""
        variance, mean = map(float, torch.var_mean(values.double(), correction=0))
        count = self.count + values.numel()
        step = mean - self.mean
        self.squares += variance * values.numel() + step * step * self.count * values.numel() / count
        self.mean += step * values.numel() / count
        self.count = count

    @property
    def std(self) -> float:
        """Of all numbers so far, of which there is at least one."""
        return math.sqrt(self.squares / self.count)


def spatial_layers(variant: Variant) -> tuple[str, ...]:
    """Names of the convolutions that see a neighbourhood, in order: the stem and every 3x3, no 1x1."""
    return tuple(layer.name for layer in layers(variant) if layer.kernel > 1)


def norm_behind(model: ResNet, layer: str) -> nn.BatchNorm2d:
    """The batch-norm that takes the convolution's output.

    Raises:
        UsageError: there is none.
    """
    name = layer.replace("conv", "bn")
    norm = dict(model.named_modules()).get(name)
    if not isinstance(norm, nn.BatchNorm2d):
        raise UsageError(f"no batch-norm {name!r} behind the convolution {layer!r}", hint="take the unfolded network")
    return norm


def layer_responses(name: str, model: ResNet, batches: Iterable[Tensor]) -> Responses:
    """The network's responses to all images of the ``batches``, each (n, c, h, w), in evaluation mode.

    The network and its mode are afterwards what they were, also after an exception.

    Raises:
        UsageError: a layer has no batch-norm behind it, or there are no images.
        ArtifactError: a response is not finite.
    """
    moments = {layer: Moments() for layer in spatial_layers(model.variant)}
    norms = [norm_behind(model, layer) for layer in moments]
    was_training, device = model.training, model.fc.weight.device
    images = 0
    hooks = [
        norm.register_forward_hook(_collect_into(kept)) for norm, kept in zip(norms, moments.values(), strict=True)
    ]
    try:
        model.eval()
        with torch.inference_mode():
            for batch in batches:
                model(batch.to(device))
                images += len(batch)
    finally:
        model.train(was_training)
        for hook in hooks:
            hook.remove()
    if not images:
        raise UsageError("responses need at least one image")
    std = tuple(kept.std for kept in moments.values())
    for layer, response in zip(moments, std, strict=True):
        if not math.isfinite(response):
            raise ArtifactError(f"{name}: the response of {layer} is not finite with these weights")
    return Responses(name, model.variant, images, tuple(moments), std)


def _collect_into(moments: Moments) -> Callable[[nn.Module, tuple[Tensor, ...], Tensor], None]:
    def add_output(_module: nn.Module, _inputs: tuple[Tensor, ...], output: Tensor) -> None:
        moments.add(output)

    return add_output


# Comparing ------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Ratio:
    """One network's responses over another's: the estimate, and its 95 % bootstrap interval over layers."""

    value: float
    interval: Interval

    @property
    def smaller(self) -> Outcome:
        """Whether the first network's are smaller: undecided where the interval holds 1."""
        if self.interval[1] < 1:
            return "confirmed"
        return "contradicted" if self.interval[0] > 1 else "undecided"


def median_ratio(responses: Sequence[float], references: Sequence[float], seed: int = 0) -> Ratio:
    """Median of the ratios layer by layer, of networks with the same layers; pairs of layers are resampled."""
    ratios = np.asarray(responses) / _positive(references)
    return _bootstrap(lambda drawn: np.median(ratios[drawn], axis=1), len(ratios), seed)


def ratio_of_medians(responses: Sequence[float], references: Sequence[float], seed: int = 0) -> Ratio:
    """Median over median, of networks with any number of layers; each network's layers are resampled by themselves."""
    one, other = np.asarray(responses), _positive(references)
    random = np.random.default_rng(seed + 1)

    def ratios(drawn: NDArray[np.int64]) -> Floats:
        others = random.integers(len(other), size=(len(drawn), len(other)))
        found: Floats = np.median(one[drawn], axis=1) / np.median(other[others], axis=1)
        return found

    return Ratio(float(np.median(one) / np.median(other)), _bootstrap(ratios, len(one), seed).interval)


def _positive(values: Sequence[float]) -> Floats:
    return np.array([max(value, sys.float_info.min) for value in values])


def _bootstrap(estimate: Callable[[NDArray[np.int64]], Floats], n: int, seed: int) -> Ratio:
    """The estimate of all n, and the middle 95 % of those of resamples; it takes indices (resamples, n)."""
    drawn = np.random.default_rng(seed).integers(n, size=(RESAMPLES, n))
    low, high = np.quantile(estimate(drawn), (0.025, 0.975))
    return Ratio(float(estimate(np.arange(n)[None])[0]), (float(low), float(high)))


def combine_outcomes(outcomes: Iterable[Outcome]) -> Outcome:
    """Of several comparisons for one claim: contradicted if one is, confirmed if all are."""
    seen = set(outcomes)
    if "contradicted" in seen:
        return "contradicted"
    return "confirmed" if seen == {"confirmed"} else "undecided"


# Findings -------------------------------------------------------------------------------------------------------------


def responses_findings(measured: Sequence[Responses], provenance: Provenance) -> Findings:
    """Figure 7 from what was measured, in any order and of whatever networks there are.

    Networks of one variant, as of several seeds, are one line with a band, and are averaged layer by layer for the
    verdicts.
    """
    ordered = sorted(measured, key=lambda one: (count_layers(one.variant), one.variant.residual, one.name))
    groups = [[one for one in ordered if one.variant == row] for row in dict.fromkeys(one.variant for one in ordered)]
    pooled = [_pool_seeds(group) for group in groups]
    notes = [
        "The intervals take a network's layers for independent draws, which they are not quite, and speak of these "
        "networks alone: another training may differ by more."
    ]
    checks = []
    counterparts = [(one, other) for one in pooled for other in pooled if _are_counterparts(one.variant, other.variant)]
    if counterparts:
        checks.append(_plain_check(counterparts))
    else:
        notes.append("No plain network beside a residual one of the same layers was given: they are not compared.")
    steps = _steps([one for one in pooled if one.variant.residual])
    if steps:
        checks.append(_deeper_check(steps))
    else:
        notes.append("No two residual networks that differ in depth alone were given: depths are not compared.")
    return Findings(
        experiment="responses",
        title="Layer responses: what each layer adds to the signal",
        checks=tuple(checks),
        panels=_panels(groups),
        tables=(_table(ordered),),
        notes=tuple(notes),
        provenance=provenance,
    )


def _pool_seeds(group: Sequence[Responses]) -> Responses:
    """The mean of one variant's networks, under the variant's name where there are several."""
    first = group[0]
    std = floats(np.mean([one.std for one in group], axis=0).tolist())
    name = first.name if len(group) == 1 else first.variant.name
    return Responses(name, first.variant, first.images, first.layers, std)


def _kind(variant: Variant) -> tuple[object, ...]:
    """What networks that differ in depth alone have in common."""
    return variant.block, variant.widths, variant.stem


def _are_counterparts(residual: Variant, plain: Variant) -> bool:
    same = _kind(residual) == _kind(plain) and residual.depths == plain.depths
    return same and residual.residual and not plain.residual


def _steps(residual: Sequence[Responses]) -> list[tuple[Responses, Responses]]:
    """Deeper and next shallower networks of one kind; the responses come in order of depth."""
    kinds = dict.fromkeys(_kind(one.variant) for one in residual)
    return [
        (deeper, shallower)
        for kind in kinds
        for shallower, deeper in pairwise(one for one in residual if _kind(one.variant) == kind)
        if count_layers(deeper.variant) > count_layers(shallower.variant)
    ]


def _plain_check(counterparts: Sequence[tuple[Responses, Responses]]) -> Check:
    ratios = [median_ratio(residual.std, plain.std) for residual, plain in counterparts]
    parts = [
        f"{times(ratio.value, ratio.interval)} of {residual.name} over {plain.name} ({len(plain.std)} layers)"
        for ratio, (residual, plain) in zip(ratios, counterparts, strict=True)
    ]
    found = f"median over the layers of a layer's response over its plain twin's: {', '.join(parts)}"
    return Check(SAID_PLAIN, "section 4.2, Figure 7", found, combine_outcomes(ratio.smaller for ratio in ratios))


def _deeper_check(steps: Sequence[tuple[Responses, Responses]]) -> Check:
    ratios = [ratio_of_medians(deeper.std, shallower.std) for deeper, shallower in steps]
    parts = [
        f"{times(ratio.value, ratio.interval)} of {deeper.name} over {shallower.name} "
        f"({len(deeper.std)} and {len(shallower.std)} layers)"
        for ratio, (deeper, shallower) in zip(ratios, steps, strict=True)
    ]
    found = f"the deeper network's median response over the shallower's: {', '.join(parts)}"
    return Check(SAID_DEEPER, "section 4.2, Figure 7", found, combine_outcomes(ratio.smaller for ratio in ratios))


def _panels(groups: Sequence[Sequence[Responses]]) -> tuple[Panel, ...]:
    in_order = [np.array([one.std for one in group]) for group in groups]
    descending = [-np.sort(-std, axis=1) for std in in_order]
    panels = (
        ("Layers in order", "layer", in_order, "Figure 7, top"),
        ("Layers sorted by magnitude", "layer, strongest first", descending, "Figure 7, bottom"),
    )
    return tuple(
        Panel(
            title,
            x_label,
            "standard deviation",
            tuple(_plot_line(group[0].variant, one) for group, one in zip(groups, values, strict=True)),
            source=source,
        )
        for title, x_label, values, source in panels
    )


def _plot_line(variant: Variant, std: Floats) -> Line:
    """The mean of the networks' responses (networks, layers), in the range that they span."""
    family = f"{count_layers(variant)} layers"
    several = len(std) > 1
    return Line(
        f"{family}, {variant.family}",
        family,
        floats(range(1, std.shape[1] + 1)),
        floats(std.mean(axis=0).tolist()),
        floats(std.min(axis=0).tolist()) if several else (),
        floats(std.max(axis=0).tolist()) if several else (),
        dashed=not variant.residual,
    )


def _table(measured: Sequence[Responses]) -> FindingsTable:
    return FindingsTable(
        "Standard deviation of the layers' responses, after batch-norm and before ReLU and addition",
        ("network", "layers", "images", "mean", "median", "smallest", "largest"),
        tuple(
            (
                one.name,
                str(len(one.std)),
                f"{one.images:,}",
                f"{np.mean(one.std):.3f}",
                f"{np.median(one.std):.3f}",
                f"{min(one.std):.3f}",
                f"{max(one.std):.3f}",
            )
            for one in measured
        ),
    )
