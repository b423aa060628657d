r"""Result rows, and the plain file that they go to: ``process_results.json``.

Every file is written under a temporary name beside its place and renamed when it is whole.
Names that are no valid Unicode (Linux allows any bytes) are written with JSON's own escapes of
their surrogates, such as ``\udcff``: Python's ``json`` reads them back to the very same name.
"""

from __future__ import annotations

import json
import secrets
from collections.abc import Iterable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from dataclasses import asdict, dataclass
from enum import StrEnum
from glob import escape
from os.path import realpath
from pathlib import Path
from types import TracebackType
from typing import Any, TextIO

from natsort import natsort_keygen, natsorted

from facegender.errors import OutputError, UnreadablePictureError
from facegender.images import read_file


class Status(StrEnum):
    """What became of a picture or of a face in it. The set is closed.

    ``ok``: answered. ``unknown``: a face, but the probability is below the threshold (or both
    labels are equally probable). ``no_face``: a picture in which no face was found.
    ``unreadable``: it cannot be read whole; the row's ``error`` says why. ``skipped``: no picture
    by suffix and content; counted, not an error, and not part of any result file.
    """

    OK = "ok"
    UNKNOWN = "unknown"
    NO_FACE = "no_face"
    UNREADABLE = "unreadable"
    SKIPPED = "skipped"


@dataclass(frozen=True, slots=True)
class Box:
    """Where in the upright picture an answer was read from, in pixels from the top left.

    Attributes:
        x: its left side.
        y: its upper side.
        width: 1 or more.
        height: likewise.
    """

    x: int
    y: int
    width: int
    height: int

    def __post_init__(self) -> None:
        """Refuse a box without pixels.

        Raises:
            ValueError: width or height below 1.
        """
        if self.width < 1 or self.height < 1:
            raise ValueError(f"a box of {self.width}x{self.height} pixels holds nothing")


@dataclass(frozen=True, slots=True)
class Prediction:
    """One row: the answer for one face, or for a picture without an answer.

    Example:
        >>> box = Box(12, 20, 60, 80)
        >>> row = Prediction(
        ...     "a.jpg", Status.OK, 0, "male", 0.9731, box, 0.91, "aligned", 90, 120
        ... )
        >>> row.label, row.to_dict()["status"]
        ('male', 'ok')

    Attributes:
        file: the picture's name, or its path inside the folder with ``/``; None for pixels.
        status: what became of it.
        face: index of the face in the picture, from 0; None where there is no face.
        label: ``male`` or ``female``, with ``unknown`` the better guess; None without a face.
        probability: of that label, 0.5 to 1, four places.
        box: where the face is; the whole picture where it was taken whole.
        score: how sure the face detector was, 0 to 1, two places; None where it was not asked.
        crop: ``aligned`` where the face was found, cut out and turned upright, ``whole`` where the
            picture was taken as it is; None without a face.
        width: of the upright picture in pixels; None where it could not be read.
        height: likewise.
        error: why there is no answer; None where there is one.
    """

    file: str | None
    status: Status
    face: int | None = None
    label: str | None = None
    probability: float | None = None
    box: Box | None = None
    score: float | None = None
    crop: str | None = None
    width: int | None = None
    height: int | None = None
    error: str | None = None

    def __post_init__(self) -> None:
        """Refuse a row that says two things at once.

        Raises:
            ValueError: fields that do not fit the status.
        """
        has_face = self.status in (Status.OK, Status.UNKNOWN)
        if (self.label in ("male", "female")) != has_face or (self.label is not None) != has_face:
            raise ValueError(f"label {self.label!r} does not fit status {self.status}")
        if (self.crop in ("aligned", "whole")) != has_face:
            raise ValueError(f"crop {self.crop!r} does not fit status {self.status}")
        if has_face != (self.probability is not None) or has_face != (self.face is not None):
            raise ValueError(f"status {self.status} with face {self.face}, {self.probability=}")
        if self.probability is not None and not 0.5 <= self.probability <= 1.0:
            raise ValueError(f"probability {self.probability} is not within 0.5 to 1")
        if (self.width is None) != (self.height is None) or (has_face and self.box is None):
            raise ValueError(f"{self.width=}, {self.height=}, {self.box=} do not fit together")
        if (self.status == Status.UNREADABLE) != (self.error is not None):
            raise ValueError(f"status {self.status} with error {self.error!r}")

    def to_dict(self) -> dict[str, Any]:
        """Give the row as plain values, in the order of the details file."""
        return {
            "file": self.file,
            "face": self.face,
            "status": self.status.value,
            "label": self.label,
            "probability": self.probability,
            "box": None if self.box is None else asdict(self.box),
            "score": self.score,
            "crop": self.crop,
            "width": self.width,
            "height": self.height,
            "error": self.error,
        }

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Prediction:
        """Read a row back from :meth:`to_dict`'s form.

        Raises:
            KeyError, TypeError, ValueError: it is none.
        """
        box = values["box"]
        return cls(
            **{
                **values,
                "status": Status(values["status"]),
                "box": None if box is None else Box(**box),
            }
        )


class ProcessResultsWriter(AbstractContextManager["ProcessResultsWriter"]):
    """Writes ``{"photo.jpg": "male", ...}``, in natural order of names, when all rows are there.

    Of several faces in one picture the first counts, the one that the picture shows. Only names
    and labels are kept in memory.
    """

    def __init__(self, path: Path, *, has_unknown: bool = False) -> None:
        """Choose the file; an older one is replaced once the new one is whole.

        Args:
            path: where to.
            has_unknown: write ``unknown`` instead of the better guess where an answer is less
                sure than the threshold.
        """
        self._replacing = replacing(path)
        self._has_unknown = has_unknown
        self._answers: dict[str, str] = {}
        self._key = natsort_keygen()
        self._last: tuple[Any, str] | None = None
        self._is_in_order = True
        self._file: TextIO | None = None

    def __enter__(self) -> ProcessResultsWriter:
        """Start the file under a temporary name.

        Raises:
            OutputError: it cannot be written there.
        """
        self._file = self._replacing.__enter__()
        return self

    @property
    def count(self) -> int:
        """How many pictures have an answer so far."""
        return len(self._answers)

    def append(self, row: Prediction) -> None:
        """Take up one row; those without an answer change nothing."""
        if row.file is None or row.label is None or row.file in self._answers:
            return
        is_unknown = self._has_unknown and row.status == Status.UNKNOWN
        self._answers[row.file] = "unknown" if is_unknown else row.label
        place = (self._key(row.file), row.file)
        self._is_in_order = self._is_in_order and (self._last is None or self._last <= place)
        self._last = place

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> bool | None:
        """Write the file and rename it to its place, or remove it where an error ended the block.

        Raises:
            OutputError: the disk is full.
        """
        if error is None and self._file is not None:
            names = self._answers if self._is_in_order else in_natural_order(self._answers)
            try:
                self._file.write("{")
                for at, name in enumerate(names):
                    label = json.dumps(self._answers[name])
                    before = ",\n  " if at else "\n  "
                    self._file.write(f"{before}{json.dumps(name, ensure_ascii=False)}: {label}")
                self._file.write("\n}\n" if self._answers else "}\n")
            except OSError as full:
                self._replacing.__exit__(type(full), full, full.__traceback__)
        return self._replacing.__exit__(kind, error, trace)


def write_process_results(
    path: Path, rows: Iterable[Prediction], *, has_unknown: bool = False
) -> int:
    """Write ``{"photo.jpg": "male", ...}`` for rows, in natural order of names.

    Of several faces in one picture the first counts, the one that the picture shows.

    Example:
        >>> write_process_results(Path("answers.json"), predict_folder("faces"))
        6

    Args:
        path: where to; an older file there is replaced once the new one is whole.
        rows: may be a stream; only names and labels are kept.
        has_unknown: write ``unknown`` instead of a guess that is less sure than the threshold.

    Returns:
        How many pictures are in the file.

    Raises:
        OutputError: it cannot be written there.
    """
    with ProcessResultsWriter(path, has_unknown=has_unknown) as results:
        for row in rows:
            results.append(row)
        return results.count


def in_natural_order(names: Iterable[str]) -> list[str]:
    """Sort names as people do, ``2.jpg`` before ``10.jpg``; the same on every machine."""
    return list(natsorted(sorted(names)))


def check_output(path: Path) -> None:
    """Say now what would go wrong when ``path`` is written later; leave nothing behind.

    Raises:
        OutputError: its folder is missing or cannot be written to, or it is no regular file.
    """
    folder = path.parent
    try:
        if not folder.is_dir():
            raise OutputError(
                f"cannot write {path}: the folder {folder} is not there. Create it first"
            )
        if path.is_dir():
            raise OutputError(f"cannot write {path}: it is a folder; name a file")
        if path.exists() and not path.is_file():
            raise OutputError(f"cannot write {path}: it is not a regular file")
        if path.is_file() and _is_picture(path):
            raise OutputError(f"cannot write {path}: it is a picture and would be lost")
        temporary, file = _create_beside(path)
        file.close()
        temporary.unlink()
    except OSError as error:
        raise OutputError(f"cannot write {path}: {error.strerror or error}") from error


def remove_leftovers(path: Path) -> None:
    """Remove what a killed run left beside ``path``; only while no other run may write it."""
    place = Path(realpath(path))
    for left in place.parent.glob(f".facegender-{escape(place.name)}-*.tmp"):
        left.unlink(missing_ok=True)


def check_distinct(paths: Mapping[str, Path | None]) -> None:
    """Refuse two options that name one file, for one would be written over the other.

    Raises:
        OutputError: two of them are the same file.
    """
    seen: dict[str, str] = {}
    for option, path in paths.items():
        if path is not None and (other := seen.setdefault(realpath(path), option)) != option:
            raise OutputError(f"{other} and {option} are the same file, {path}. Name two files")


def _is_picture(path: Path) -> bool:
    try:
        return read_file(path) is not None
    except UnreadablePictureError:
        return False


@contextmanager
def replacing(path: Path, errors: str = "backslashreplace") -> Iterator[TextIO]:
    """Give a text file that becomes ``path`` at a clean end; its ``buffer`` takes bytes.

    ``errors`` is what happens to lone surrogates in names. The file stands under a temporary name
    beside its place until then, and vanishes at any other end.

    Raises:
        OutputError: it cannot be written there.
    """
    try:
        temporary, file = _create_beside(path, errors)
    except OSError as error:
        raise OutputError(f"cannot write {path}: {error.strerror or error}") from error
    try:
        with file:
            yield file
        temporary.replace(realpath(path))  # through a link: its target is replaced, not the link
    except OSError as error:
        temporary.unlink(missing_ok=True)
        raise OutputError(f"cannot write {path}: {error.strerror or error}") from error
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


def _create_beside(path: Path, errors: str = "backslashreplace") -> tuple[Path, TextIO]:
    """Create a hidden temporary file in the folder of ``path`` (of its target, for a link)."""
    place = Path(realpath(path))
    temporary = place.with_name(f".facegender-{place.name}-{secrets.token_hex(6)}.tmp")
    # backslashreplace turns lone surrogates into \udcxx, which JSON reads back as they were.
    file = temporary.open("x", encoding="utf-8", errors=errors, newline="\n")
    return temporary, file
