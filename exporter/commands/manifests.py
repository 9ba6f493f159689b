"""The group ``manifests``: files that run an artifact in containers and clusters."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from exporter.commands import streams, terminal
from exporter.commands.command import OUTPUT, Group, NameChoice, OptionSection, stack_options
from exporter.commands.options import artifact_argument, force_option
from exporter.commands.terminal import debug_option
from exporter.commands.values import COUNT, CountRange, OutputFile

if TYPE_CHECKING:
    from exporter.deploy.cluster.deployment import Deployment

CONTAINER = OptionSection("Container")
CLUSTER = OptionSection("Cluster")

Command = Callable[..., Any]


def manifests_group(heading: str) -> Group:
    """The group, under that heading in the list of commands."""
    return Group(
        "manifests",
        heading=heading,
        help="Write files that run an artifact in containers and clusters.\n\n"
        "The tests of rexport check such files against published schemas; each file says against which. Nothing is "
        "applied, built or started.",
        examples=(
            "rexport manifests dockerfile resnet20.onnx -o Dockerfile",
            "rexport manifests kserve resnet20.onnx --image example.org/resnet20:1",
        ),
        commands=[kserve, rayservice, rayjob, compose, dockerfile],
    )


def _container_options(image: str) -> Callable[[Command], Command]:
    """The options of every container; ``image`` says what its default is."""
    return stack_options(
        CONTAINER.option("--image", metavar="NAME:TAG", show_default=image, help="Image of the container."),
        CONTAINER.option(
            "--name",
            metavar="NAME",
            show_default="the name of the network",
            help="Name of the resource: lower-case letters, digits and hyphens.",
        ),
        CONTAINER.option("--cpus", type=COUNT, default=2, metavar="N", help="Processors of a container."),
        CONTAINER.option(
            "--memory",
            metavar="SIZE",
            show_default="from the size of the model file",
            help="Memory of a container, for example 2Gi.",
        ),
        CONTAINER.option(
            "--gpus", type=click.IntRange(0, 1024), default=0, metavar="N", help="NVIDIA GPUs of a container."
        ),
    )


_secret_option = CLUSTER.option(
    "--secret",
    metavar="NAME",
    show_default="none",
    help="Secret whose entries become environment variables, for example the keys of an object store.",
)
_claim_option = CLUSTER.option(
    "--claim", metavar="NAME", show_default="none", help="PersistentVolumeClaim that is mounted at /data."
)
_replicas_option = CLUSTER.option(
    "--replicas",
    type=CountRange(),
    default="1",
    metavar="N|N..M",
    help="Number of servers, or the smallest and the largest number.",
)
_out_option = OUTPUT.option(
    "-o",
    "--out",
    type=OutputFile(allow_dash=True),
    metavar="FILE",
    show_default="standard output",
    help="File to write; - is standard output.",
)
_output_options = stack_options(_out_option, force_option, debug_option)


@click.command(
    "kserve",
    cls=Group.command_class,
    heading="Clusters",
    examples=(
        "rexport manifests kserve resnet20.onnx --image example.org/resnet20:1",
        "rexport manifests kserve resnet20.onnx --predictor triton --storage-uri s3://r",
    ),
)
@artifact_argument
@CLUSTER.option(
    "--predictor",
    type=NameChoice(("rexport", "triton")),
    default="rexport",
    help="Server: rexport serve in your image, or KServe's Triton with a repository from rexport triton.",
)
@CLUSTER.option(
    "--storage-uri",
    metavar="URI",
    show_default="the artifact is in the image",
    help="Address that KServe fetches the artifact or the repository from.",
)
@_replicas_option
@CLUSTER.option(
    "--max-batch",
    type=click.IntRange(1, 4096),
    metavar="N",
    show_default="that of rexport serve",
    help="Largest number of images that run at once.",
)
@_secret_option
@_container_options("NAME:DIGEST, to be tagged with your registry")
@_output_options
def kserve(artifact: Path, **options: Any) -> None:
    """Write an InferenceService of KServe.

    The server speaks the Open Inference Protocol V2 over HTTP. Its readiness ends before it stops.
    """
    with terminal.reserve_stdout():
        from exporter.deploy.cluster.kserve import KServeSettings, inference_service

        least, most = options["replicas"]
        settings = KServeSettings(options["predictor"], options["storage_uri"], least, most, options["max_batch"])
        deployment = _deployment(artifact, options, announce_image=options["predictor"] == "rexport")
        text = inference_service(deployment, settings)
    _deliver(text, options)


@click.command(
    "rayservice",
    cls=Group.command_class,
    heading="Clusters",
    examples=(
        "rexport manifests rayservice resnet20.onnx --image net-ray:1 --replicas 2..8",
        "rexport manifests rayservice resnet20.onnx --gpus 1 -o service.yaml",
    ),
)
@artifact_argument
@_replicas_option
@CLUSTER.option(
    "--queue",
    type=click.IntRange(1, 1_000_000),
    default=256,
    metavar="N",
    help="Number of requests that wait at each proxy; further ones are refused with 503.",
)
@_secret_option
@_claim_option
@_container_options("NAME:DIGEST, to be tagged with your registry")
@_output_options
def rayservice(artifact: Path, queue: int, **options: Any) -> None:
    """Write a RayService of KubeRay: rexport serve --ray on a cluster.

    The image comes from rexport manifests dockerfile --ray.
    """
    with terminal.reserve_stdout():
        from exporter.deploy.cluster.rayservice import Replicas, ray_service

        least, most = options["replicas"]
        text = ray_service(_deployment(artifact, options), Replicas(least, most, queue))
    _deliver(text, options)


@click.command(
    "rayjob",
    cls=Group.command_class,
    heading="Clusters",
    examples=(
        "rexport manifests rayjob resnet20.onnx s3://photos s3://labels --secret s3",
        "rexport manifests rayjob resnet20.onnx /data/photos /data/out --claim disk",
    ),
)
@artifact_argument
@click.argument("source", metavar="SOURCE", help="Images, as for rexport label: an address, or a path below /data.")
@click.argument("labels", metavar="LABELS", help="Folder of the labels: an address, or a path below /data.")
@CLUSTER.option(
    "--workers",
    type=click.IntRange(1, 4096),
    default=2,
    metavar="N",
    help="Number of workers, each in a pod of its own.",
)
@_secret_option
@_claim_option
@_container_options("NAME:DIGEST, to be tagged with your registry")
@_output_options
def rayjob(artifact: Path, source: str, labels: str, workers: int, **options: Any) -> None:
    """Write a RayJob of KubeRay: rexport label --ray on a cluster.

    The image comes from rexport manifests dockerfile --ray. The cluster starts for the job and ends with it.
    """
    with terminal.reserve_stdout():
        from exporter.deploy.cluster.rayjob import LabelJob, ray_job

        text = ray_job(_deployment(artifact, options), LabelJob(source, labels, workers))
    _deliver(text, options)


@click.command(
    "compose",
    cls=Group.command_class,
    heading="Containers",
    examples=(
        "rexport manifests compose resnet20.onnx -o compose.yaml",
        "rexport manifests compose resnet20.onnx --port 9000 --cpus 4 --memory 4Gi",
    ),
)
@artifact_argument
@CONTAINER.option(
    "--port",
    type=click.IntRange(1, 65535),
    default=8000,
    metavar="N",
    help="Port of the server on the loopback address of this machine.",
)
@_container_options("NAME:DIGEST")
@_output_options
def compose(artifact: Path, port: int, **options: Any) -> None:
    """Write a Compose file for one machine.

    The image is built from the Dockerfile beside it, which rexport manifests dockerfile writes.
    """
    with terminal.reserve_stdout():
        from exporter.deploy.cluster.compose import compose_file

        text = compose_file(_deployment(artifact, options, announce_image=False), port)
    _deliver(text, options)


@click.command(
    "dockerfile",
    cls=Group.command_class,
    heading="Containers",
    examples=(
        "rexport manifests dockerfile resnet20.onnx -o Dockerfile",
        "rexport manifests dockerfile resnet20.onnx --gpu --ray -o Dockerfile.ray",
    ),
)
@artifact_argument
@CONTAINER.option("--gpu", is_flag=True, help="Install the inference library for NVIDIA GPUs.")
@CONTAINER.option("--ray", is_flag=True, help="Build on an image of Ray, for rayservice and rayjob.")
@CONTAINER.option(
    "--base",
    metavar="IMAGE",
    show_default="python or rayproject/ray with this version of Python",
    help="Base image, for example with the digest that you trust.",
)
@CONTAINER.option("--image", metavar="NAME:TAG", show_default="NAME:DIGEST", help="Image that the build is named.")
@_output_options
def dockerfile(artifact: Path, gpu: bool, ray: bool, base: str | None, **options: Any) -> None:
    """Write a Dockerfile with the artifact and pinned libraries.

    The process has no privileges and a health check. The versions are those that are installed here.
    """
    with terminal.reserve_stdout():
        from exporter.deploy.cluster.dockerfile import ImageSettings
        from exporter.deploy.cluster.dockerfile import dockerfile as text_of

        sizes = {"name": None, "cpus": 1, "memory": None, "gpus": int(gpu)}
        deployment = _deployment(artifact, {**sizes, **options}, announce_image=False, announce_memory=False)
        text = text_of(deployment, ImageSettings(gpu, ray, base))
    _deliver(text, options)


def _deployment(
    path: Path, options: dict[str, Any], announce_image: bool = True, announce_memory: bool = True
) -> Deployment:
    """The artifact and its containers; what is assumed is printed."""
    from exporter.deploy.cluster.deployment import Deployment, Resources, default_memory, default_name
    from runtimes import Artifact
    from runtimes.errors import Reason

    artifact = Artifact.read(path)
    name = default_name(artifact) if options["name"] is None else options["name"]
    digest = "latest" if artifact.manifest is None else artifact.manifest.sha256[:12]
    image = f"{name}:{digest}" if options["image"] is None else options["image"]
    memory = default_memory(artifact) if options["memory"] is None else options["memory"]
    deployment = Deployment(
        artifact,
        name,
        image,
        Resources(options["cpus"], memory, options["gpus"]),
        options.get("secret"),
        options.get("claim"),
    )
    if options["image"] is None and announce_image:
        terminal.print_notice(
            Reason("image-assumed", f"assumed --image {image}; a cluster needs the name of your registry before it")
        )
    if options["memory"] is None and announce_memory:
        terminal.print_notice(Reason("memory-assumed", f"assumed --memory {memory}, from the size of the model file"))
    return deployment


def _deliver(text: str, options: dict[str, Any]) -> None:
    """Prints the text, or writes it to the file that is asked for and prints its path."""
    out: Path | None = options["out"]
    if out is None or out == Path("-"):
        streams.print_result(text, newline=False)
        return
    from runtimes.files import require_folder, write_atomically

    require_folder(out.parent)
    with write_atomically(out, options["force"]) as temporary:
        temporary.write_text(text, encoding="utf-8")
    streams.print_path(out)
