"""``facegender show-batch``: an image of what a network is given in training."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from facegender.cli.options import Archives, Classes, Metadata, Quiet, check_exists
from facegender.cli.verb import load_training, verb
from facegender.errors import OutputError


@verb(
    examples=(
        "facegender show-batch best internship_data.tar.gz -o batch.png",
        "facegender show-batch my_recipe.toml faces/ -o batch.png --images 64 --seed 3",
    )
)
def show_batch(
    recipe: Annotated[
        str, typer.Argument(metavar="RECIPE", help="best, fast, quick, classic, or a TOML file.")
    ],
    archives: Archives,
    output: Annotated[
        Path,
        typer.Option("--output", "-o", metavar="FILE.png", help="The image to write; a new file."),
    ],
    images: Annotated[int, typer.Option("--images", "-n", min=1, help="Number of images.")] = 32,
    metadata: Metadata = None,
    classes: Classes = None,
    seed: Annotated[
        int | None,
        typer.Option(
            min=0, help="Seed of selection and augmentation.", show_default="the recipe's"
        ),
    ] = None,
    quiet: Quiet = False,
) -> int:
    """Show a training batch: cropped and augmented as the recipe says, with labels.

    The images are processed exactly as in training; only the normalization is
    undone. Look at it before a long training.
    """
    from facegender.files import atomic_write, check_distinct_paths, check_output_path

    if output.suffix.lower() != ".png":
        raise OutputError(f"Cannot write {output}: name a .png file.")
    given = {f"ARCHIVE {path}": path for path in archives}
    paths = {"RECIPE": Path(recipe), "--metadata": metadata, "--output": output}
    check_distinct_paths(given | paths)
    check_output_path(output)
    check_exists(archives, metadata=metadata)
    console = load_training("console").Console(quiet=quiet)
    chosen = load_training("recipe").read_recipe(recipe)
    with console.counting("Reading archives") as count:
        sheet = load_training("show_batch").show_batch(
            chosen,
            archives,
            metadata,
            classes=load_training("data.label_folders").parse_classes(classes),
            count=images,
            seed=seed,
            on_image=count,
            on_skip=console.skipped,
        )
    with atomic_write(output) as file:
        sheet.save(file.buffer, "PNG")
    if not quiet:
        typer.echo(f"batch: {output}")
    return 0
