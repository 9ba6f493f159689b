"""The fields of KubeRay's resources ``ray.io/v1``, by their published names and types.

No package has the schemas of KubeRay, so the names and types that its API reference lists stand here, for version 1.6.
Only what is optional to KubeRay or set by rexport is listed. A field that is not listed here is a fault.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

PODS = "a pod template, which the schema of Kubernetes checks"

CLUSTER: dict[str, Any] = {
    "rayVersion": str,
    "authOptions": {"mode": ("disabled", "token"), "secretName": str},
    "enableInTreeAutoscaling": bool,
    "autoscalerOptions": {"idleTimeoutSeconds": int, "upscalingMode": ("Default", "Aggressive", "Conservative")},
    "headGroupSpec": {"rayStartParams": {str: str}, "template": PODS, "serviceType": str, "enableIngress": bool},
    "workerGroupSpecs": [
        {
            "groupName": str,
            "replicas": int,
            "minReplicas": int,
            "maxReplicas": int,
            "numOfHosts": int,
            "idleTimeoutSeconds": int,
            "rayStartParams": {str: str},
            "template": PODS,
        }
    ],
}

JOB: dict[str, Any] = {
    "entrypoint": str,
    "submissionMode": ("K8sJobMode", "HTTPMode", "InteractiveMode", "SidecarMode"),
    "backoffLimit": int,
    "activeDeadlineSeconds": int,
    "shutdownAfterJobFinishes": bool,
    "ttlSecondsAfterFinished": int,
    "runtimeEnvYAML": str,
    "entrypointNumCpus": float,
    "entrypointNumGpus": float,
    "rayClusterSpec": CLUSTER,
}

SERVICE: dict[str, Any] = {"serveConfigV2": str, "rayClusterConfig": CLUSTER}

RESOURCES = {"RayJob": JOB, "RayService": SERVICE}


def field_faults(value: Any, expected: Any, where: str = "spec") -> Iterator[str]:
    """What of a resource does not fit the fields, one sentence each."""
    if expected is PODS:
        return
    if isinstance(expected, dict) and str in expected:
        yield from (f"{where}.{key} is no text" for key, text in value.items() if not isinstance(text, str))
    elif isinstance(expected, dict):
        for key, inner in value.items():
            if key in expected:
                yield from field_faults(inner, expected[key], f"{where}.{key}")
            else:
                yield f"{where}.{key} is unknown"
    elif isinstance(expected, list):
        for number, inner in enumerate(value):
            yield from field_faults(inner, expected[0], f"{where}[{number}]")
    elif isinstance(expected, tuple):
        if value not in expected:
            yield f"{where} is {value!r}"
    elif type(value) is not expected:
        yield f"{where} is no {expected.__name__}"


def pod_specifications(resource: dict[str, Any]) -> list[dict[str, Any]]:
    """The specifications of the pods in a resource."""
    spec = resource["spec"]
    cluster = spec.get("rayClusterSpec") or spec["rayClusterConfig"]
    groups = [cluster["headGroupSpec"], *cluster["workerGroupSpecs"]]
    return [group["template"]["spec"] for group in groups]
