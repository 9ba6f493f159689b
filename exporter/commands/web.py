"""The command ``web``: a page that labels images in a browser."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from exporter.commands import streams, terminal
from exporter.commands.command import OUTPUT, RUNTIME, SectionedCommand
from exporter.commands.options import activation_option, artifact_argument, force_option, labels_option
from exporter.commands.preprocessing_options import preprocessing_of, preprocessing_options
from exporter.commands.terminal import debug_option
from exporter.commands.values import OutputPath


def web_command(heading: str) -> SectionedCommand:
    """The command, which stands under this heading."""

    @click.command(
        "web",
        cls=SectionedCommand,
        heading=heading,
        examples=(
            "rexport web resnet20.onnx -o site/",
            "rexport web resnet20.onnx --sample shoe.jpg -o page.html",
        ),
    )
    @artifact_argument
    @labels_option("those of the model")
    @activation_option("that of the model")
    @preprocessing_options("that of the model")
    @RUNTIME.option(
        "--onnxruntime-web",
        "runtime",
        type=click.Path(path_type=Path, exists=True),
        metavar="DIR|FILE.tgz",
        show_default="npm downloads it once",
        help="ONNX Runtime Web: a folder with onnxruntime-web or its dist, or the archive that npm pack writes.",
    )
    @OUTPUT.option(
        "--sample",
        "samples",
        type=click.Path(path_type=Path, dir_okay=False),
        multiple=True,
        metavar="IMAGE",
        show_default="test images for a network of Fashion-MNIST, else none",
        help="Image to try on the page. The option can be repeated.",
    )
    @OUTPUT.option(
        "-o",
        "--out",
        type=OutputPath(),
        metavar="DIR/|FILE.html",
        default="site/",
        help="Folder of the page for a web server; or one file, which also opens from a disk.",
    )
    @force_option
    @debug_option
    def web(artifact: Path, **options: Any) -> None:
        """Write a page that labels images in the visitor's browser, and print its path.

        The page needs no server but one for files, and connects to nothing else: ONNX Runtime Web runs ARTIFACT on the
        visitor's machine. Images are prepared there as the manifest says. Before its first image, the page compares
        its logits of a test vector with PyTorch's. A model with the output cam has heat maps.
        """
        with terminal.reserve_stdout(), terminal.listening() as listener:
            from exporter.deploy.web import SiteRequest, write_site

            same = ("out", "runtime", "labels", "samples", "force", "activation")
            request = SiteRequest(
                artifact, preprocessing=preprocessing_of(options), **{name: options[name] for name in same}
            )
            page = write_site(request, listener)
        streams.print_path(page)

    return web
