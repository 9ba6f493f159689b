"""A program for the environments of peers: checks a file against published schemas, and prints each fault as a line.

``python schema_check.py pods|compose|kserve|rayserve FILE``. It is run by the interpreter of a peer, so it imports
nothing of rexport.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from typing import Any


def pod_faults(text: str) -> Iterator[str]:
    """The JSON schemas of Kubernetes, for each document of a stream."""
    import kubernetes_validate
    import yaml

    for document in yaml.safe_load_all(text):
        try:
            kubernetes_validate.validate(document, "1.37", strict=True)
        except kubernetes_validate.ValidationError as error:
            yield str(error).splitlines()[0]


def compose_faults(text: str) -> Iterator[str]:
    """A parser of the Compose Specification."""
    import compose_spec

    try:
        compose_spec.PyCompose.from_yaml(text).validate()
    except Exception as error:  # the parser's own class is not public
        yield str(error)


def kserve_faults(text: str) -> Iterator[str]:
    """The models of KServe and Kubernetes: every field is known, and every value has the type of its field."""
    import yaml
    from kserve import models

    yield from _model_faults(yaml.safe_load(text), models.V1beta1InferenceService, "InferenceService")


def rayserve_faults(text: str) -> Iterator[str]:
    """The schema of Ray Serve for the configuration inside a RayService."""
    import yaml
    from pydantic import ValidationError
    from ray.serve.config import AutoscalingConfig
    from ray.serve.schema import DeploymentSchema, ServeApplicationSchema, ServeDeploySchema

    config = yaml.safe_load(yaml.safe_load(text)["spec"]["serveConfigV2"])
    levels = [(config, ServeDeploySchema)]
    levels += [(application, ServeApplicationSchema) for application in config["applications"]]
    levels += [
        (inner, DeploymentSchema) for application in config["applications"] for inner in application["deployments"]
    ]
    for fields, schema in levels:  # the schema itself passes over what it does not know
        yield from (f"{name} is unknown" for name in fields if name not in schema.model_fields)
    try:
        ServeDeploySchema.model_validate(config)
        for application in config["applications"]:
            for deployment in application["deployments"]:
                AutoscalingConfig.model_validate(deployment.get("autoscaling_config", {}))
    except ValidationError as error:
        yield from (f"{'.'.join(map(str, fault['loc']))}: {fault['msg']}" for fault in error.errors())


def _model_faults(value: Any, model: Any, where: str) -> Iterator[str]:
    if not isinstance(value, dict):
        yield f"{where} is no object"
        return
    names = {json: python for python, json in model.attribute_map.items()}
    for key, inner in value.items():
        if key in names:
            yield from _value_faults(inner, model.openapi_types[names[key]], f"{where}.{key}")
        else:
            yield f"{where}.{key} is unknown"
    try:
        model(**{names[key]: inner for key, inner in value.items() if key in names})
    except ValueError as error:
        yield f"{where}: {error}"


def _value_faults(value: Any, kind: str, where: str) -> Iterator[str]:
    plain = {"str": str, "int": int, "bool": bool, "float": float, "datetime": str, "object": object}
    if kind.lower().startswith("list["):
        for number, inner in enumerate(value):
            yield from _value_faults(inner, kind[5:-1], f"{where}[{number}]")
    elif kind.lower().startswith(("dict(", "dict[")):
        for key, inner in value.items():
            yield from _value_faults(inner, kind[5:-1].partition(", ")[2], f"{where}.{key}")
    elif kind in plain:
        if not isinstance(value, plain[kind]) or (kind == "int" and isinstance(value, bool)):
            yield f"{where} is no {kind}"
    elif kind in ("ResourceQuantity", "IntOrString", "KnativeURL"):
        if not isinstance(value, (str, int)):
            yield f"{where} is no {kind}"
    else:
        yield from _model_faults(value, _model(kind), where)


def _model(name: str) -> Any:
    import kubernetes.client
    from kserve import models

    return getattr(models, name, None) or getattr(kubernetes.client, name)


CHECKS = {"pods": pod_faults, "compose": compose_faults, "kserve": kserve_faults, "rayserve": rayserve_faults}

if __name__ == "__main__":
    with open(sys.argv[2], encoding="utf-8") as file:
        faults = list(CHECKS[sys.argv[1]](file.read()))
    sys.stdout.write("\n".join(faults))
