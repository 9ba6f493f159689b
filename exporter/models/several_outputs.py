"""A residual network that returns several outputs: logits, pooled features, maps after its stages, class maps."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from exporter.models.outputs import CAM, DEFAULT_OUTPUTS, FEATURES, LOGITS
from exporter.models.resnet import ResNet
from runtimes.errors import ArtifactError


class SeveralOutputs(ResNet):
    """A network in evaluation mode that returns the chosen outputs, all float32.

    Modules and weights are those of the network and keep their names. Features are the means of the last map, and
    logits are the linear layer on the features. Class maps are a 1x1 convolution of the last map with the weights of
    the linear layer, without its bias. Their mean plus the bias is the logit, because mean and convolution are linear
    (Zhou et al. 2015, arXiv 1512.04150).

    Args:
        model: The network, which is not changed. Its weights are shared.
        outputs: The names of the outputs, as from ``exporter.models.outputs.output_names``.
    """

    def __init__(self, model: ResNet, outputs: tuple[str, ...]) -> None:
        with torch.device("meta"):  # the modules are replaced below
            super().__init__(model.variant)
        for name, child in model.named_children():
            setattr(self, name, child)
        self.outputs = outputs
        self.dtype = next(model.parameters()).dtype
        if CAM in outputs:
            self.cam = _class_maps(model)
        if LOGITS not in outputs:
            self.fc = nn.Identity()  # type: ignore[assignment]
        self.eval()

    def forward(self, x: Tensor) -> tuple[Tensor, ...]:  # type: ignore[override]
        """Return the outputs in their order for images ``x``, float32 (n, in_channels, h, w)."""
        maps = self.maps(x if self.dtype == torch.float32 else x.to(self.dtype))
        values = {f"stage{number}": value for number, value in enumerate(maps, start=1)}  # each (n, c, h, w)
        if {FEATURES, LOGITS} & set(self.outputs):
            values[FEATURES] = torch.flatten(self.avgpool(maps[-1]), 1)  # (n, features)
        if LOGITS in self.outputs:
            values[LOGITS] = self.fc(values[FEATURES])  # (n, classes)
        if CAM in self.outputs:
            values[CAM] = self.cam(maps[-1])  # (n, classes, h, w)
        chosen = (values[name] for name in self.outputs)
        return tuple(value if value.dtype == torch.float32 else value.to(torch.float32) for value in chosen)


def _class_maps(model: ResNet) -> nn.Conv2d:
    """Return the linear layer as a 1x1 convolution without bias."""
    weight = model.fc.weight[:, :, None, None]  # (classes, features, 1, 1)
    result = nn.Conv2d(weight.shape[1], weight.shape[0], 1, bias=False, device="meta")
    result.weight = nn.Parameter(weight.detach(), requires_grad=False)
    return result


def with_outputs(model: nn.Module, outputs: tuple[str, ...]) -> nn.Module:
    """Return a module with the chosen outputs: the network itself if only the logits are chosen.

    Args:
        model: The network, which is not changed.
        outputs: The names of the outputs, as from ``exporter.models.outputs.output_names``.
    """
    if outputs == DEFAULT_OUTPUTS:
        return model
    assert isinstance(model, ResNet)  # other modules have no other outputs
    return SeveralOutputs(model, outputs)


def reference_outputs(
    module: nn.Module, outputs: tuple[str, ...], inputs: NDArray[np.float32]
) -> dict[str, NDArray[np.float32]]:
    """Return the outputs of PyTorch in eager fp32 on the CPU by name, each float32 (n, ...).

    Args:
        module: The network with these outputs, as from ``with_outputs``.
        outputs: The names of the outputs.
        inputs: The prepared images, float32 (n, c, h, w).

    Raises:
        ArtifactError: A number is not finite, because the weights overflow or belong to another network.
    """
    with torch.inference_mode():
        values = module(torch.from_numpy(inputs))
    rows = (values,) if isinstance(values, Tensor) else values
    result = {name: value.numpy() for name, value in zip(outputs, rows, strict=True)}
    for name, value in result.items():
        if not np.isfinite(value).all():
            raise ArtifactError(f"the {name} of PyTorch are not finite with these weights", code="reference-not-finite")
    return result
