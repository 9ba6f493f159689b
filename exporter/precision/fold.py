"""PyTorch networks with folded batch norms, in float32 or in a 16-bit float type."""

from __future__ import annotations

import copy
from collections import Counter
from collections.abc import Mapping

import torch
from torch import Tensor, nn
from torch.export import ExportedProgram
from torch.nn.utils.fusion import fuse_conv_bn_eval

from runtimes.errors import CheckFailedError


def traced_norms(program: ExportedProgram, model: nn.Module) -> dict[str, str]:
    """Return the convolution before each batch norm of a traced module, by names of modules.

    A batch norm counts if it alone reads the convolution, and if the program runs each of the two once.

    Args:
        program: The program.
        model: The module of the program.
    """
    signature = program.graph_signature
    tensors = {**signature.inputs_to_parameters, **signature.inputs_to_buffers}
    runs: Counter[str] = Counter()
    pairs = {}
    for node in program.graph.nodes:
        if node.op not in ("call_function", "placeholder") or node.target not in _LAYERS:
            continue
        name = tensors.get(getattr(node.args[1], "name", ""), "").rpartition(".")[0]
        runs[name] += 1
        before = node.args[0]
        if node.target in _NORMS and before.target in _CONVOLUTIONS and len(before.users) == 1:
            pairs[name] = tensors.get(getattr(before.args[1], "name", ""), "").rpartition(".")[0]
    modules = dict(model.named_modules())
    return {
        norm: convolution
        for norm, convolution in pairs.items()
        if runs[norm] == runs[convolution] == 1
        and isinstance(modules.get(norm), nn.BatchNorm2d)
        and isinstance(modules.get(convolution), nn.Conv2d)
    }


_CONVOLUTIONS = (torch.ops.aten.conv2d.default, torch.ops.aten.conv2d.padding)
_NORMS = (torch.ops.aten.batch_norm.default,)
_LAYERS = (*_CONVOLUTIONS, *_NORMS)


def fold_batch_norms(model: nn.Module, norms: Mapping[str, str]) -> nn.Module:
    """Return a copy of a network with its batch norms folded into the convolutions before them.

    The type of the weights stays the same. Batch norms of a pre-activation network that read a sum stay.

    Args:
        model: The network, which is not changed.
        norms: The convolution before each batch norm to fold, by names of modules.

    Raises:
        CheckFailedError: A batch norm does not follow a convolution.
    """
    result = copy.deepcopy(model)
    for name, before in norms.items():
        convolution, norm = result.get_submodule(before), result.get_submodule(name)
        if not isinstance(convolution, nn.Conv2d) or not isinstance(norm, nn.BatchNorm2d):
            found = f"{before} ({type(convolution).__name__})"
            raise CheckFailedError(
                f"the batch norm {name} does not follow a convolution, but {found}", code="batch-norm-misplaced"
            )
        result.set_submodule(before, fuse_conv_bn_eval(convolution, norm))
        result.set_submodule(name, nn.Identity())
    return result


def narrow(model: nn.Module, norms: Mapping[str, str], dtype: torch.dtype) -> nn.Module:
    """Return a copy of a network in evaluation mode with folded batch norms, which computes in ``dtype``.

    Its input and output are float32.

    Batch norms are folded before the conversion, because folding afterwards would round twice. Modules keep their
    names.

    Args:
        model: The network, which is not changed.
        norms: The convolution before each batch norm to fold, by names of modules.
        dtype: The type of weights and activations.

    Raises:
        CheckFailedError: A weight overflows ``dtype``, or a batch norm does not follow a convolution.
    """
    result = fold_batch_norms(model, norms).to(dtype).eval()
    _check_finite(result, model)
    result.register_forward_pre_hook(lambda _, inputs: (inputs[0].to(dtype),))
    result.register_forward_hook(_widen)
    return result


def _widen(_: nn.Module, __: object, logits: Tensor) -> Tensor:
    return logits.to(torch.float32)  # (n, classes)


def _check_finite(narrow: nn.Module, wide: nn.Module) -> None:
    if not all(value.isfinite().all() for value in wide.parameters()):
        return  # the parity check reports weights that were not finite before
    for name, value in narrow.named_parameters():
        if not value.isfinite().all():
            raise CheckFailedError(
                f"{name} contains a value that {str(value.dtype).removeprefix('torch.')} cannot represent",
                code="parameter-overflows",
                hint="use --precision bf16, which has the range of float32",
            )
