"""Result rows: the answer for one face, or the reason why an image has none."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from enum import StrEnum
from typing import Any

from facegender.errors import FacegenderError, UnsupportedImageError


class Status(StrEnum):
    """The result for an image or a face. The set is closed.

    ``ok``: classified. ``unknown``: a face, but its probability is below the threshold, or both
    labels are equally probable. ``no_face``: no face was found. ``unreadable``: the image cannot
    be decoded completely; the row's ``error`` says why. ``unsupported``: an image, a video or an
    archive of a kind that is not read; ``error`` says what to install or do. ``skipped``: no image
    by suffix and content; counted, not an error, and not in any result file.
    """

    OK = "ok"
    UNKNOWN = "unknown"
    NO_FACE = "no_face"
    UNREADABLE = "unreadable"
    UNSUPPORTED = "unsupported"
    SKIPPED = "skipped"


@dataclass(frozen=True, slots=True)
class Box:
    """Where the face is in the upright image, in whole pixels from the top left.

    Attributes:
        x: left side.
        y: upper side.
        width: 1 or more.
        height: 1 or more.
    """

    x: int
    y: int
    width: int
    height: int

    def __post_init__(self) -> None:
        """Check the size.

        Raises:
            ValueError: width or height below 1.
        """
        if self.width < 1 or self.height < 1:
            raise ValueError(f"A box must have pixels, got {self.width}x{self.height}")


@dataclass(frozen=True, slots=True, repr=False)
class Prediction:
    """One result row: for one face, or for an image without an answer.

    Example:
        >>> box = Box(12, 20, 60, 80)
        >>> row = Prediction(
        ...     "a.jpg", Status.OK, 0, "male", 0.9731, box, 0.91, "aligned", 90, 120
        ... )
        >>> row.label, row.to_dict()["status"]
        ('male', 'ok')

    Attributes:
        file: name of the image, or its path inside the folder with ``/``; None for pixels.
        status: the result.
        face_index: index of the face in the image, from 0; None without a face.
        label: ``male`` or ``female``; for ``unknown`` the more probable one; None without a face.
        probability: of that label, 0.5 to 1, rounded to 4 decimals.
        box: where the face is; the full image if it was taken in full.
        detection_score: score of the face detector, 0 to 1, rounded to 2 decimals; None if the
            image was taken in full.
        crop: ``aligned`` if the face was detected and aligned, ``none`` if the full image was
            taken; None without a face.
        width: of the upright image in pixels; None if it was not read.
        height: of the upright image in pixels; None if it was not read.
        error: why the image is unreadable or unsupported; else None.
    """

    file: str | None
    status: Status
    face_index: int | None = None
    label: str | None = None
    probability: float | None = None
    box: Box | None = None
    detection_score: float | None = None
    crop: str | None = None
    width: int | None = None
    height: int | None = None
    error: str | None = None

    def __post_init__(self) -> None:
        """Check that the fields agree.

        Raises:
            ValueError: fields that contradict the status or each other.
        """
        has_face = self.status in (Status.OK, Status.UNKNOWN)
        if (self.label in ("male", "female")) != has_face or (self.label is not None) != has_face:
            raise ValueError(f"label {self.label!r} contradicts status {self.status}")
        if (self.crop in ("aligned", "none")) != has_face:
            raise ValueError(f"crop {self.crop!r} contradicts status {self.status}")
        if has_face != (self.probability is not None) or has_face != (self.face_index is not None):
            raise ValueError(
                f"status {self.status} contradicts face_index {self.face_index} or probability "
                f"{self.probability}"
            )
        if self.probability is not None and not 0.5 <= self.probability <= 1.0:
            raise ValueError(f"probability {self.probability} is not within 0.5 to 1")
        if (self.width is None) != (self.height is None) or (has_face and self.box is None):
            raise ValueError(
                f"width {self.width}, height {self.height} and box {self.box} contradict each other"
            )
        if (self.status in (Status.UNREADABLE, Status.UNSUPPORTED)) != (self.error is not None):
            raise ValueError(f"error {self.error!r} contradicts status {self.status}")

    def __repr__(self) -> str:
        """Return the fields that have a value."""
        values = {item.name: getattr(self, item.name) for item in fields(self)}
        values["status"] = self.status.value
        shown = (f"{name}={value!r}" for name, value in values.items() if value is not None)
        return f"Prediction({', '.join(shown)})"

    def to_dict(self) -> dict[str, Any]:
        """Return the row as plain values, in the order of the details file."""
        return {
            "file": self.file,
            "face_index": self.face_index,
            "status": self.status.value,
            "label": self.label,
            "probability": self.probability,
            "box": None if self.box is None else asdict(self.box),
            "detection_score": self.detection_score,
            "crop": self.crop,
            "width": self.width,
            "height": self.height,
            "error": self.error,
        }

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Prediction:
        """Create a row from the values of :meth:`to_dict`.

        Raises:
            KeyError, TypeError, ValueError: the values are not those of a row.
        """
        box = values["box"]
        return cls(
            **{
                **values,
                "status": Status(values["status"]),
                "box": None if box is None else Box(**box),
            }
        )


def unreadable_row(file: str | None, error: BaseException | str) -> Prediction:
    """Return the row of a file that an error left without an answer, with the reason.

    The status is ``unsupported`` for :class:`UnsupportedImageError`, else ``unreadable``.

    Args:
        file: name of the file.
        error: an error, or the reason; the type of an unexpected error is part of the reason.
    """
    is_unsupported = isinstance(error, UnsupportedImageError)
    status = Status.UNSUPPORTED if is_unsupported else Status.UNREADABLE
    return Prediction(file, status, error=describe_error(error))


def describe_error(error: BaseException | str) -> str:
    """Return the reason of an error, with its type if it is not one of facegender's own."""
    if isinstance(error, (str, FacegenderError)):
        return str(error)
    text = str(error)
    return f"{type(error).__name__}: {text}" if text else type(error).__name__
