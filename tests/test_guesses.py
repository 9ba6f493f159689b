"""No guess about a user's data is silent: each is printed, recorded where something is written, and overruled."""

from __future__ import annotations

import ast
import dataclasses
import re
import subprocess
import tomllib
import types
import typing
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import click
import numpy as np
import pytest
import torch
from PIL import Image

from benchmarks.cli import rbench
from exporter import cli
from exporter.data import class_folders
from exporter.data.class_folders import READINGS
from exporter.data.dataset import check_class_order, open_dataset
from exporter.data.labels_file import read_labels
from exporter.guesses import CODES, GUESSES, NOT_KEPT, Guess, GuessLog
from exporter.models.custom import CustomNetwork
from exporter.network import ExportListener, ExportRequest, Network, prepare
from exporter.preprocessing.description import black_margin
from exporter.preprocessing.options import assume_preprocessing
from exporter.weights.modules import NamedModule, from_module
from exporter.weights.recognition import VariantOptions
from exporter.weights.sources import IMAGENET_PREPROCESSING, scale_preprocessing
from runtimes.artifacts.manifest import Manifest
from runtimes.errors import ArtifactError, ModelMismatchError, Reason, UsageError
from runtimes.images.left_out import LeftOutFiles
from runtimes.images.preprocessing import fit_image
from runtimes.tensors.activation import guess_activation, to_probabilities
from scripts.docs.pages import guesses_table, walk
from tests.exporter.datasets import folder_of, png, tar_of
from tests.refusals import refuses

ROOT = Path(__file__).parents[1]

FACTS = frozenset(
    {
        "already-fp32", "answer-not-finite", "batch-unprepared", "bound-runs-copy",
        "artifact-file-renamed", "artifact-link-followed", "compiled-model-damaged", "compiled-model-not-kept",
        "compiled-model-refused", "compiled-model-unreadable", "compiler-missing", "model-opened-for-tensors",
        "cuda-bindings-not-found", "device-time-includes-host", "engine-being-built", "engine-build-awaited",
        "engine-cache-damaged", "engine-gpu-unsupported", "engine-not-recognised", "engine-not-run",
        "engine-of-newer-driver", "engine-of-other-capability", "engine-of-other-gpu", "engine-of-other-library",
        "engine-of-other-version", "engine-unchecked", "engine-version-unknown", "engine-without-gpu", "folder-made",
        "gate-backend-skipped", "gate-not-repeated", "gpu-not-visible", "gpu-number-missing", "graph-not-recorded",
        "graph-refused-by-parser", "image-kills-worker", "images-without-label", "int8-computed-in-float",
        "layout-measured", "library-missing", "limit-not-resolved", "lock-awaited", "logits-error",
        "module-in-training", "onnxruntime-without-tensorrt", "options-without-effect", "output-error", "output-moved",
        "plugin-missing", "precision-needs-device", "predictions-flipped", "provider-weakly-typed",
        "reference-unknown", "scaled-decoding-untested", "served-digest-unknown", "served-to-network",
        "sparse-weights-absent",
        "tensorrt-10-missing", "timing-cache-not-saved", "timing-cache-replaced", "top1-dropped",
        "torch-tensorrt-missing", "triton-settings-changed", "triton-version-exists", "triton-version-older",
        "user-code-runs", "weights-converted", "weights-subnormal", "web-runtime-version", "workers-died",
    }
)  # fmt: skip
"""The notices that say what happened, and guess nothing. A new notice belongs here or into ``GUESSES``."""


def _reasons() -> Iterator[str]:
    for path in (path for package in ("runtimes", "exporter", "rexport") for path in (ROOT / package).rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "Reason":
                code = node.args[0] if node.args else None
                if isinstance(code, ast.Constant):
                    yield str(code.value)


def test_every_notice_is_a_guess_or_a_fact() -> None:
    assert not CODES & FACTS
    assert set(_reasons()) - FACTS - CODES == set()


def _options() -> set[str]:
    commands = [command for program in (cli.cli, rbench) for _, command in walk(program, click.Context(program))]
    return {name for command in commands for param in command.params for name in (*param.opts, *param.secondary_opts)}


def _field(kind: object, names: Sequence[str]) -> bool:
    """Whether a dataclass has the field, with dots for fields of fields."""
    if not names:
        return True
    arms = typing.get_args(kind) if isinstance(kind, types.UnionType) else (kind,)
    for arm in arms:
        if dataclasses.is_dataclass(arm) and isinstance(arm, type):
            hints = typing.get_type_hints(arm)
            if names[0] in hints and _field(hints[names[0]], names[1:]):
                return True
    return False


@pytest.mark.parametrize("guess", GUESSES, ids=lambda guess: guess.subject)
def test_every_guess_is_printed_and_overruled(guess: Guess) -> None:
    table = tomllib.loads((ROOT / "tests/sentences.toml").read_text(encoding="utf-8"))
    sentences = {code for package in table.values() for code in package}
    assert {*guess.notices, *guess.refusals} <= sentences
    assert guess.notices or guess.refusals
    options = {way for way in guess.overrules if way.startswith("-")}
    assert guess.overrules
    assert options <= _options()
    assert {way.partition(":")[0] for way in guess.overrules if way.endswith(":PATH")} <= set(READINGS)
    assert not guess.is_field or _field(Manifest, guess.record.split("."))


def test_the_page_lists_every_guess() -> None:
    page = guesses_table()
    assert "<!-- guesses -->" in (ROOT / "docs/guesses.md").read_text(encoding="utf-8")
    for guess in GUESSES:
        assert guess.subject in page
        assert all(f"`{code}`" in page for code in (*guess.notices, *guess.refusals))


def test_a_guess_is_kept_and_passed_on() -> None:
    heard: list[str | Reason] = []
    log = GuessLog(heard.append)
    guess, fact = Reason("variant-recognised", "a"), Reason("folder-made", "b")
    for notice in (guess, fact, "text", guess):
        log(notice)
    assert heard == [guess, fact, "text", guess]
    assert log.guesses == (guess,)


# Folders --------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Folders:
    """Folders of images, and what they mean."""

    names: tuple[str, ...]
    classes: tuple[str, ...] | None = None
    split: str | None = None
    code: str | None = None
    wanted: class_folders.Split = "test"
    reading: class_folders.Reading | None = None


PETS = ("cat", "dog")
CASES = {
    "suffixed": Folders(("training_set/cat", "training_set/dog", "test_set/cat"), PETS, "test_set"),
    "capitals": Folders(("Train/cat", "Train/dog", "Test/dog"), PETS, "Test"),
    "upper case": Folders(("TRAIN/cat", "VAL/dog"), PETS, "VAL"),
    "joined": Folders(("trainset/cat", "testset/dog"), PETS, "testset"),
    "a shared beginning": Folders(("seg_train/cat", "seg_test/dog"), PETS, "seg_test"),
    "twice the name": Folders(("seg_train/seg_train/cat", "seg_test/seg_test/dog"), PETS, "seg_test"),
    "nested": Folders(("data/data/train/cat", "data/data/train/dog"), PETS, "train"),
    "deep": Folders(("a/b/c/d/e/train/cat", "a/b/c/d/e/test/dog"), PETS, "test"),
    "training alone": Folders(("train/cat", "train/dog"), PETS, "train"),
    "to train": Folders(("Train/cat", "Train/dog", "Test/dog"), PETS, "Train", wanted="train"),
    "a class called train": Folders(("bus", "car", "train"), ("bus", "car", "train"), code="dataset-split-is-class"),
    "a class called train in a part": Folders(("test/bus", "test/train"), ("bus", "train"), "test"),
    "a class called train station": Folders(("train_station", "airport"), ("airport", "train_station")),
    "a class of trains with kinds": Folders(("bus/city", "train/steam"), code="dataset-layout-unclear"),
    "trains with kinds, as classes": Folders(("bus/city", "train/steam"), ("bus", "train"), reading="classes"),
    "trains with kinds, as parts": Folders(("bus/city", "train/steam"), ("steam",), "train", reading="splits"),
    "parts and another folder": Folders(("train/cat", "test/cat", "extra/dog"), ("cat",), "test"),
    "two of one part": Folders(("val/cat", "validation/cat"), code="dataset-splits-ambiguous"),
    "no parts": Folders(("cat", "dog"), code="dataset-splits-absent", reading="splits"),
    "folders in classes": Folders(("pets/cat", "wild/fox"), ("pets", "wild"), code="dataset-folders-inside-classes"),
}


@pytest.mark.parametrize("case", CASES.values(), ids=CASES)
def test_folders_mean_what_their_names_say(case: Folders) -> None:
    names = [f"{name}/{number}.png" for name in case.names for number in (1, 2)]
    if case.classes is None:
        kind = UsageError if case.code == "dataset-splits-absent" else ArtifactError
        with refuses(kind, str(case.code)):
            class_folders.read(names, case.wanted, case.reading)
        return
    found = class_folders.read(names, case.wanted, case.reading)
    assert found is not None
    assert (found.classes, found.split) == (case.classes, case.split)
    assert len(found.files) == 2 * (sum(case.split in name.split("/") for name in case.names) if case.split else
                                    len(case.names))  # fmt: skip
    codes = {notice.code for notice in found.notices}
    assert codes <= CODES
    assert case.split is None or "dataset-split-chosen" in codes
    assert case.code in (None, *codes)


@pytest.mark.parametrize(
    ("names", "reading", "wanted", "said"),
    [
        (("test/cat", "val/cat"), None, "test", "classes:PATH takes every folder"),
        (("test/cat", "val/cat"), "splits", "test", "those of test; PATH/val takes others"),
        (("test/cat", "val set/cat"), "splits", "test", "PATH/'val set' takes others"),
        (("test", "val"), "splits", "train", "those of val (validation images, because there is no train part)"),
        (("train/cat", "extra/cat"), "splits", "test", "a folder test would be taken first"),
        (("test/cat", "extra/cat"), "splits", "test", None),
    ],
)  # fmt: skip
def test_a_reading_that_the_user_says_is_no_guess(
    names: tuple[str, ...],
    reading: class_folders.Reading | None,
    wanted: class_folders.Split,
    said: str | None,
) -> None:
    found = class_folders.read([f"{name}/1.png" for name in names], wanted, reading)
    assert found is not None
    sentences = [notice.sentence for notice in found.notices]
    assert len(sentences) == (said is not None)
    assert all(str(said) in sentence for sentence in sentences)
    assert all(("taken as parts" in sentence) == (reading is None) for sentence in sentences)
    assert all(("classes:PATH" in sentence) == (reading is None) for sentence in sentences)


def test_the_forms_of_a_dataset_are_read(tmp_path: Path) -> None:
    place = folder_of(tmp_path / "my vehicles", {f"{name}/x/1.png": png(1) for name in ("bus", "train")})
    with refuses(ArtifactError, "dataset-layout-unclear", f"classes:'{place}'", f"splits:'{place}'"):
        open_dataset(str(place))
    assert open_dataset(f"classes:{place}").classes == ("bus", "train")
    assert open_dataset(f"splits:{place}").classes == ("x",)


def test_files_that_are_left_out_are_counted(tmp_path: Path) -> None:
    contents = {"cat/1.png": png(1), "cat/2.HEIC": b"x", "fox/1.heic": b"x", "dog/1.png": png(2), "list.csv": b"x",
                "README": b"x", "loose.png": png(1), "cat/.hidden": b"x"}  # fmt: skip
    for place in (folder_of(tmp_path / "pets", contents), tar_of(tmp_path / "pets.tar", contents)):
        dataset = open_dataset(str(place))
        assert dataset.classes == ("cat", "dog", "fox")  # so that no index moves
        np.testing.assert_array_equal(dataset.targets, [0, 1])
        (line,) = [notice.sentence for notice in dataset.notices if notice.code == "files-left-out"]
        assert "4 of 7" in line
        assert "2 .heic" in line
        assert "images-outside-classes" in {notice.code for notice in dataset.notices}
    assert LeftOutFiles(["a.png", ".b"]).notice("x") is None


@pytest.mark.parametrize("suffix", ["avif", "jp2", "bmp", "tiff", "webp", "gif", "ppm"])
def test_the_formats_of_pillow_are_read(suffix: str, tmp_path: Path) -> None:
    for name in ("cat", "dog"):
        (tmp_path / name).mkdir()
        Image.new("RGB", (32, 32), (200, 30, 30)).save(tmp_path / name / f"1.{suffix}")
    dataset = open_dataset(str(tmp_path))
    assert (len(dataset), dataset.notices) == (2, ())
    view = scale_preprocessing(IMAGENET_PREPROCESSING, (16, 16))
    assert abs(int(fit_image(dataset.image(0), view)[8, 8, 0]) - 200) < 8


def test_a_zip_archive_is_named_with_its_command(tmp_path: Path) -> None:
    place = tmp_path / "photos.zip"
    place.write_bytes(b"PK\x03\x04" + bytes(600))
    with refuses(ArtifactError, "archive-expected", "zip", f"unzip {place} -d {tmp_path}/photos"):
        open_dataset(str(place))


# Classes and labels ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("names", [[str(n) for n in range(11)], [f"class_{n}" for n in range(8, 12)]])
def test_numbers_have_two_orders(names: list[str], tmp_path: Path) -> None:
    with refuses(ModelMismatchError, "class-order-numeric", "--labels") as refusal:
        check_class_order(sorted(names))
    commands = re.findall(r"ls \| .+? > \.\./labels\.txt", refusal.value.hint or "")
    for name in names:
        (tmp_path / "train" / name).mkdir(parents=True)
    orders = []
    for command in commands:
        subprocess.run(command, shell=True, check=True, cwd=tmp_path / "train")
        orders.append((tmp_path / "labels.txt").read_text().split())
    assert orders == [names, sorted(names)]


@pytest.mark.parametrize("names", [[f"{n:02}" for n in range(11)], ["0", "1", "2"], ["a1", "b10", "b2"], ["x"], []])
def test_other_names_have_one_order(names: list[str]) -> None:
    check_class_order(sorted(names))


TABLES = {
    "0 cat\n1 dog\n": "labels-numbered",
    "0,cat\n1,dog\n": "labels-numbered",
    "1: cat\n2: dog\n": "labels-numbered",
    "     1\tcat\n     2\tdog\n": "labels-numbered",  # cat -n
    "1 , cat\n2 , dog\n": "labels-numbered",
    "cat,0\ndog,1\n": "labels-numbered",
    "cat 0\ndog 1\n": "labels-numbered",
    "cat\t 1 \r\ndog\t 2 \r\n": "labels-numbered",
    '{"0": "cat",\n"1": "dog"}': "labels-not-lines",
    '["cat", "dog"]': "labels-not-lines",
    "{0: 'cat',\n1: 'dog'}": "labels-not-lines",  # Python, as the best-known file of ImageNet
    '{"a": 1}\n{"b": 2}': "labels-not-lines",
    "['cat',\n'dog']": "labels-not-lines",
    "['cat', 'dog']": "labels-not-lines",
    '["cat"]\n["dog"]': "labels-not-lines",
    "[\ncat,\ndog": "labels-not-lines",
}


@pytest.mark.parametrize(("text", "code"), TABLES.items())
def test_a_table_of_labels_is_refused(text: str, code: str, tmp_path: Path) -> None:
    path = tmp_path / "names.txt"
    path.write_bytes(text.encode())
    with refuses(ArtifactError, code, "names.txt") as refusal:
        read_labels(path, 2, lambda _: None)
    hint = refusal.value.hint or ""
    if command := re.match(r"sed .+\.txt", hint):
        subprocess.run(command[0], shell=True, check=True)
        assert path.read_bytes() == text.encode()
        assert read_labels(tmp_path / "names-names.txt", 2, lambda _: None) == ("cat", "dog")


def test_labels_may_begin_with_a_bracket(tmp_path: Path) -> None:
    path = tmp_path / "names.txt"
    path.write_text("[background]\ncat\n")
    assert read_labels(path, 2, lambda _: None) == ("[background]", "cat")


def test_numbers_alone_are_labels_and_a_header_is_named(tmp_path: Path) -> None:
    path = tmp_path / "names.txt"
    path.write_text("0\n1\n2\n")
    assert read_labels(path, 3, lambda _: None) == ("0", "1", "2")
    path.write_text("7 up\n3 musketeers\n")
    assert read_labels(path, 2, lambda _: None) == ("7 up", "3 musketeers")
    path.write_text("class 0\nclass 1\n")
    assert read_labels(path, 2, lambda _: None) == ("class 0", "class 1")
    path.write_text("boeing 747\nairbus 320\n")
    assert read_labels(path, 2, lambda _: None) == ("boeing 747", "airbus 320")
    path.write_text(f"{'1' * 5000} up\n2 {'1' * 5000}\n")  # more digits than Python converts
    assert len(read_labels(path, 2, lambda _: None)) == 2
    path.write_text("label\ncat\ndog\n")
    with refuses(ModelMismatchError, "label-count-mismatch", "'label'", "header"):
        read_labels(path, 2, lambda _: None)


# Images ---------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("whole", [False, True])
@pytest.mark.parametrize("shape", [(320, 480), (480, 320), (60, 90)])
def test_no_assumed_size_leaves_black_columns(shape: tuple[int, int], whole: bool) -> None:
    for view in (assume_preprocessing(shape, whole), scale_preprocessing(IMAGENET_PREPROCESSING, shape)):
        assert view.size == shape
        assert black_margin(view) is None
        for height, width in ((500, 500), (300, 900), (900, 300)):
            assert fit_image(np.full((height, width, 3), 255, np.uint8), view).min() == 255


def test_a_chosen_resize_that_leaves_black_is_announced() -> None:
    view = dataclasses.replace(IMAGENET_PREPROCESSING, resize=366, crop=(320, 480))
    notice = black_margin(view)
    assert notice is not None
    assert notice.code == "crop-exceeds-images"
    assert "114 of 480" in notice.sentence
    assert fit_image(np.full((500, 500, 3), 255, np.uint8), view).min() == 0


# Outputs --------------------------------------------------------------------------------------------------------------

LOGITS = np.array([[2.0, -1.0, 0.5]] * 7)
SCORES = 1 / (1 + np.exp(-LOGITS))


@pytest.mark.parametrize(
    ("outputs", "activation"),
    [
        (LOGITS, "softmax"),
        (to_probabilities(LOGITS, "softmax"), "none"),
        (SCORES, "none"),
        (LOGITS[:, :1] - 3, "sigmoid"),
        (SCORES[:, :1].repeat(8, axis=0), "none"),
        (np.log(to_probabilities(LOGITS, "softmax")), "softmax"),
        (np.full((1, 3), np.nan), "softmax"),
    ],
    ids=["logits", "softmax", "sigmoid", "one logit", "one score", "log-softmax", "NaN"],
)
def test_outputs_show_their_activation(outputs: np.ndarray, activation: str) -> None:
    assert guess_activation(outputs) == activation


def test_one_value_between_0_and_1_is_unclear() -> None:
    with refuses(UsageError, "activation-unclear", "0.3"):
        guess_activation(np.array([[0.3]]))


class Ending(torch.nn.Module):
    """A small network with an ending."""

    def __init__(self, classes: int, ending: Callable[[torch.Tensor], torch.Tensor]) -> None:
        super().__init__()
        self.conv, self.fc, self.ending = torch.nn.Conv2d(3, 4, 3), torch.nn.Linear(4, classes), ending

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Return (n, classes)."""
        return self.ending(self.fc(self.conv(images).mean((2, 3))))


def _prepare(module: torch.nn.Module, **options: object) -> tuple[Network, list[str]]:
    heard: list[str] = []
    listener = ExportListener(lambda _: None, lambda notice: heard.append(getattr(notice, "code", "")))
    built = from_module(NamedModule.of(module), VariantOptions(size=(8, 8)), 0, listener.notice)
    assert isinstance(built.network, CustomNetwork)
    request = ExportRequest(built.network, "./", weights=built.weights, **options)  # type: ignore[arg-type]
    return prepare(request, listener), heard


@pytest.mark.parametrize(
    ("classes", "ending", "activation"),
    [(3, torch.nn.Identity(), None), (3, torch.nn.Softmax(1), "none"), (3, torch.nn.Sigmoid(), "none")],
)
def test_an_export_records_its_guesses(classes: int, ending: torch.nn.Module, activation: str | None) -> None:
    torch.manual_seed(0)
    network, heard = _prepare(Ending(classes, ending))
    assert network.activation == activation
    assert ("activation-assumed" in heard) == (activation is not None)
    assert {code for code in heard if code in CODES} == {guess.code for guess in network.guesses}
    assert "preprocessing-not-in-weights" in heard
    chosen, heard = _prepare(Ending(classes, ending), activation="sigmoid")
    assert (chosen.activation, "activation-assumed" in heard) == ("sigmoid", False)


def test_a_softmax_of_one_output_is_not_exported() -> None:
    with refuses(UsageError, "softmax-of-one"):
        _prepare(Ending(1, torch.nn.Identity()), activation="softmax")


def test_not_kept_is_said_of_commands_that_write_nothing() -> None:
    assert {guess.subject for guess in GUESSES if guess.record == NOT_KEPT} == {
        "Order of class folders for an artifact", "Folders around the classes of `rexport label --evaluate`",
        "Preprocessing of a model without a manifest", "Backend and device",
    }  # fmt: skip
    assert re.fullmatch(r"[a-z ]+", NOT_KEPT)
