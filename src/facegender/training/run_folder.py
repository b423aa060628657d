"""The run folder: the request of a run, and the names of the files in the folder."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from facegender.errors import InputError, OutputError
from facegender.files import OWN_FILE_PREFIX, atomic_write, check_output_path, write_json
from facegender.model.model_file import MODEL_NAME
from facegender.training.data.duplicate_groups import DUPLICATE_GROUPS_NAME
from facegender.training.data.image_cache import cache_folder
from facegender.training.data.split import SPLIT_NAME
from facegender.training.recipe import Recipe, read_recipe, write_toml
from facegender.training.renamed import REQUEST_KEYS, refuse_renamed

CONFIG_NAME = "config.toml"
REQUEST_NAME = "run.json"
METRICS_NAME = "metrics.json"
SAVED_MODEL_NAME = "saved_model"
AUDIT_FOLDER = "audit"
ENSEMBLE_FOLDER = "ensemble"

_FINISHED_FILES = (
    MODEL_NAME,
    SAVED_MODEL_NAME,
    SPLIT_NAME,
    REQUEST_NAME,
    CONFIG_NAME,
    METRICS_NAME,
)
_LEFT_BY_A_FAILED_START = frozenset({SPLIT_NAME, CONFIG_NAME, AUDIT_FOLDER})


@dataclass(frozen=True, slots=True)
class TrainRequest:
    """What a run is asked to do, besides its recipe; stored in ``run.json`` for ``--resume``.

    Attributes:
        inputs: paths of archives or folders.
        metadata: path of the metadata table.
        split: path of the split of another run.
        corrections: path of corrected labels for training and validation.
        teacher: path of another network's predictions, for ``train.distillation_weight``.
        audit: folder of an audit: its duplicate groups are not divided by the split, and images
            that it leaves out are left out of training and validation. None makes an audit, ""
            makes none.
        validation: fraction of the images for validation.
        test: fraction of the images for test.
        pretrained: initial weights instead of the recipe's: ``none``, ``dlib``, ``timm``,
            ``shipped`` or a file.
        open_networks: folder of the published network of the recipe's ensemble.
        devices: number of devices; None takes all CUDA devices, or the CPU.
        tensorboard: whether curves are written for TensorBoard too.
        license: license of the weights, for the model file.
        terms: terms of the data, for the model file.
        classes: folder names of the labels, such as ``female=Women,male=Men``; "" is male and
            female.
    """

    inputs: tuple[str, ...]
    metadata: str | None = None
    split: str | None = None
    corrections: str | None = None
    teacher: str | None = None
    audit: str | None = None
    validation: float = 0.2
    test: float = 0.0
    pretrained: str | None = None
    open_networks: str | None = None
    devices: int | None = None
    tensorboard: bool = False
    license: str = ""
    terms: str = ""
    classes: str = ""


def open_run(
    request: TrainRequest | None,
    recipe: Recipe | None,
    folder: Path,
    resume: bool,
    *,
    is_main: bool = True,
) -> tuple[TrainRequest, Recipe]:
    """Create a run folder, or read the request and recipe of the run in it.

    Args:
        request: of a new run; not used for a resume.
        recipe: of a new run; not used for a resume.
        folder: the run folder.
        resume: read the run that is in the folder.
        is_main: whether this is the main process. The others do not check that the folder is
            free, because the main process may have written to it already.

    Raises:
        InputError: no run to resume, no inputs, or another run is in the folder.
        OutputError: the folder cannot be written.
    """
    if resume:
        return _read_request(folder), read_recipe(folder / CONFIG_NAME)
    if request is None or recipe is None or not request.inputs:
        raise InputError("No input. Name at least one archive or folder of labeled images.")
    if is_main and (folder / REQUEST_NAME).exists():
        raise InputError(
            f"{folder} already contains a run. Choose another --output, or continue it with "
            "--resume."
        )
    for item in request.inputs:
        if not Path(item).exists():
            raise InputError(f"{item} does not exist. Check the path of the folder or archive.")
    _make_folder(folder)
    return request, recipe


@contextmanager
def remove_if_empty(folder: Path) -> Iterator[None]:
    """Remove the folders that a run which failed to start has created, if they are empty."""
    created = [
        path
        for path in (cache_folder(folder), folder.absolute(), *folder.absolute().parents)
        if not path.exists()
    ]
    try:
        yield
    except BaseException:
        with suppress(OSError):  # the first that is not empty
            for path in created:
                if path.exists():
                    path.rmdir()
        raise


def _read_request(folder: Path) -> TrainRequest:
    """Read the request of a run.

    Raises:
        InputError: there is none, or an earlier version wrote it.
    """
    path = folder / REQUEST_NAME
    try:
        stored = json.loads(path.read_text(encoding="utf-8"))
        refuse_renamed(path, stored, REQUEST_KEYS)
        return TrainRequest(**(stored | {"inputs": tuple(stored["inputs"])}))
    except (OSError, ValueError, TypeError, KeyError) as error:
        raise InputError(
            f"{folder} contains no run to resume ({error}). A run that stopped before training "
            "started has no checkpoint: start it again without --resume."
        ) from error


def _make_folder(folder: Path) -> None:
    """Create the run folder and check, before any work, that it and the cache can be written.

    Raises:
        OutputError: they cannot, or the folder contains other files.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        found = {item.name for item in folder.iterdir()} - _LEFT_BY_A_FAILED_START
        if foreign := sorted(name for name in found if not name.startswith(OWN_FILE_PREFIX)):
            raise OutputError(
                f"{folder} contains other files ({', '.join(foreign[:3])}). Name a new folder."
            )
        cache_folder(folder).mkdir(exist_ok=True)
    except OSError as error:
        raise OutputError(f"Cannot write to {folder}: {error.strerror}") from error
    check_output_path(folder / REQUEST_NAME)
    check_output_path(cache_folder(folder) / REQUEST_NAME)


def record_request(request: TrainRequest, recipe: Recipe, folder: Path) -> None:
    """Write ``run.json`` and ``config.toml``, after everything was checked.

    Until then the same folder can be used again with a corrected request. Files that may be edited
    later (corrections, a teacher's predictions, duplicate groups) are copied, so that a resume
    uses the same.

    Raises:
        OutputError: the folder cannot be written.
    """
    try:
        request = replace(
            request,
            corrections=_copy(request.corrections, folder / "corrections.csv"),
            teacher=_copy(request.teacher, folder / "teacher.csv"),
        )
        audit = (folder / AUDIT_FOLDER).absolute()
        if request.audit and Path(request.audit) != audit:
            audit.mkdir(exist_ok=True)
            groups = Path(request.audit) / DUPLICATE_GROUPS_NAME
            _copy(str(groups), audit / DUPLICATE_GROUPS_NAME)
            request = replace(request, audit=str(audit))
        with atomic_write(folder / CONFIG_NAME) as file:
            file.write(write_toml(recipe))
        write_json(folder / REQUEST_NAME, asdict(request))
    except OSError as error:
        raise OutputError(f"Cannot write to {folder}: {error.strerror}") from error


def _copy(given: str | None, to: Path) -> str | None:
    """Copy a file, if one was given, and return the path of the copy."""
    if not given:
        return given
    with atomic_write(to) as file:
        file.buffer.write(Path(given).read_bytes())
    return str(to.absolute())


def protected_files(folder: Path) -> list[Path]:
    """Return the files of a run and of its inputs, which must not be overwritten."""
    request, _ = open_run(None, None, folder, resume=True)
    tables = (request.metadata, request.split, request.corrections, request.teacher)
    given = [*request.inputs, *filter(None, tables)]
    if request.audit:
        given.append(str(Path(request.audit) / DUPLICATE_GROUPS_NAME))
    return [*map(Path, given), *(folder / name for name in _FINISHED_FILES)]
