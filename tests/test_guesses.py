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
from pathlib import Path

import click
import numpy as np
import pytest
import torch

from benchmarks.cli import rbench
from exporter import cli
from exporter.data.class_folders import READINGS
from exporter.data.class_matching import check_class_order
from exporter.data.labels_file import read_labels
from exporter.export_request import ExportListener, ExportRequest
from exporter.guesses import CODES, GUESSES, NOT_KEPT, Guess, GuessLog
from exporter.models.custom import CustomNetwork
from exporter.network import Network, prepare
from exporter.preprocessing.description import black_margin
from exporter.preprocessing.options import assume_preprocessing
from exporter.weights.modules import NamedModule, from_module
from exporter.weights.recognition import VariantOptions
from exporter.weights.sources import IMAGENET_PREPROCESSING, scale_preprocessing
from runtimes.artifacts.manifest import Manifest
from runtimes.errors import ArtifactError, ModelMismatchError, Reason, UsageError
from runtimes.images.preprocessing import fit_image
from runtimes.tensors.activation import guess_activation, to_probabilities
from scripts.docs.pages import guesses_table, walk
from tests.exporter.datasets import folder_of, png
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
        "outputs-not-probabilities",
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


@pytest.mark.parametrize(
    ("ending", "activation", "said"),
    [
        (torch.nn.Identity(), "none", True),
        (torch.nn.Softmax(1), "none", False),
        (torch.nn.Identity(), "softmax", False),
    ],
)
def test_logits_as_probabilities_are_said(ending: torch.nn.Module, activation: str, said: bool) -> None:
    torch.manual_seed(0)
    _, heard = _prepare(Ending(3, ending), activation=activation)
    assert ("outputs-not-probabilities" in heard) == said


@pytest.mark.parametrize(("labels", "said"), [("x y z", True), ("bee yak cow", False), ("cat bee ant", False)])
def test_a_match_by_position_is_said_if_it_is_taken(labels: str, said: bool, tmp_path: Path) -> None:
    place = folder_of(tmp_path / "pets", {f"{name}/1.png": png(1) for name in ("ant", "bee", "cat")})
    (tmp_path / "labels.txt").write_text("\n".join(labels.split()))
    _, heard = _prepare(Ending(3, torch.nn.Identity()), data=str(place), labels=tmp_path / "labels.txt")
    assert ("classes-by-position" in heard) == said


def test_a_softmax_of_one_output_is_not_exported() -> None:
    with refuses(UsageError, "softmax-of-one"):
        _prepare(Ending(1, torch.nn.Identity()), activation="softmax")


def test_not_kept_is_said_of_commands_that_write_nothing() -> None:
    assert {guess.subject for guess in GUESSES if guess.record == NOT_KEPT} == {
        "Order of class folders for an artifact", "Folders around the classes of `rexport label --evaluate`",
        "Preprocessing of a model without a manifest", "Backend and device",
    }  # fmt: skip
    assert re.fullmatch(r"[a-z ]+", NOT_KEPT)
