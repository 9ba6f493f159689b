"""The layouts of foreign checkpoints as data: how tensors are named, and which of them belong to no network.

All patterns match whole names. The first row whose stem, block and marks are in a file is its layout.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from exporter.models.variants import Stride

DEEP_OR_SINGLE = r"conv1(\.0)?\.weight"
"""The weight of the first convolution in torchvision's and timm's names."""


@dataclass(frozen=True)
class Renaming:
    """A rule for the beginning of a name.

    Attributes:
        pattern: The beginning, as a regular expression.
        template: The new beginning, with ``{}`` for each group of the pattern.
        offsets: The number that is added to each group, if the groups are numbers with another origin.
    """

    pattern: str
    template: str
    offsets: tuple[int, ...] = ()

    def apply(self, name: str) -> str | None:
        """Return the new name, or ``None`` if the rule does not concern the name."""
        match = re.match(self.pattern, name)
        if match is None:
            return None
        groups = match.groups()
        if self.offsets:
            groups = tuple(str(int(group) + offset) for group, offset in zip(groups, self.offsets, strict=True))
        return self.template.format(*groups) + name[match.end() :]


@dataclass(frozen=True)
class LeftOut:
    """Tensors that a file holds besides the network.

    Attributes:
        pattern: The names in the file.
        reason: A description of the tensors.
    """

    pattern: str
    reason: str


@dataclass(frozen=True)
class Layout:
    """A layout of checkpoints.

    Attributes:
        title: The name of the layout.
        stem: The name of the first convolution's weight, after the prefix.
        block: The name of the first convolution's weight in the first block, after the prefix.
        prefix: The beginning of all names of the network.
        marks: Names that a file of this layout has besides these.
        renamings: The rules from names after the prefix to the names of ``exporter.models.resnet``. The first that
            matches counts. Other names stay.
        heads: The names of the classifier, after the prefix of the network or of its parent.
        left_out: The tensors that belong to no network.
        stride: The position of the stride in bottlenecks that the program of this layout trains by default.
        remark: A fact that no tensor shows and that changes the answers.
    """

    title: str
    stem: str = DEEP_OR_SINGLE
    block: str = r"layer1\.0\.conv1\.weight"
    prefix: str = r"(.+\.)?"
    marks: tuple[str, ...] = ()
    renamings: tuple[Renaming, ...] = ()
    heads: str = (
        r"(fc|linear|classifier|classification_head|cls_head|head|last_linear|logits|output)"
        r"(\.(\d+|fc|linear|classifier|head))*"
    )
    left_out: tuple[LeftOut, ...] = ()
    stride: Stride | None = None
    remark: str | None = None


_NUMBERED = r"\d+|1\.\d+"
"""The names of the classifier in a sequence: its position, or its position in the second part (fastai)."""

_SHORTCUT = Renaming(r"(layer\d+\.\d+)\.shortcut\.", "{}.downsample.")

LAYOUTS: tuple[Layout, ...] = (
    Layout(
        "MoCo",
        prefix=r"(.+\.)?(encoder_q|base_encoder)\.",
        left_out=(
            LeftOut(r"(.+\.)?(encoder_k|momentum_encoder)\..+", "momentum encoder"),
            LeftOut(r"(.+\.)?queue(_ptr)?", "queue of negative examples"),
            LeftOut(r"(.+\.)?(encoder_q|base_encoder)\.fc\..+", "projection head"),
            LeftOut(r"(.+\.)?predictor\..+", "prediction head"),
        ),
    ),
    Layout(
        "SwAV",
        marks=(r"(.+\.)?(projection_head|prototypes)\..+",),
        left_out=(
            LeftOut(r"(.+\.)?projection_head\..+", "projection head"),
            LeftOut(r"(.+\.)?prototypes\..+", "prototypes"),
        ),
    ),
    Layout(
        "DINO",
        prefix=r"(.+\.)?backbone\.",
        marks=(r"(.+\.)?head\.last_layer\..+",),
        left_out=(LeftOut(r"(.+\.)?head\.(mlp|last_layer)\..+", "projection head"),),
    ),
    Layout(
        "SimCLR, Barlow Twins or VICReg",
        prefix=r"(.+\.)?(backbone|encoder|convnet|net)\.",
        marks=(r"(.+\.)?(projector|projection_head|projection)\..+",),
        left_out=(
            LeftOut(r"(.+\.)?(projector|projection_head|projection)\..+", "projection head"),
            LeftOut(r"(module\.|model\.)?bn\.(running_mean|running_var|num_batches_tracked)", "statistics of the loss"),
        ),
    ),
    Layout(
        "OpenMMLab",
        prefix=r"(.+\.)?backbone\.",
        marks=(r"(.+\.)?head\.fc\.weight",),
        left_out=(LeftOut(r"(.+\.)?data_preprocessor\..+", "normalisation of images"),),
    ),
    Layout(
        "Hugging Face",
        stem=r"embedder\.embedder\.convolution\.weight",
        block=r"encoder\.stages\.0\.layers\.0\.layer\.0\.convolution\.weight",
        renamings=(
            Renaming(r"embedder\.embedder\.convolution\.", "conv1."),
            Renaming(r"embedder\.embedder\.normalization\.", "bn1."),
            Renaming(
                r"encoder\.stages\.(\d+)\.layers\.(\d+)\.layer\.(\d+)\.convolution\.", "layer{}.{}.conv{}.", (1, 0, 1)
            ),
            Renaming(
                r"encoder\.stages\.(\d+)\.layers\.(\d+)\.layer\.(\d+)\.normalization\.", "layer{}.{}.bn{}.", (1, 0, 1)
            ),
            Renaming(
                r"encoder\.stages\.(\d+)\.layers\.(\d+)\.shortcut\.convolution\.", "layer{}.{}.downsample.0.", (1, 0)
            ),
            Renaming(
                r"encoder\.stages\.(\d+)\.layers\.(\d+)\.shortcut\.normalization\.", "layer{}.{}.downsample.1.", (1, 0)
            ),
        ),
    ),
    Layout(
        "detectron2",
        stem=r"stem\.conv1\.weight",
        block=r"res2\.0\.conv1\.weight",
        renamings=(
            Renaming(r"stem\.conv1\.norm\.", "bn1."),
            Renaming(r"stem\.conv1\.", "conv1."),
            Renaming(r"res(\d+)\.(\d+)\.conv(\d+)\.norm\.", "layer{}.{}.bn{}.", (-1, 0, 0)),
            Renaming(r"res(\d+)\.(\d+)\.conv(\d+)\.", "layer{}.{}.conv{}.", (-1, 0, 0)),
            Renaming(r"res(\d+)\.(\d+)\.shortcut\.norm\.", "layer{}.{}.downsample.1.", (-1, 0)),
            Renaming(r"res(\d+)\.(\d+)\.shortcut\.", "layer{}.{}.downsample.0.", (-1, 0)),
        ),
        stride="v1",
        remark="detectron2 trains by default on pixels from 0 to 255 in the order blue, green, red "
        "(--channels-order BGR --scale 1)",
    ),
    Layout(
        "a sequence of layers, as fastai's",
        stem=r"0(\.0)?\.weight",
        block=r"4\.0\.conv1\.weight",
        renamings=(
            Renaming(r"0\.", "conv1."),
            Renaming(r"1\.", "bn1."),
            Renaming(r"([4-7])\.", "layer{}.", (-3,)),
        ),
        heads=rf"{_NUMBERED}|{Layout.heads}",
    ),
    Layout(
        "timm's pre-activation networks",
        stem=r"stem\.conv\.weight",
        block=r"stages\.0\.blocks\.0\.conv1\.weight",
        renamings=(
            Renaming(r"stem\.conv\.", "conv1."),
            Renaming(r"stages\.(\d+)\.blocks\.(\d+)\.norm(\d+)\.", "layer{}.{}.bn{}.", (1, 0, 0)),
            Renaming(r"stages\.(\d+)\.blocks\.(\d+)\.downsample\.conv\.", "layer{}.{}.downsample.0.", (1, 0)),
            Renaming(r"stages\.(\d+)\.blocks\.(\d+)\.", "layer{}.{}.", (1, 0)),
        ),
    ),
    Layout(
        "WideResNet-pytorch",
        block=r"block1\.layer\.0\.conv1\.weight",
        renamings=(
            Renaming(r"block(\d+)\.layer\.(\d+)\.convShortcut\.", "layer{}.{}.downsample.0."),
            Renaming(r"block(\d+)\.layer\.(\d+)\.", "layer{}.{}."),
            Renaming(r"bn1\.", "norm."),
        ),
    ),
    Layout(
        "CIFAR networks, as weiaicunzai's",
        stem=r"conv1\.0\.weight",
        block=r"conv2_x\.0\.residual_function\.0\.weight",
        renamings=(
            Renaming(r"conv1\.0\.", "conv1."),
            Renaming(r"conv1\.1\.", "bn1."),
            *(
                Renaming(rf"conv(\d+)_x\.(\d+)\.{old}\.", f"layer{{}}.{{}}.{new}.", (-1, 0))
                for old, new in (
                    (r"residual_function\.0", "conv1"),
                    (r"residual_function\.1", "bn1"),
                    (r"residual_function\.3", "conv2"),
                    (r"residual_function\.4", "bn2"),
                    (r"residual_function\.6", "conv3"),
                    (r"residual_function\.7", "bn3"),
                    (r"shortcut\.0", "downsample.0"),
                    (r"shortcut\.1", "downsample.1"),
                )
            ),
        ),
    ),
    Layout(
        "CIFAR networks, as kuangliu's or akamaster's",
        marks=(r"(.+\.)?linear\.weight",),
        renamings=(_SHORTCUT,),
    ),
    Layout("torchvision or timm", renamings=(_SHORTCUT,)),
)
"""All layouts, the special ones first."""

LEFT_OUT: tuple[LeftOut, ...] = (
    LeftOut(r"(.+\.)?(\w+_)?(criterion|criteria|loss(es)?|loss_fn|loss_func|loss_function)\..+", "loss"),
    LeftOut(
        r"(.+\.)?(\w+_)?(metrics?|acc|accuracy|f1|f1_score|auroc|auc|precision|recall|confmat|confusion_matrix)\..+",
        "metrics",
    ),
    LeftOut(r"(.+\.)?(normali[sz]e|normali[sz]er|normali[sz]ation)\.(mean|std)", "normalisation of images"),
    LeftOut(r"(.+\.)?(pixel_)?(mean|std)", "normalisation of images"),
    LeftOut(r"(.+\.)?n_averaged", "counter of averaged models"),
    LeftOut(r"(.+\.)?total_(ops|params)", "counters of operations"),
)
"""The tensors that files of any layout may hold besides the network."""

AVERAGE = r"(\w+_)?(ema|swa|averaged?|avg|shadow|polyak)(_\w+)?"
"""The name of a module, or of an entry of a checkpoint, with averaged weights."""

AVERAGED = rf"(.+\.)?({AVERAGE}|(\w+_)?momentum(_\w+)?)\.(.+\.)?"
"""The prefix of a copy of the network with averaged weights."""

WRAPPERS = ("module.", "_orig_mod.", "model.")
"""The prefixes that wrappers give all names: DataParallel, torch.compile, training frameworks."""


@dataclass(frozen=True)
class Unsupported:
    """A kind of network that cannot be exported.

    Attributes:
        title: A description of the network.
        pattern: Names that only this kind of network has.
    """

    title: str
    pattern: str


UNSUPPORTED: tuple[Unsupported, ...] = (
    Unsupported(
        "a ResNet that ends in attention pooling, as those of CLIP",
        r"(.+\.)?attnpool\..+|(.+\.)?head\.(pos_embed|(q|k|v|kv|qkv)\..+)",
    ),
    Unsupported(
        "a vision transformer",
        r"(.+\.)?(cls_token|class_token|class_embedding|pos_embed|pos_embedding)"
        r"|(.+\.)?(blocks\.0\.attn|encoder\.layer\.0\.attention|encoder_layer_0\.self_attention)\..+",
    ),
    Unsupported("a detector", r"(.+\.)?(rpn|rpn_head|roi_heads?|bbox_head|proposal_generator|bottom_up|fpn)\..+"),
    Unsupported(
        "a segmentation network",
        r"(.+\.)?(decode_head|aux_classifier|auxiliary_head|sem_seg_head)\..+|(.+\.)?classifier\.\d+\.convs\..+",
    ),
    Unsupported(
        "a quantised network",
        r".+\.(_packed_params\..+|zero_point)|(.+\.)?(\w+_fake_quant|activation_post_process\w*)\..+",
    ),
)
"""The networks that are recognised in order to be refused by name."""
