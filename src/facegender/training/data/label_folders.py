"""Which folder names stand for which label: ``male`` and ``female``, or those of ``--classes``."""

from __future__ import annotations

import unicodedata
from collections import Counter
from collections.abc import Mapping
from types import MappingProxyType

from facegender.errors import InputError
from facegender.model.model_file import LABELS

LABEL_FOLDERS: Mapping[str, str] = MappingProxyType({label: label for label in LABELS})
"""Labels by the names of their folders, where ``--classes`` names no others."""

_KNOWN_NAMES = {
    "female": "women woman girls girl f w ladies frauen frau женщины женщина жен ж",
    "male": "men man boys boy m guys gentlemen männer mann мужчины мужчина муж м",
}
_FOLDERS_SHOWN = 8


class FolderCounts:
    """Counts the folders of files without a label, for the error if no file has one."""

    def __init__(self) -> None:
        """Create empty counts."""
        self._files = 0
        self._names: Counter[str] = Counter()

    def add(self, file: str) -> None:
        """Count the folders of a file, given by its path inside its archive."""
        self._files += 1
        self._names.update(set(file.split("/")[:-1]))

    def describe(self) -> str:
        """Name the folders that were found, and the option that takes them; "" without any."""
        names = {name: n for name, n in self._names.most_common() if n < self._files}
        names = names or dict(self._names.most_common())
        if not names:
            return ""
        shown = [
            f"{name}/ ({count:,} {'file' if count == 1 else 'files'})"
            for name, count in list(names.items())[:_FOLDERS_SHOWN]
        ]
        more = f" and {len(names) - len(shown):,} more" if len(names) > len(shown) else ""
        return (
            f"Folders found: {', '.join(shown)}{more}. If they stand for the labels, say so:  "
            f"--classes {_suggest(names)}"
        )


def parse_classes(text: str | None) -> Mapping[str, str]:
    """Parse the option ``--classes``, such as ``female=Women,male=Men``.

    Args:
        text: pairs of a label and a folder name; a label may have several pairs. None or "" is
            ``male=male,female=female``.

    Returns:
        The label of each folder name, in the form of :func:`fold`.

    Raises:
        InputError: a pair is wrong, a label has no folder, or two labels have the same.
    """
    if not text:
        return LABEL_FOLDERS
    found: dict[str, str] = {}
    for pair in text.split(","):
        label, _, name = (part.strip() for part in pair.partition("="))
        name = name.strip("/")
        if label.lower() not in LABELS or not name or "/" in name:
            raise InputError(
                f"--classes: {pair.strip()!r} is no pair of a label ({' or '.join(LABELS)}) and a "
                "folder name. Write it like  --classes female=Women,male=Men"
            )
        if found.setdefault(fold(name), label.lower()) != label.lower():
            raise InputError(f"--classes: the folder {name} has two labels. Give it one.")
    if missing := [label for label in LABELS if label not in found.values()]:
        raise InputError(
            f"--classes names no folder for {' and '.join(missing)}. Write it like  "
            "--classes female=Women,male=Men"
        )
    return found


def fold(name: str) -> str:
    """Return a folder name as it is compared: case and Unicode composition do not count."""
    return unicodedata.normalize("NFC", name).casefold()


def folder_label(file: str, classes: Mapping[str, str]) -> str:
    """Return the label of the innermost folder that stands for one; "" if there is none."""
    folders = (fold(step) for step in reversed(file.split("/")[:-1]))
    return next((classes[folder] for folder in folders if folder in classes), "")


def _suggest(names: Mapping[str, int]) -> str:
    """Fill in the folder names whose meaning is known."""
    guesses = {
        label: next((name for name in names if fold(name) in known.split()), "FOLDER")
        for label, known in _KNOWN_NAMES.items()
    }
    pairs = ",".join(f"{label}={name}" for label, name in guesses.items())
    return f'"{pairs}"' if " " in pairs else pairs
