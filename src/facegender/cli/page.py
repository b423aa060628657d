"""``facegender page``: a static site that classifies images in the visitor's browser."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import Annotated

import typer

from facegender.cli.options import Model
from facegender.cli.verb import verb


@verb(
    examples=(
        "facegender page -o site --runtime npm",
        "facegender page -o site --model runs/mine --runtime node_modules/onnxruntime-web",
    )
)
def page(
    output: Annotated[
        Path,
        typer.Option(
            "--output", "-o", metavar="DIR", help="A new folder, or one with an earlier site."
        ),
    ],
    model: Model = None,
    runtime: Annotated[
        str | None,
        typer.Option(
            metavar="npm|DIR|FILE.tgz",
            help="Where npm's onnxruntime-web is; 'npm' downloads it (33 MB).",
            show_default="node_modules here or above",
        ),
    ] = None,
) -> int:
    """Write a web page that classifies images in the visitor's browser.

    No image leaves the browser. The folder has static files for any web server.
    Without onnxruntime-web, the error says how to get it.
    """
    from facegender.model.model_file import read_model_file
    from facegender.web.static_site import check_folder, find_runtime, write_site

    check_folder(output)
    network = read_model_file(model)
    words = ["facegender", "page", "-o", str(output)]
    command = shlex.join(words if model is None else [*words, "--model", str(model)])
    size = write_site(output, network, find_runtime(runtime, command))
    typer.echo(f"Site: {output} ({size / 1e6:.0f} MB)")
    typer.echo(f"Try it: python -m http.server --directory {output} --bind 127.0.0.1")
    typer.echo("and open http://127.0.0.1:8000")
    return 0
