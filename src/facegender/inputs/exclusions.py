"""Files and folders that are left out: the litter of systems and photo servers, and patterns."""

from __future__ import annotations

import re
from collections.abc import Sequence
from fnmatch import fnmatchcase, translate
from functools import lru_cache

# fmt: off
LITTER = (
    # thumbnails and indexes of photo servers and viewers
    "@eaDir", ".@__thumb", ".thumbnails", ".thumbs", "SYNOPHOTO_*", "SYNOFILE_*",
    ".picasa.ini", "Thumbs.db", "ehthumbs.db",
    # recycle bins and snapshots
    "#recycle", "@Recycle", "$RECYCLE.BIN", "RECYCLER", ".Trash", ".Trash-*", ".Trashes",
    ".trashed-*", "#snapshot", "@Recently-Snapshot", ".stversions",
    # system folders and files
    "System Volume Information", "lost+found", "__MACOSX", "._*", ".DS_Store", ".AppleDouble",
    ".Spotlight-V100", ".fseventsd", ".TemporaryItems", ".DocumentRevisions-V100", "desktop.ini",
    "Icon\r", ".directory", ".nomedia", ".git", ".svn",
    # unfinished downloads, locks and backup copies
    "*.part", "*.partial", "*.crdownload", "*.filepart", "*.!ut", ".pending-*", ".~lock.*", "*~",
)
# fmt: on
"""Names of files and folders that are left out of folders and archives, in any case of letters.

What the user names itself is always read.
"""


def is_excluded(name: str, patterns: Sequence[str] = (), *, with_litter: bool = True) -> bool:
    """Tell whether a file or folder is left out.

    Args:
        name: its path inside the folder or archive, with ``/``.
        patterns: as in the shell (``*``, ``?``, ``[abc]``); each is compared with the path, and
            with the name of the file and of each folder that it is in.
        with_litter: leave out :data:`LITTER`, too.
    """
    parts = [part for part in name.split("/") if part not in ("", ".")]
    if with_litter and any(map(_is_litter, parts)):
        return True
    if not patterns:
        return False
    candidates = {*parts, *("/".join(parts[: end + 1]) for end in range(len(parts)))}
    return any(
        fnmatchcase(candidate, pattern.removeprefix("./").rstrip("/"))
        for pattern in patterns
        for candidate in candidates
    )


_LITTER = re.compile("|".join(translate(pattern.lower()) for pattern in LITTER))


@lru_cache(maxsize=1024)
def _is_litter(name: str) -> bool:
    return _LITTER.match(name.lower()) is not None
