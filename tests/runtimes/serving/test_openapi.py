"""The server by its own description: schemathesis makes requests of /openapi.json, sound ones and broken ones.

No request may lead to an internal error, and each answer has a status, a type and a body that the description lists.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import fastapi
import hypothesis
import pytest
import schemathesis
from schemathesis.checks import not_a_server_error
from schemathesis.core.failures import FailureGroup
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    response_schema_conformance,
    status_code_conformance,
)

from runtimes.serving import ServedModel, ServingSettings, create_app
from tests.samples import publish_script

CHECKS = [not_a_server_error, status_code_conformance, content_type_conformance, response_schema_conformance]
SETTINGS = hypothesis.settings(
    max_examples=15,
    derandomize=True,
    database=None,
    deadline=None,
    suppress_health_check=list(hypothesis.HealthCheck),
    phases=[hypothesis.Phase.explicit, hypothesis.Phase.generate],
)
"""The same requests in each run."""


@pytest.fixture(scope="module")
def api(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    artifact = publish_script(tmp_path_factory.mktemp("openapi") / "scripted.fake")
    model = ServedModel.open(artifact.path, "scripted", "fake")
    app = create_app([model], ServingSettings(max_bytes=100_000))
    yield schemathesis.openapi.from_asgi("/openapi.json", app)
    app.state.service.close()
    model.close()


@pytest.mark.parametrize("known", [True, False], ids=["known-model", "any-model"])
def test_every_answer_is_one_that_is_described(known: bool, api: Any) -> None:
    """With the name of the model that there is, requests pass on to the parser of their bodies."""
    ask_all(api, lambda case: name_model(case) if known else None)


def name_model(case: Any) -> None:
    if "name" in case.path_parameters:
        case.path_parameters |= dict.fromkeys(case.path_parameters, "1") | {"name": "scripted"}


def ask_all(api: Any, change: Callable[[Any], None]) -> None:
    """Makes requests for every operation, changes them, and checks the answers."""
    for found in api.get_all_operations():

        @SETTINGS
        @hypothesis.given(case=found.ok().as_strategy())
        def ask(case: Any) -> None:
            change(case)
            case.call_and_validate(checks=CHECKS)

        ask()


@pytest.mark.parametrize("status", [500, 418])
def test_an_answer_that_is_not_described_is_caught(status: int) -> None:
    app = fastapi.FastAPI()
    app.get("/broken")(lambda: fastapi.Response("{}", status, media_type="application/json"))
    with pytest.raises(FailureGroup):
        ask_all(schemathesis.openapi.from_asgi("/openapi.json", app), lambda _: None)
