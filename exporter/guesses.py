"""The guesses about a user's files, as one table: what is looked at, what is taken, and what overrules it.

Each guess is a notice on standard error. An export also records it in the manifest of the artifact.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from runtimes.errors import Reason


@dataclass(frozen=True)
class Guess:
    """A guess about a user's data, weights or network.

    Attributes:
        subject: The thing in question.
        evidence: What the program looks at.
        taken: What it takes.
        notices: The codes of the lines that it prints. They stand in ``docs/codes.md``.
        record: The field of the manifest, or another place, that keeps the guess.
        overrules: The options, or the forms of a dataset, that replace the guess.
        refusals: The codes of the errors where several readings are likely.
    """

    subject: str
    evidence: str
    taken: str
    notices: tuple[str, ...]
    record: str
    overrules: tuple[str, ...]
    refusals: tuple[str, ...] = ()

    @property
    def is_field(self) -> bool:
        """Whether the record is a field of the manifest."""
        return " " not in self.record


MANIFEST = "guesses"
"""The field of the manifest that keeps the lines of all guesses of an export."""

NOT_KEPT = "printed only"
"""The record of a guess by a command that writes nothing."""

GUESSES: tuple[Guess, ...] = (
    Guess(
        "Folders of a dataset: classes or parts",
        "the names of the folders, in any case: test, testing, val, valid, validation, eval, train, training, also "
        "with set, data, images or split behind it; and whether class folders lie inside",
        "parts, if class folders lie inside; the images of the test part, else validation, else training; for "
        "calibration the other way round",
        ("dataset-split-chosen", "dataset-split-is-class", "dataset-folders-inside-classes"),
        MANIFEST,
        ("classes:PATH", "splits:PATH", "the path of one part"),
        (
            "dataset-folds-unclear",
            "dataset-layout-unclear",
            "dataset-parts-inside-classes",
            "dataset-splits-ambiguous",
            "dataset-splits-absent",
        ),
    ),
    Guess(
        "Files in a folder: images or not",
        "the ending of the name; hidden files are skipped",
        "the formats that rexport reads; HEIC, RAW and other files are left out and counted",
        ("files-left-out", "images-outside-classes", "class-folders-empty"),
        MANIFEST,
        ("a path of a file, whose content decides",),
        ("dataset-empty", "folder-without-images", "source-without-images"),
    ),
    Guess(
        "Order of class folders",
        "the names of the folders",
        "alphabetical order, unless the labels of the network have the same names",
        ("classes-by-position",),
        MANIFEST,
        ("--labels",),
        ("class-order-numeric", "class-order-unclear", "class-count-mismatch"),
    ),
    Guess(
        "Order of class folders for an artifact",
        "the names of the folders, and the labels of the artifact",
        "the order of the folders, unless the labels have the same names; `rexport label` takes numbers as outputs",
        ("artifact-classes-by-position", "class-folders-by-number"),
        NOT_KEPT,
        ("--labels",),
        ("class-order-numeric", "class-order-unclear", "class-count-mismatch", "label-number-too-large"),
    ),
    Guess(
        "Labels of a network without any",
        "the class folders of `--data`",
        "the names of the folders",
        ("labels-from-data", "labels-repeated"),
        "labels",
        ("--labels",),
        ("labels-numbered", "labels-not-lines", "labels-not-utf8", "label-count-mismatch"),
    ),
    Guess(
        "Form of a source of `rexport label`",
        "the first bytes of a file; the endings in a folder",
        "folder of images, tar archive, Parquet or list",
        ("source-recognised",),
        "kind of job.json",
        ("--kind",),
        ("source-unknown", "source-compressed", "source-kind-mismatch"),
    ),
    Guess(
        "Folders around the classes of `rexport label --evaluate`",
        "their names, as for a dataset",
        "parts of the dataset, whose images all count",
        ("dataset-parts-together",),
        NOT_KEPT,
        ("the path of one part, as photos/test",),
    ),
    Guess(
        "Weights in a checkpoint",
        "the entries and the prefixes that hold tensors",
        "the only one; averaged weights (EMA, SWA) beside others are never chosen",
        ("tensors-left-out",),
        "weights.key",
        ("--key", "--strip-prefix"),
        (
            "weights-copies-ambiguous",
            "weights-entries-ambiguous",
            "weights-averaged-only",
            "networks-ambiguous",
            "tensors-outside-prefix",
        ),
    ),
    Guess(
        "Network of a checkpoint",
        "the names and the shapes of the tensors",
        "the variant that has exactly these tensors; stride v1.5, or the stride of the layout; the size of the "
        "variant, or that of `--resize` alone if it is smaller",
        ("variant-recognised", "variant-adapted", "stride-from-layout"),
        "weights.assumed",
        ("VARIANT", "--stride", "--size", "--shortcut", "--num-classes", "--in-channels"),
        ("variant-ambiguous", "checkpoint-unrecognised"),
    ),
    Guess(
        "Input of your own module",
        "its `example_input_array`, its `pretrained_cfg`, else its first convolution",
        "the channels that these say; if nothing says the size, 224 x 224 pixels, or that of `--resize` alone if it is "
        "smaller",
        ("module-is-custom", "module-is-variant", "module-own-weights"),
        MANIFEST,
        ("--size", "--in-channels", "--weights"),
    ),
    Guess(
        "Weights of a variant",
        "`--weights`",
        "random ones, which are untrained",
        ("untrained",),
        "weights.trained",
        ("--weights",),
    ),
    Guess(
        "Preprocessing of trained weights",
        "the size of the input, and the layout of the checkpoint",
        "that of ImageNet, scaled to the input; the whole image up to 64 pixels; RGB; pixels divided by 255",
        ("preprocessing-not-in-weights", "layout-remark"),
        "preprocessing.assumed",
        (
            "--transform",
            "--resize",
            "--crop",
            "--pad",
            "--mean",
            "--std",
            "--scale",
            "--channels-order",
            "--interpolation",
            "--antialias",
            "--crop-offset",
        ),
        ("mean-scale-unclear", "transform-two-sizes", "transform-size-unclear", "transform-crop-unclear"),
    ),
    Guess(
        "Preprocessing of other than 3 channels",
        "`--mean` and `--std`",
        "none: the artifact has no preprocessing",
        ("preprocessing-unrecorded",),
        "preprocessing",
        ("--mean", "--std"),
        ("preprocessing-needs-statistics", "preprocessing-required", "artifact-lacks-preprocessing"),
    ),
    Guess(
        "Preprocessing for another `--size`",
        "the preprocessing of the weights",
        "the same, scaled; images are squashed if the input has another aspect ratio",
        ("preprocessing-scaled", "crop-exceeds-images"),
        MANIFEST,
        ("--resize", "--crop"),
    ),
    Guess(
        "Preprocessing of a model without a manifest",
        "the metadata of the file, and the size of its input",
        "what the metadata say; else the middle of the image, or the whole image up to 64 pixels",
        ("manifest-missing", "preprocessing-assumed"),
        NOT_KEPT,
        ("--mean", "--std", "--transform", "--labels"),
        ("statistics-unknown",),
    ),
    Guess(
        "Step from outputs to probabilities",
        "the values of the outputs of your own module or a foreign model; the number of outputs of a variant",
        "softmax for logits, sigmoid for one output, none for values between 0 and 1",
        ("activation-assumed",),
        "activation",
        ("--activation",),
        ("activation-unclear",),
    ),
    Guess(
        "Backend and device",
        "the installed libraries and the GPUs of the machine",
        "the first backend in the order of `rbench doctor` that opens the file",
        ("backend-fallback",),
        NOT_KEPT,
        ("--backend", "--device"),
        ("backends-all-refuse", "backends-all-missing"),
    ),
    Guess(
        "Image and memory of a cluster",
        "the version of rexport, and the size of the model file",
        "the image of this version, and several times the size of the file",
        ("image-assumed", "memory-assumed"),
        "the written files",
        ("--image", "--memory"),
    ),
)
"""All guesses, in the order of a user's work: data, weights, network, images, labels."""


class GuessLog:
    """Keeps the guesses among the notices for a user, and passes all notices on.

    Args:
        notify: Receives the notices.
    """

    def __init__(self, notify: Callable[[str | Reason], None]) -> None:
        self._notify = notify
        self._guesses: dict[Reason, None] = {}

    def __call__(self, notice: str | Reason) -> None:
        """Pass a notice on, and keep it if it is a guess.

        Args:
            notice: The notice.
        """
        if isinstance(notice, Reason) and notice.code in CODES:
            self._guesses[notice] = None
        self._notify(notice)

    @property
    def guesses(self) -> tuple[Reason, ...]:
        """The guesses so far, each once."""
        return tuple(self._guesses)


CODES = frozenset(code for guess in GUESSES for code in guess.notices)
"""The codes of all lines that announce a guess."""
