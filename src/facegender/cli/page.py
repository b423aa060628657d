"""``facegender page``: the network in the visitor's own browser."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

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
        typer.Option("--output", "-o", metavar="DIR", help="The folder; a new or an older page."),
    ],
    model: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE|RUN",
            help="A model file or run folder of your own.",
            show_default="the one shipped",
        ),
    ] = None,
    runtime: Annotated[
        str | None,
        typer.Option(
            metavar="npm|DIR|FILE.tgz",
            help="Where npm's onnxruntime-web is; 'npm' downloads it (33 MB).",
            show_default="node_modules here or above",
        ),
    ] = None,
) -> int:
    """Write a page that answers in the visitor's browser: no picture leaves it.

    A folder of plain files for any web server; nothing runs on the server. Without
    onnxruntime-web it says how to get it.
    """
    from facegender.model.model_file import read_model_file
    from facegender.web.static_site import check_folder, find_runtime, write_page

    check_folder(output)
    network = read_model_file(model)
    size = write_page(output, network, find_runtime(runtime))
    typer.echo(f"page:   {output} ({size / 1e6:.0f} MB)")
    typer.echo(f"try it: python -m http.server --directory {output} --bind 127.0.0.1")
    typer.echo("        and open http://127.0.0.1:8000")
    return 0
