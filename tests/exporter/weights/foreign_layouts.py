"""Checkpoints as other programs write them, made from state dicts in torchvision's names by the inverse renaming.

The names were read off these programs; the tables of ``exporter.weights.layouts`` are not used.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

Rename = Callable[[str], str]
State = dict[str, Tensor]


def prefixed(prefix: str) -> Rename:
    """Every name behind a prefix."""
    return lambda name: prefix + name


def head(new: str, rest: Rename = lambda name: name) -> Rename:
    """The classifier under another name, the other tensors by ``rest``."""
    return lambda name: f"{new}.{name[3:]}" if name.startswith("fc.") else rest(name)


def hugging_face(name: str) -> str:
    """``ResNetForImageClassification`` of transformers."""

    def of_block(match: re.Match[str]) -> str:
        stage, block, kind, number = int(match[1]) - 1, match[2], match[3], match[4]
        inner = {"conv": "convolution", "bn": "normalization"}[kind]
        return f"resnet.encoder.stages.{stage}.layers.{block}.layer.{int(number) - 1}.{inner}."

    def of_shortcut(match: re.Match[str]) -> str:
        inner = ("convolution", "normalization")[int(match[3])]
        return f"resnet.encoder.stages.{int(match[1]) - 1}.layers.{match[2]}.shortcut.{inner}."

    name = re.sub(r"^layer(\d+)\.(\d+)\.(conv|bn)(\d)\.", of_block, name)
    name = re.sub(r"^layer(\d+)\.(\d+)\.downsample\.([01])\.", of_shortcut, name)
    name = re.sub(r"^conv1\.", "resnet.embedder.embedder.convolution.", name)
    name = re.sub(r"^bn1\.", "resnet.embedder.embedder.normalization.", name)
    return re.sub(r"^fc\.", "classifier.1.", name)


def detectron2(name: str) -> str:
    """A network of detectron2 with ``num_classes``: its batch norms lie in the convolutions."""

    def of_block(match: re.Match[str]) -> str:
        norm = "norm." if match[3] == "bn" else ""
        return f"res{int(match[1]) + 1}.{match[2]}.conv{match[4]}.{norm}"

    def of_shortcut(match: re.Match[str]) -> str:
        return f"res{int(match[1]) + 1}.{match[2]}.shortcut.{'norm.' if match[3] == '1' else ''}"

    name = re.sub(r"^layer(\d+)\.(\d+)\.(conv|bn)(\d)\.", of_block, name)
    name = re.sub(r"^layer(\d+)\.(\d+)\.downsample\.([01])\.", of_shortcut, name)
    name = re.sub(r"^conv1\.", "stem.conv1.", name)
    name = re.sub(r"^bn1\.", "stem.conv1.norm.", name)
    return re.sub(r"^fc\.", "linear.", name)


def sequence(body: str, classifier: str) -> Rename:
    """``nn.Sequential`` of a network's children, as fastai's body, with a classifier beside or inside it."""

    def rename(name: str) -> str:
        name = re.sub(r"^layer(\d+)\.", lambda match: f"{body}{int(match[1]) + 3}.", name)
        name = re.sub(r"^conv1\.", f"{body}0.", name)
        name = re.sub(r"^bn1\.", f"{body}1.", name)
        return re.sub(r"^fc\.", f"{classifier}.", name)

    return rename


def kuangliu(name: str) -> str:
    """pytorch-cifar: ``shortcut`` for ``downsample``, and ``linear``."""
    return name.replace(".downsample.", ".shortcut.").replace("fc.", "linear.")


def weiaicunzai(name: str) -> str:
    """pytorch-cifar100: the layers of a block in one sequence."""
    numbers = {"conv1": 0, "bn1": 1, "conv2": 3, "bn2": 4, "conv3": 6, "bn3": 7}

    def of_block(match: re.Match[str]) -> str:
        return f"conv{int(match[1]) + 1}_x.{match[2]}.residual_function.{numbers[match[3]]}."

    name = re.sub(r"^layer(\d+)\.(\d+)\.(conv\d|bn\d)\.", of_block, name)
    name = re.sub(
        r"^layer(\d+)\.(\d+)\.downsample\.", lambda match: f"conv{int(match[1]) + 1}_x.{match[2]}.shortcut.", name
    )
    name = re.sub(r"^conv1\.", "conv1.0.", name)
    return re.sub(r"^bn1\.", "conv1.1.", name)


def alone(state: State) -> object:
    """A bare state dict."""
    return state


def under(key: str, **others: Any) -> Callable[[State], object]:
    """A training checkpoint with the state dict under a key."""

    def content(state: State) -> object:
        momenta = {number: {"momentum_buffer": tensor} for number, tensor in enumerate(state.values())}
        optimizer = {"state": momenta, "param_groups": [{"lr": 0.1, "params": list(momenta)}]}
        return {"epoch": 90, "best_acc1": torch.tensor(76.1), key: state, "optimizer": optimizer, **others}

    return content


def averaged(key: str, average: str) -> Callable[[State], object]:
    """A training checkpoint with the weights and, under another key, an average of other values."""
    return lambda state: {
        key: state, average: {name: tensor + 1 for name, tensor in state.items()}, "epoch": 3
    }  # fmt: skip


def numbers(*shape: int) -> Tensor:
    """Some tensor of a shape."""
    return torch.full(shape, 0.5)


@dataclass(frozen=True)
class Written:
    """How a program writes a checkpoint.

    Attributes:
        layout: A word of the layout's title.
        rename: From torchvision's names to the program's.
        content: From the state dict to what the file holds.
        extras: Tensors that the program adds to the state dict.
        counters: Whether batch norms count their batches.
        key: The entry that is read.
        prefix: The prefix that is removed.
        codes: Of the notices.
    """

    layout: str
    rename: Rename = lambda name: name
    content: Callable[[State], object] = alone
    extras: Mapping[str, Tensor] = field(default_factory=dict)
    counters: bool = True
    key: str | None = None
    prefix: str | None = None
    codes: tuple[str, ...] = ("variant-recognised",)

    def state(self, state: State) -> State:
        """The state dict under the names of the program, with its extras."""
        kept = {name: tensor for name, tensor in state.items() if self.counters or "num_batches" not in name}
        return {self.rename(name): tensor for name, tensor in kept.items()} | dict(self.extras)


LEFT_OUT = ("tensors-left-out", "variant-recognised")

WRITTEN = {
    "torchvision": Written("torchvision"),
    "torchvision's training script": Written("torchvision", content=under("model", args="x"), key="model"),
    "ImageNet example": Written(
        "torchvision", prefixed("module."), under("state_dict", arch="resnet50"), key="state_dict", prefix="module."
    ),
    "compiled": Written("torchvision", prefixed("_orig_mod."), prefix="_orig_mod."),
    "compiled data parallel": Written(
        "torchvision", prefixed("module._orig_mod."), under("model_state_dict"), key="model_state_dict",
        prefix="module._orig_mod.",
    ),
    "entry inside an entry": Written("torchvision", content=lambda state: {"model": {"state_dict": state}},
                                     key="model.state_dict"),
    "Lightning": Written(
        "torchvision", prefixed("model."), under("state_dict", callbacks={}, **{"pytorch-lightning_version": "2.5"}),
        {"criterion.weight": numbers(10), "train_acc.confmat": numbers(10, 10), "model.normalize.mean": numbers(3)},
        key="state_dict", prefix="model.", codes=LEFT_OUT,
    ),
    "Lightning, deeper": Written(
        "torchvision", prefixed("net.backbone.encoder."), under("state_dict"), {"loss_fn.pos_weight": numbers(10)},
        key="state_dict", prefix="net.backbone.encoder.", codes=LEFT_OUT,
    ),
    "Lightning, head beside the backbone": Written(
        "torchvision", head("classifier", prefixed("backbone.")), under("state_dict"), key="state_dict",
        prefix="backbone.",
    ),
    "averaged model": Written(
        "torchvision", prefixed("module."), extras={"n_averaged": torch.tensor(7)}, prefix="module.", codes=LEFT_OUT
    ),
    "dropout before the classifier": Written("torchvision", head("fc.1")),
    "first in a sequence": Written("torchvision", head("fc.0")),
    "nested head": Written("torchvision", head("head.fc")),
    "last_linear": Written("torchvision", head("last_linear")),
    "kuangliu": Written("CIFAR", lambda name: f"module.{kuangliu(name)}", under("net", acc=95.1), key="net",
                        prefix="module."),
    "weiaicunzai": Written("weiaicunzai", weiaicunzai),
    "Hugging Face": Written("Hugging Face", hugging_face, prefix="resnet."),
    "OpenMMLab": Written(
        "OpenMMLab", head("head.fc", prefixed("backbone.")), under("state_dict", meta={"epoch": 100}),
        {"data_preprocessor.mean": numbers(3, 1, 1), "data_preprocessor.std": numbers(3, 1, 1)},
        key="state_dict", prefix="backbone.", codes=LEFT_OUT,
    ),
    "fastai": Written("sequence", sequence("0.", "1.2"), under("model", opt={}), key="model", prefix="0."),
    "sequence of children": Written("sequence", sequence("", "9")),
    "feature extractor": Written(
        "sequence", sequence("feature_extractor.", "classifier"), under("state_dict"), key="state_dict",
        prefix="feature_extractor.",
    ),
    "detectron2": Written(
        "detectron2", detectron2, under("model"), counters=False, key="model",
        codes=("layout-remark", "variant-recognised", "stride-from-layout"),
    ),
}  # fmt: skip
"""What loads."""


@dataclass(frozen=True)
class Refused:
    """A checkpoint that is refused: the code of the error, and what its line names."""

    code: str
    names: tuple[str, ...]
    written: Written


def without_head(rename: Rename = lambda name: name) -> Rename:
    """The classifier under a name that is dropped by ``features``."""
    return head("DROPPED", rename)


def features(content: Callable[[State], object] = alone) -> Callable[[State], object]:
    """The content without the classifier."""
    return lambda state: content({name: tensor for name, tensor in state.items() if "DROPPED" not in name})


REFUSED = {
    "MoCo": Refused("classifier-missing", ("MoCo", "projection head", "momentum encoder"), Written(
        "MoCo", prefixed("module.encoder_q."), under("state_dict"),
        {"module.encoder_k.conv1.weight": numbers(4, 3, 7, 7), "module.encoder_k.layer1.0.conv1.weight": numbers(1),
         "module.queue": numbers(128, 64), "module.queue_ptr": numbers(1)},
    )),
    "SwAV": Refused("classifier-missing", ("SwAV", "projection head", "prototypes"), Written(
        "SwAV", without_head(prefixed("module.")), features(),
        {"module.projection_head.0.weight": numbers(8, 8), "module.prototypes.weight": numbers(30, 8)},
    )),
    "DINO": Refused("weights-entries-ambiguous", ("--key student", "--key teacher"), Written(
        "DINO", without_head(prefixed("backbone.")),
        features(lambda state: {"student": {f"module.{name}": state[name] for name in state}, "teacher": state}),
        {"head.mlp.0.weight": numbers(8, 8), "head.last_layer.weight_v": numbers(8, 8)},
    )),
    "DINO's teacher": Refused("classifier-missing", ("DINO", "projection head"), Written(
        "DINO", without_head(prefixed("backbone.")), features(under("teacher")),
        {"head.mlp.0.weight": numbers(8, 8), "head.last_layer.weight_v": numbers(8, 8)},
    )),
    "SimCLR": Refused("classifier-missing", ("SimCLR", "projection head"), Written(
        "SimCLR", without_head(prefixed("encoder.")), features(), {"projector.0.weight": numbers(8, 8)},
    )),
    "SimCLR with its head in fc": Refused("classifier-not-linear", ("backbone.fc.0", "backbone.fc.2"), Written(
        "SimCLR", head("backbone.fc.2", prefixed("backbone.")), under("state_dict"),
        {"backbone.fc.0.weight": numbers(32, 32), "backbone.fc.0.bias": numbers(32)},
    )),
    "Barlow Twins": Refused("classifier-missing", ("Barlow Twins", "projection head"), Written(
        "Barlow", without_head(prefixed("module.backbone.")), features(under("model")),
        {"module.projector.0.weight": numbers(8, 8), "module.bn.running_mean": numbers(8)},
    )),
    "VICReg": Refused("classifier-missing", ("features",), Written("torchvision", without_head(), features())),
    "fastai's own head": Refused("classifier-not-linear", ("1.4", "1.8"), Written(
        "sequence", sequence("0.", "1.8"), under("model"),
        {"1.2.weight": numbers(64), "1.4.weight": numbers(32, 64), "1.6.weight": numbers(32)},
    )),
    "two linear layers": Refused("classifier-not-linear", ("fc.0", "fc.2"), Written(
        "torchvision", head("fc.2"), extras={"fc.0.weight": numbers(32, 32)},
    )),
    "a second classifier behind the first": Refused("classifier-not-linear", ("model.fc", "classifier"), Written(
        "torchvision", prefixed("model."), extras={"classifier.weight": numbers(2, 10), "classifier.bias": numbers(2)},
    )),
    "batch norm in the head": Refused("classifier-not-linear", ("fc.0", "fc.1"), Written(
        "torchvision", head("fc.1"), extras={"fc.0.weight": numbers(32), "fc.0.running_mean": numbers(32)},
    )),
    "a head of an unknown name": Refused("classifier-unnamed", ("my_layer",), Written(
        "torchvision", head("my_layer", prefixed("body.")),
    )),
    "another pooling": Refused("classifier-width", ("64", "32", "fastai"), Written(
        "torchvision", without_head(), features(), {"fc.weight": numbers(10, 64), "fc.bias": numbers(10)},
    )),
    "a neck inside": Refused("tensors-unexpected", ("neck.conv.weight",), Written(
        "torchvision", prefixed("model."), extras={"model.neck.conv.weight": numbers(3, 3, 1, 1)},
    )),
    "a neck outside": Refused("tensors-outside-prefix", ("neck.conv.weight", "--strip-prefix model."), Written(
        "torchvision", prefixed("model."), extras={"neck.conv.weight": numbers(3, 3, 1, 1)},
    )),
    "two networks": Refused("networks-ambiguous", ("--strip-prefix left.", "--strip-prefix right."), Written(
        "torchvision", prefixed("left."),
        extras={"right.conv1.weight": numbers(4, 3, 7, 7), "right.layer1.0.conv1.weight": numbers(1)},
    )),
    "timm with average": Refused(
        "weights-copies-ambiguous", ("--key state_dict or --key state_dict_ema",),
        Written("", content=averaged("state_dict", "state_dict_ema")),
    ),
    "average at the side": Refused(
        "weights-copies-ambiguous", ("--key model or --key ema",), Written("", content=averaged("model", "ema"))
    ),
    "average of another name": Refused(
        "weights-copies-ambiguous", ("--key model or --key best_weights",),
        Written("", content=averaged("model", "best_weights")),
    ),
    "average inside an entry": Refused(
        "weights-copies-ambiguous", ("--key model or --key ema.module",),
        Written("", content=lambda state: {"model": state, "ema": {"module": dict(state), "decay": 0.99}}),
    ),
    "average behind a prefix": Refused(
        "weights-copies-ambiguous", ("--strip-prefix model. or --strip-prefix model_ema.module.",),
        Written("", prefixed("model."), under("state_dict"),
                {"model_ema.module.conv1.weight": numbers(4, 3, 7, 7),
                 "model_ema.module.layer1.0.conv1.weight": numbers(1),
                 "model_ema.module.fc.weight": numbers(10, 3)}),
    ),
    "an average alone": Refused("weights-averaged-only", ("--key ema",), Written("", content=under("ema"))),
    "CLIP": Refused("network-unsupported", ("CLIP", "attention pooling"), Written(
        "", prefixed("visual."), extras={"visual.attnpool.positional_embedding": numbers(50, 32)},
    )),
    "timm's CLIP": Refused(
        "network-unsupported",
        ("CLIP", "attention pooling"),
        Written("", without_head(), features(), {"head.pos_embed": numbers(50, 32), "head.q.weight": numbers(8, 32)}),
    ),
    "vision transformer": Refused("network-unsupported", ("vision transformer",), Written(
        "", extras={"cls_token": numbers(1, 1, 8), "blocks.0.attn.qkv.weight": numbers(24, 8)},
    )),
    "detector of torchvision": Refused("network-unsupported", ("detector",), Written(
        "", prefixed("backbone.body."), extras={"backbone.fpn.inner_blocks.0.0.weight": numbers(8, 8, 1, 1)},
    )),
    "detector of detectron2": Refused("network-unsupported", ("detector",), Written(
        "", lambda name: f"backbone.bottom_up.{detectron2(name)}",
    )),
    "segmentation": Refused("network-unsupported", ("segmentation",), Written(
        "", prefixed("backbone."), extras={"classifier.0.convs.0.0.weight": numbers(8, 8, 1, 1)},
    )),
    "quantised": Refused("network-unsupported", ("quantised",), Written(
        "", extras={"conv1.scale": numbers(1), "conv1.zero_point": numbers(1)},
    )),
}  # fmt: skip
"""What is refused, each in a line that names what there is or what to do."""
