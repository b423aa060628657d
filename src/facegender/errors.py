"""The exceptions of facegender: each message says what is wrong, where, and what to do next."""

from __future__ import annotations

_PINNED_EXTRAS = ("train", "tensorboard")  # torch and torchvision must match


class FacegenderError(Exception):
    """Base of every error that facegender raises on purpose; its message is for the user.

    Example:
        >>> try:
        ...     Classifier.load("missing.onnx")
        ... except FacegenderError as error:
        ...     print(error)
        Cannot read the model file missing.onnx: No such file or directory
    """


class InputError(FacegenderError):
    """An input or option (folder, archive, table, recipe) is missing or invalid."""


class OutputError(FacegenderError):
    """A result cannot be written to the given path."""


class ModelFileError(FacegenderError):
    """A model file is missing, damaged, of another kind, or contradicts its description."""


class UnreadableImageError(FacegenderError):
    """An image cannot be decoded completely; a partly decoded image is never classified."""


class UnsupportedImageError(UnreadableImageError):
    """A file is an image, a video or an archive of a kind that is not read here.

    The message says what to install or do. The row's status is ``unsupported``.
    """


class StoppedError(FacegenderError):
    """The run was stopped (Ctrl-C, SIGTERM); its results so far are kept.

    Attributes:
        code: the exit code of the command: 130 for Ctrl-C, 143 for SIGTERM.
    """

    def __init__(self, message: str, code: int = 130) -> None:
        """Say where it stopped and how to resume."""
        super().__init__(message)
        self.code = code


class MissingExtraError(FacegenderError):
    """An optional part of facegender needs a library that is not installed."""

    def __init__(self, extra: str, library: str) -> None:
        """Name the extra that installs the library, and the command.

        Args:
            extra: Name of the extra, such as ``train``.
            library: The missing library.
        """
        self._arguments = (extra, library)
        super().__init__(
            f"This needs the '{extra}' extra ({library} is not installed). "
            f"To install it: {how_to_install(extra)}"
        )

    def __reduce__(self) -> tuple[type[MissingExtraError], tuple[str, str]]:
        """Pickle by the two arguments: the error may come from another process."""
        return type(self), self._arguments


def how_to_install(extra: str) -> str:
    """Return the commands that install an extra, from a clone or from a wheel."""
    pinned = "-c constraints.txt " if extra in _PINNED_EXTRAS else ""
    return f"pip install {pinned}'.[{extra}]'  in the clone, or  pip install 'FILE.whl[{extra}]'"
