"""The search for an int8 graph: on a network that int8 breaks, and in its order with a scripted gate."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import onnx as onnx_library
import pytest

from exporter.commands.options import TYPING
from exporter.export_request import ExportListener
from exporter.inspect import manifest_view
from exporter.precision import recipe_search, slowdown
from exporter.precision.calibration_images import Examples
from exporter.precision.gate import announce_resolution
from exporter.precision.recipe_search import Candidate, Quantisation, Rejection, export_calibrated
from exporter.precision.recipes import RECIPES, CalibrationRecipe, recipes_for
from exporter.precision.spec import PrecisionSpec
from exporter.targets import onnx_file
from runtimes import Artifact, available_backends, codec
from runtimes.artifacts.manifest import Calibration, Gate, Manifest
from runtimes.artifacts.rebuild_command import rebuild_hint, recipe_options
from runtimes.errors import CheckFailedError, CompatibilityError, Reason, UsageError
from tests.exporter import hard
from tests.exporter.small import BASIC, SILENT, content, export, reason_codes, recording
from tests.refusals import refuses

Notices = list[str | Reason]


def spec_for(images: Path, **fields: Any) -> PrecisionSpec:
    return PrecisionSpec("int8", str(images), hard.IMAGES, gate_images=hard.IMAGES, max_drop=15, **fields)


@pytest.fixture(scope="module")
def searched(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Notices]:
    """The network after a search, with its notices; only two of the recipes are tried."""
    folder = tmp_path_factory.mktemp("hard")
    out = folder / "out"
    out.mkdir()
    notices, listener = recording()
    with pytest.MonkeyPatch.context() as patch:
        few = {name: RECIPES[name] for name in ("default", "more-images")}
        patch.setattr(recipe_search, "recipes_for", lambda _, __: few)
        patch.setattr(slowdown, "ROUND_S", 0.002)
        request = hard.hard_request(folder, out)
        onnx_file.export(request, listener, precision_spec=spec_for(folder / "images"))
    return out / "small-basic.onnx", notices


def manifest_of(path: Path) -> Manifest:
    manifest = Artifact.read(path).manifest
    assert manifest is not None
    return manifest


def test_the_layer_that_int8_breaks_stays_in_float(searched: tuple[Path, Notices]) -> None:
    manifest = manifest_of(searched[0])
    assert manifest.calibration is not None
    assert manifest.gate is not None
    assert manifest.calibration.float_layers == (hard.LAYER,)
    assert manifest.calibration.recipe == "default"
    assert (manifest.gate.asked, manifest.gate.bounds["drop"]) == (True, 0.15)
    nodes = {node.name: node for node in onnx_library.load(searched[0]).graph.node}
    makers = {node.output[0]: node.op_type for node in nodes.values()}
    quantised = {
        name for name, node in nodes.items() if node.op_type == "Conv" and makers.get(node.input[1]) is not None
    }
    assert quantised == {name for name, node in nodes.items() if node.op_type == "Conv"} - {hard.LAYER}


def test_the_cost_of_float_layers_is_measured(searched: tuple[Path, Notices]) -> None:
    record = manifest_of(searched[0]).calibration
    assert record is not None
    cost = record.slowdown
    assert cost is not None
    assert 0.5 < cost.interval[0] <= cost.ratio <= cost.interval[1] < 5
    assert cost.runtime.split()[0] in {backend.name for backend in available_backends()}


def test_the_gate_holds_on_each_backend_of_cpus(searched: tuple[Path, Notices]) -> None:
    manifest = manifest_of(searched[0])
    installed = {
        backend.name
        for backend in available_backends()
        if "onnx" in backend.formats and "cpu" in backend.devices and backend.missing() is None
    }
    assert manifest.gate is not None
    records = (manifest.gate, *manifest.other_gates)
    assert {record.runtime.split()[0] for record in records} == installed
    assert all(record.drop is not None and record.drop <= 0.15 for record in records)


def test_each_candidate_is_a_row_as_it_comes(searched: tuple[Path, Notices]) -> None:
    rows = [str(notice).split() for notice in searched[1]]
    (head,) = (number for number, row in enumerate(rows) if row[:2] == ["int8", "recipe"])
    table = [row for row in rows[head:] if row[0] in RECIPES]
    assert [row[0] for row in table] == ["default", "more-images", "default"]
    assert ["rejected" in table[0], "not" in table[1], "accepted;" in table[2]] == [True] * 3


def test_inspect_shows_recipe_float_layers_and_cost(searched: tuple[Path, Notices]) -> None:
    facts = dict(line.split("  ", 1) for line in manifest_view.as_text(searched[0]).splitlines())
    assert facts["float layers"].strip() == hard.LAYER
    assert f"--float-layer {hard.LAYER}" in facts["recipe"]
    assert "20 rounds" in facts["slowdown"]


def test_the_options_make_the_same_graph_without_a_search(
    searched: tuple[Path, Notices], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(slowdown, "ROUND_S", 0.002)
    record = manifest_of(searched[0]).calibration
    assert record is not None
    options = recipe_options(record)
    assert any(options in str(notice) for notice in searched[1])
    assert options in rebuild_hint(searched[0], manifest_of(searched[0]))
    folder = searched[0].parent.parent
    request = hard.hard_request(folder, tmp_path)
    pinned = spec_for(folder / "images", recipe=record.recipe, float_layers=record.float_layers)
    notices, listener = recording()
    onnx_file.export(request, listener, precision_spec=pinned)
    first, second = (onnx_library.load(path).graph for path in (searched[0], tmp_path / "small-basic.onnx"))
    assert first == second
    assert not any(str(notice).startswith("int8 recipe") for notice in notices)


def test_an_interrupted_search_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = Quantisation.candidate

    def candidate(self: Quantisation, recipe: CalibrationRecipe, *more: Any) -> Candidate:
        if recipe.name != "default":
            raise KeyboardInterrupt
        return whole(self, recipe, *more)

    monkeypatch.setattr(Quantisation, "candidate", candidate)
    monkeypatch.setattr(PrecisionSpec, "bounds", dataclasses.replace(PrecisionSpec("int8").bounds, error=1e-9))  # type: ignore[type-var]
    with pytest.raises(KeyboardInterrupt):
        export(BASIC, tmp_path, precision_spec=PrecisionSpec("int8", calibration_images=2))
    assert content(tmp_path) == {}


# The order of the search, with a gate that follows a script.


@dataclass
class ScriptedGate:
    """Stands for the quantisation and the gate: each candidate has the loss that ``drops`` says, 0 to 1."""

    drops: dict[str, float]
    layers: tuple[str, ...] = tuple(f"layer{number}" for number in range(6))
    images_known: int = 1000
    labelled: bool = True
    refused: str = ""
    title: str = ""
    kept: tuple[str, ...] = ()
    records: tuple[Gate, ...] = ()
    tried: list[str] = field(default_factory=list)

    @property
    def examples(self) -> Examples:
        values = np.zeros((1, 3, 2, 2), np.float32)
        return Examples("some images", True, values, None, np.zeros(1, np.int64) if self.labelled else None)

    def images(self, recipe: CalibrationRecipe) -> range:
        return range(min(self.images_known, 300 * recipe.times))

    def candidate(
        self, recipe: CalibrationRecipe, float_layers: tuple[str, ...] = (), plain: object = None
    ) -> Candidate:
        del plain
        if recipe.name == self.refused:
            raise CompatibilityError("NNCF does not know this", code="quantisation-failed")
        calibration = Calibration("nncf 1", "cpu", "images", 300, recipe.name, float_layers)
        candidate = Candidate(recipe, float_layers, onnx_library.ModelProto(), calibration)
        self.title = candidate.title
        self.tried.append(candidate.title)
        return candidate

    def rank_layers(self, candidate: Candidate) -> tuple[str, ...]:
        self.tried.append(f"layers of {candidate.title}")
        return self.layers

    def begin(self) -> None:
        self.records = ()

    def failures(self, record: Gate) -> list[Reason]:
        return [Reason("top1-dropped", f"{record.drop}")]

    def write(self, graph: onnx_library.ModelProto, calibration: Calibration) -> Artifact:
        del graph, calibration
        drop = self.drops.get(self.title, 0.5)
        self.records = (Gate("ort 1", "images", 9, 0.1, 1, 0, 0, 0.9, 0.9, drop, (drop, drop), {"drop": 0.0}, True),)
        if drop > 0:
            raise CheckFailedError("too much", code="gate-failed")
        return Artifact.read(Path(__file__))

    def run(self, listener: ExportListener = SILENT, **fields: Any) -> None:
        spec = PrecisionSpec("int8", **fields)
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(Artifact, "read", lambda path: path)
            export_calibrated(self, spec, self, listener, self.write)  # type: ignore[arg-type]


def test_a_default_that_passes_is_no_search() -> None:
    notices, listener = recording()
    script = ScriptedGate({"default": 0.0})
    script.run(listener)
    assert (script.tried, notices) == (["default"], [])


def test_an_asked_limit_shows_even_one_row() -> None:
    notices, listener = recording()
    ScriptedGate({"default": 0.0}).run(listener, max_drop=1.0)
    assert [str(notice).split()[-1] for notice in notices] == ["verdict", "accepted"]


def test_recipes_come_in_their_order_until_one_passes() -> None:
    script = ScriptedGate({"no-outliers": 0.0})
    script.run()
    assert script.tried == ["default", "more-images", "no-outliers"]


def test_float_layers_double_on_the_recipe_that_came_closest() -> None:
    script = ScriptedGate({"histogram": 0.1, "histogram + 4 float layers": 0.0})
    script.run()
    steps = ["1 float layer", "2 float layers", "4 float layers"]
    assert script.tried[:8] == list(recipes_for("int8", "cpu"))
    assert script.tried[8:] == ["layers of histogram", *(f"histogram + {step}" for step in steps)]


def test_a_search_without_success_says_what_came_closest() -> None:
    with refuses(CheckFailedError, "int8-not-within-limits", "11 ", "minmax + 2 float layers", "-20.00 pp", "fp16"):
        ScriptedGate({"minmax": 0.3, "minmax + 2 float layers": 0.2}).run()


@pytest.mark.parametrize("fields", [{"images_known": 250}, {"labelled": False}])
def test_more_images_are_left_out_where_there_are_none(fields: dict[str, Any]) -> None:
    script = ScriptedGate({"no-outliers": 0.0}, **fields)
    script.run()
    assert script.tried == ["default", "no-outliers"]


def test_a_recipe_that_nncf_refuses_is_a_row() -> None:
    notices, listener = recording()
    script = ScriptedGate({"minmax": 0.0}, refused="histogram")
    script.run(listener)
    assert "histogram" not in script.tried
    assert any(str(notice).startswith("histogram ") for notice in notices)


def test_a_network_that_nncf_refuses_is_an_error() -> None:
    with refuses(CompatibilityError, "quantisation-failed"):
        ScriptedGate({}, refused="default").run()


def test_an_error_of_another_check_ends_the_search(monkeypatch: pytest.MonkeyPatch) -> None:
    def write(*_: object) -> Artifact:
        raise CheckFailedError("another accuracy", code="top1-differs")

    script = ScriptedGate({})
    monkeypatch.setattr(script, "write", write)
    with refuses(CheckFailedError, "top1-differs"):
        script.run()
    assert script.tried == ["default"]


@pytest.mark.parametrize("fields", [{"recipe": "minmax"}, {"float_layers": ("layer3",)}])
def test_a_pinned_recipe_is_the_only_candidate(fields: dict[str, Any]) -> None:
    script = ScriptedGate({})
    with refuses(CheckFailedError, "gate-failed"):
        script.run(**fields)
    assert len(script.tried) == 1


# What is refused, and what is said.


def test_unknown_names_are_refused() -> None:
    with refuses(UsageError, "recipe-unknown", "minmax"):
        PrecisionSpec("int8", recipe="minimax")
    graph = onnx_library.ModelProto()
    graph.graph.node.add(name="layer1.0.conv1/Conv", op_type="Conv")
    quantisation = Quantisation(graph, None, PrecisionSpec("int8"), SILENT)  # type: ignore[arg-type]
    with refuses(UsageError, "float-layer-unknown", "layer1.0.conv1/Conv"):
        quantisation.candidate(RECIPES["default"], ("layer1.0.conv7/Conv",))


@pytest.mark.parametrize("max_drop", [-0.1, 100.5, float("nan")])
def test_a_limit_out_of_range_is_refused(max_drop: float) -> None:
    with refuses(UsageError, "drop-out-of-range", f"{max_drop:g}"):
        PrecisionSpec("fp16", max_drop=max_drop)


def test_a_limit_without_labelled_images_is_refused(tmp_path: Path) -> None:
    with refuses(UsageError, "max-drop-needs-data", "0.5", "--data"):
        export(BASIC, tmp_path, precision_spec=PrecisionSpec("fp16", max_drop=0.5))
    assert content(tmp_path) == {}


def test_a_default_recipe_is_written_as_before() -> None:
    """Versions that know no recipes read such a manifest."""
    calibration = Calibration("nncf 1", "cpu", "images", 300)
    assert codec.encode(calibration).keys() == {"quantiser", "target", "data", "images"}
    assert "asked" not in codec.encode(record(1000, 0.01, 0.005, asked=False))
    assert "recipe" in codec.encode(dataclasses.replace(calibration, recipe="minmax"))


def test_the_closest_candidate_exceeds_the_fewest_limits() -> None:
    candidate, error = ScriptedGate({}).candidate(RECIPES["default"]), CheckFailedError("", code="gate-failed")
    far, near = (record(1000, 0.01, 0.005),), (dataclasses.replace(record(1000, 0.01, 0.005), drop=0.1),)
    rejections = [
        Rejection(candidate, error, (), 0),
        Rejection(candidate, error, far, 2),
        Rejection(candidate, error, near, 1),
    ]
    assert min(rejections, key=lambda rejection: rejection.distance) is rejections[2]


def test_the_options_are_the_fields_of_the_precision() -> None:
    assert set(TYPING) == {field.name for field in dataclasses.fields(PrecisionSpec)}


def record(images: int, half: float, limit: float, asked: bool = True) -> Gate:
    return Gate("ort 1", "images", images, 0.1, 1, 0, 0, 0.9, 0.9, 0, (-half, half), {"drop": limit}, asked)


@pytest.mark.parametrize(
    ("measured", "values"),
    [
        (record(1000, 0.009, 0.001), ["0.90", "0.1 pp", "81,000"]),
        (record(1000, 0.009, 0.0), ["0.90", "0 pp"]),
        (record(1000, 0.009, 0.01), None),
        (record(1000, 0.009, 0.001, asked=False), None),
    ],
)
def test_too_few_images_for_a_limit_are_named(measured: Gate, values: list[str] | None) -> None:
    notice = announce_resolution([measured])
    if values is None:
        assert notice is None
        return
    assert notice is not None
    assert reason_codes([notice]) == ["limit-not-resolved"]
    assert [value for value in values if value not in notice.sentence] == []
