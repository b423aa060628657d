"""``facegender show-batch``: the picture of what a network sees while it learns."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from facegender.cli.verb import load_training, verb
from facegender.errors import OutputError


@verb(
    examples=(
        "facegender show-batch best internship_data.tar.gz -o batch.png",
        "facegender show-batch my_recipe.toml faces/ -o batch.png --pictures 64 --seed 3",
    )
)
def show_batch(
    recipe: Annotated[
        str, typer.Argument(metavar="RECIPE", help="best, fast, quick, classic, or a TOML file.")
    ],
    archives: Annotated[
        list[Path], typer.Argument(metavar="ARCHIVE...", help="Labelled pictures, as for train.")
    ],
    output: Annotated[
        Path,
        typer.Option("--output", "-o", metavar="FILE.png", help="Where the picture goes; new."),
    ],
    images: Annotated[int, typer.Option("--pictures", "-n", min=1, help="How many.")] = 32,
    table: Annotated[Path | None, typer.Option(metavar="FILE.csv", help="As for train.")] = None,
    seed: Annotated[
        int | None,
        typer.Option(
            min=0, help="Which pictures, and what is done to them.", show_default="the recipe's"
        ),
    ] = None,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="No progress.")] = False,
) -> int:
    """Show a training batch: cut, turned and changed as the recipe says, labels under it.

    The pictures go the very way of the training loop; only the normalisation is
    undone. Look at it before hours of training.
    """
    from facegender.files import atomic_write, check_distinct_paths, check_output_path

    if output.suffix.lower() != ".png":
        raise OutputError(f"cannot write {output}: name a .png file")
    given = {f"ARCHIVE {path}": path for path in archives}
    check_distinct_paths(given | {"RECIPE": Path(recipe), "--metadata": table, "--output": output})
    check_output_path(output)
    console = load_training("console").Console(quiet=quiet)
    chosen = load_training("recipe").read_recipe(recipe)
    with console.counting("looking through the archives") as count:
        sheet = load_training("show_batch").show_batch(
            chosen,
            archives,
            table,
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
