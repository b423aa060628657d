"""Options that several verbs share, each declared once."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Annotated, TypeAlias

import typer

from facegender.errors import InputError

Quiet: TypeAlias = Annotated[
    bool, typer.Option("--quiet", "-q", help="No progress bar and no summary.")
]
Model: TypeAlias = Annotated[
    Path | None,
    typer.Option(
        metavar="best|fast|open|FILE|RUN",
        help="best: the most accurate. fast: smaller. open: for any use. Or a model file or run "
        "folder of your own.",
        show_default="best",
    ),
]
Faces: TypeAlias = Annotated[
    str,
    typer.Option(
        metavar="auto|detect|whole",
        help="detect: find every face. whole: take each image as one face. "
        "auto: find faces, and in close-ups ignore extra detections.",
    ),
]
MinConfidence: TypeAlias = Annotated[
    float | None,
    typer.Option(
        metavar="P",
        min=0.5,
        max=1.0,
        help="Answers with a lower probability are 'unknown'.",
        show_default="the model's own",
    ),
]
Runtime: TypeAlias = Annotated[
    str,
    typer.Option(
        metavar="auto|onnxruntime|openvino|cuda|tensorrt",
        help="What runs the network. auto: CUDA if it is installed, else OpenVINO if it is "
        "installed and faster, else ONNX Runtime.",
    ),
]
MaxPixels: TypeAlias = Annotated[
    int | None,
    typer.Option(metavar="N", min=1, help="Maximum pixels per image.", show_default="179e6"),
]
MaxBytes: TypeAlias = Annotated[
    int | None,
    typer.Option(metavar="N", min=1, help="Maximum bytes per file.", show_default="1 GiB"),
]
Timeout: TypeAlias = Annotated[
    float, typer.Option(metavar="SECONDS", min=0.1, help="Maximum time to read one image.")
]
Archives: TypeAlias = Annotated[
    list[Path],
    typer.Argument(
        metavar="ARCHIVE...",
        help="Folders, .tar, .tar.gz or .zip files with male/ and female/ anywhere inside.",
    ),
]
Metadata: TypeAlias = Annotated[
    Path | None,
    typer.Option(
        metavar="FILE.csv",
        help="Joined on its column 'file': person, source, age, race; 'label' replaces the "
        "folder's label.",
    ),
]
Classes: TypeAlias = Annotated[
    str | None,
    typer.Option(
        metavar="LABEL=FOLDER,...",
        help="Folder names of the labels, such as female=Women,male=Men.",
        show_default="female=female,male=male",
    ),
]
Corrections: TypeAlias = Annotated[
    Path | None,
    typer.Option(
        metavar="FILE.csv",
        help="Corrected labels: sha256 and label; an empty label leaves the image out. Lines "
        "whose column 'reviewed' is empty apply to training only.",
    ),
]


def check_exists(archives: Iterable[Path], **options: Path | None) -> None:
    """Check, before large packages are loaded, that all inputs are there.

    Args:
        archives: archives or folders.
        options: further inputs by the name of their option; None is not given.

    Raises:
        InputError: one is not.
    """
    for path in archives:
        if not path.exists():
            raise InputError(f"{path} does not exist. Check the path of the folder or archive.")
    for name, file in options.items():
        if file is not None and not file.exists():
            raise InputError(f"--{name.replace('_', '-')}: {file} does not exist. Check the path.")
