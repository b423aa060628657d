"""The run folder: what a run was asked for, and the names of the files it leaves."""

from __future__ import annotations

import json
import os
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from facegender.errors import InputError, OutputError
from facegender.files import OWN_FILE_PREFIX, atomic_write, check_output_path, write_json
from facegender.model.model_file import MODEL_NAME
from facegender.training.data.duplicate_groups import DUPLICATE_GROUPS_NAME
from facegender.training.data.image_cache import cache_folder
from facegender.training.data.split import SPLIT_NAME
from facegender.training.recipe import Recipe, read_recipe, write_toml

CONFIG_NAME = "config.toml"
REQUEST_NAME = "run.json"
METRICS_NAME = "metrics.json"
SAVED_MODEL_NAME = "saved_model"
AUDIT_FOLDER = "audit"

# What a run that failed at its start may have left in its folder.
_FINISHED_FILES = (
    MODEL_NAME,
    SAVED_MODEL_NAME,
    SPLIT_NAME,
    REQUEST_NAME,
    CONFIG_NAME,
    METRICS_NAME,
)
_RUN_FILES = frozenset({SPLIT_NAME, CONFIG_NAME, AUDIT_FOLDER})


@dataclass(frozen=True, slots=True)
class TrainRequest:
    """What a run was asked to do, besides its recipe; kept in ``run.json`` for ``--resume``.

    ``corrections``: a list of corrected labels for training and validation.
    ``audit``: the folder of an audit, whose groups of copies stay on one side of the split and
    whose pictures to leave out are left out of training and validation; None audits first, ""
    does not.
    ``teacher``: a table of another network's scores, for the recipe's ``distill``.
    ``start``: overrides the recipe's starting weights (``none``, ``dlib``, ``timm`` or a file).
    ``tensorboard``: whether curves are written for TensorBoard too.
    ``licence`` and ``terms`` are written into the model file.
    """

    inputs: tuple[str, ...]
    table: str | None = None
    split: str | None = None
    corrections: str | None = None
    teacher: str | None = None
    audit: str | None = None
    validation: float = 0.2
    test: float = 0.0
    pretrained: str | None = None
    devices: int | None = None
    tensorboard: bool = False
    license: str = ""
    terms: str = ""


def open_run(
    request: TrainRequest | None, recipe: Recipe | None, folder: Path, resume: bool
) -> tuple[TrainRequest, Recipe]:
    """Make a run folder, or read what the run in it was asked for."""
    if resume:
        try:
            stored = json.loads((folder / REQUEST_NAME).read_text(encoding="utf-8"))
            request = TrainRequest(**(stored | {"inputs": tuple(stored["inputs"])}))
        except (OSError, ValueError, TypeError, KeyError) as error:
            raise InputError(
                f"{folder} holds no run to resume ({error}). A run that was stopped while it read "
                "pictures has kept nothing: start it again without --resume"
            ) from error
        return request, read_recipe(folder / CONFIG_NAME)
    if request is None or recipe is None or not request.inputs:
        raise InputError("name at least one archive or folder of labelled pictures")
    rank = os.environ.get("RANK", os.environ.get("LOCAL_RANK", "0"))
    if (folder / REQUEST_NAME).exists() and int(rank) == 0:
        raise InputError(
            f"{folder} holds a run already: choose another --output, or go on with it by --resume"
        )
    _make_folder(folder)
    return request, recipe


def _make_folder(folder: Path) -> None:
    """Make the run folder and see, before any work, that it and the store can be written.

    Raises:
        OutputError: they cannot, or the folder holds other things.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        found = [item.name for item in folder.iterdir() if item.name not in _RUN_FILES]
        if foreign := [name for name in found if not name.startswith(OWN_FILE_PREFIX)]:
            raise OutputError(
                f"{folder} holds other files ({', '.join(sorted(foreign)[:3])}): name a new folder"
            )
        cache_folder(folder).mkdir(exist_ok=True)
    except OSError as error:
        raise OutputError(f"cannot write into {folder}: {error.strerror}") from error
    check_output_path(folder / REQUEST_NAME)
    check_output_path(cache_folder(folder) / REQUEST_NAME)


def record_request(request: TrainRequest, recipe: Recipe, folder: Path) -> None:
    """Write down what was asked for, once it is known that it can be done.

    Before that, the same folder may be given again with the mistake put right. Lists that may be
    edited later (corrections, a teacher's scores, what an audit leaves out) are copied, so that a
    resume learns from the same.
    """
    try:
        request = replace(
            request,
            corrections=_copied(request.corrections, folder / "corrections.csv"),
            teacher=_copied(request.teacher, folder / "teacher.csv"),
        )
        place = (folder / AUDIT_FOLDER).absolute()
        if request.audit and Path(request.audit) != place:
            place.mkdir(exist_ok=True)
            _copied(str(Path(request.audit) / DUPLICATE_GROUPS_NAME), place / DUPLICATE_GROUPS_NAME)
            request = replace(request, audit=str(place))
        with atomic_write(folder / CONFIG_NAME) as file:
            file.write(write_toml(recipe))
        write_json(folder / REQUEST_NAME, asdict(request))
    except OSError as error:
        raise OutputError(f"cannot write into {folder}: {error.strerror}") from error


def _copied(given: str | None, to: Path) -> str | None:
    if not given:
        return given
    with atomic_write(to) as file:
        file.buffer.write(Path(given).read_bytes())
    return str(to.absolute())


def protected_files(folder: Path) -> list[Path]:
    """Give the files that a run needs and was made from, which nothing may be written over."""
    request, _ = open_run(None, None, folder, resume=True)
    lists = (request.table, request.split, request.corrections, request.teacher)
    given = [*request.inputs, *filter(None, lists)]
    if request.audit:
        given.append(str(Path(request.audit) / DUPLICATE_GROUPS_NAME))
    return [*map(Path, given), *(folder / name for name in _FINISHED_FILES)]
