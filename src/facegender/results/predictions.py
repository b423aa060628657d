"""Result rows: what became of an image or of a face in it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from enum import StrEnum
from typing import Any


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
        face_index: index of the face in the picture, from 0; None where there is no face.
        label: ``male`` or ``female``, with ``unknown`` the better guess; None without a face.
        probability: of that label, 0.5 to 1, four places.
        box: where the face is; the whole picture where it was taken whole.
        detection_score: how sure the face detector was, 0 to 1, two places; None where it was not asked.
        crop: ``aligned`` where the face was found, cut out and turned upright, ``none`` where the
            full image was taken; None without a face.
        width: of the upright picture in pixels; None where it could not be read.
        height: likewise.
        error: why there is no answer; None where there is one.
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
        """Refuse a row that says two things at once.

        Raises:
            ValueError: fields that do not fit the status.
        """
        has_face = self.status in (Status.OK, Status.UNKNOWN)
        if (self.label in ("male", "female")) != has_face or (self.label is not None) != has_face:
            raise ValueError(f"label {self.label!r} does not fit status {self.status}")
        if (self.crop in ("aligned", "none")) != has_face:
            raise ValueError(f"crop {self.crop!r} does not fit status {self.status}")
        if has_face != (self.probability is not None) or has_face != (self.face_index is not None):
            raise ValueError(
                f"status {self.status} with face {self.face_index}, {self.probability=}"
            )
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
