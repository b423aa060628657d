"""The exceptions of facegender: each says what was wrong, where, and what to do next."""

from __future__ import annotations

_PINNED = ("train", "tensorboard")  # torch and torchvision have to fit each other


class FacegenderError(Exception):
    """Base of every error that facegender raises on purpose; its text is meant for a person.

    Example:
        >>> try:
        ...     Classifier.load("nowhere.onnx")
        ... except FacegenderError as error:
        ...     print(error)
        cannot read the model file nowhere.onnx: No such file or directory
    """


class InputError(FacegenderError):
    """Something that was given (a folder, an archive, a table, a recipe) is missing or wrong."""


class OutputError(FacegenderError):
    """A result cannot be written where it was asked for."""


class ModelFileError(FacegenderError):
    """A model file is missing, damaged, of another kind, or does not fit its description."""


class UnreadableImageError(FacegenderError):
    """A picture cannot be decoded whole; nothing is ever answered from a part of it."""


class StoppedError(FacegenderError):
    """Work was asked to stop (Ctrl-C, SIGTERM) and what it had done is kept; ``code`` to exit."""

    def __init__(self, message: str, code: int = 130) -> None:
        """Say where it stopped and how to go on."""
        super().__init__(message)
        self.code = code


class MissingExtraError(FacegenderError):
    """A part of facegender was asked for whose libraries are not installed."""

    def __init__(self, extra: str, library: str) -> None:
        """Name the extra that brings the missing library, with the line that installs it."""
        self._given = (extra, library)
        super().__init__(
            f"this needs the '{extra}' extra ({library} is not installed). "
            f"Install it: {how_to_install(extra)}"
        )

    def __reduce__(self) -> tuple[type[MissingExtraError], tuple[str, str]]:
        """Let it come out of another process as it went in."""
        return type(self), self._given


def how_to_install(extra: str) -> str:
    """Say which commands install an extra: it comes from a clone or a wheel, from no index."""
    pinned = "-c constraints.txt " if extra in _PINNED else ""
    return f"in the clone  pip install {pinned}'.[{extra}]'  (with a wheel: 'FILE.whl[{extra}]')"
