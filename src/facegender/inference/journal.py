"""The rows of a run on disk as they come, so that a stopped run goes on where it stopped.

One SQLite file beside the output. It is locked while a run writes to it, survives the run's death
at any moment, and is removed when every picture was read. Answers are found again by the file's
place, size and time, and only for the same network and the same options.
"""

from __future__ import annotations

import json
import sqlite3
import time
from collections.abc import Mapping, Sequence
from contextlib import closing, suppress
from dataclasses import dataclass, replace
from datetime import datetime
from os.path import realpath
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from facegender.errors import OutputError
from facegender.files import OWN_FILE_PREFIX
from facegender.inputs.paths import InputFile
from facegender.results.predictions import Prediction, Status

_COMMIT_SECONDS = 0.5
_TABLES = """
    CREATE TABLE IF NOT EXISTS run (options TEXT NOT NULL, begun TEXT NOT NULL);
    CREATE TABLE IF NOT EXISTS picture (
        key TEXT PRIMARY KEY, size INTEGER, modified INTEGER, bad INTEGER, rows TEXT, thumbnail BLOB
    ) WITHOUT ROWID;
"""


@dataclass(frozen=True, slots=True)
class CachedResult:
    """What an earlier run found in a picture."""

    rows: tuple[Prediction, ...]
    thumbnail: bytes


class Journal:
    """The journal of one output; a context manager.

    Attributes:
        earlier: how many pictures it holds of an earlier run with the same options.
        is_fresh: there are rows of a run with another network or other options, which go when
            this run has its first.
        begun: when the run that goes on was begun, as ISO 8601 text.
    """

    def __init__(self, output: Path, options: Mapping[str, Any]) -> None:
        """Open the journal that belongs to an output, or start it.

        Args:
            output: the file that the run will write.
            options: everything that an answer depends on but the picture itself.

        Raises:
            OutputError: another run is writing to this output, or it cannot be written there.
        """
        place = Path(realpath(output))  # two names of one file have one journal
        self.path = place.with_name(f"{OWN_FILE_PREFIX}{place.name}.journal")
        self._output = output
        self._options = json.dumps(options, sort_keys=True)
        self._committed = time.monotonic()
        self._is_removed = False
        try:
            self._base = self._open()
            found = self._base.execute("SELECT options, begun FROM run").fetchone()
            ((self.earlier,),) = self._base.execute("SELECT count(*) FROM picture")
        except sqlite3.Error as error:
            raise self._explained(error) from error
        self._is_mine = found is not None and found[0] == self._options
        self.is_fresh = bool(self.earlier) and not self._is_mine
        self.begun = found[1] if self._is_mine else _now()
        self.earlier = self.earlier if self._is_mine else 0

    def _open(self) -> sqlite3.Connection:
        """Open it for this run alone; what is no journal any more is begun anew."""
        try:
            return self._locked()
        except sqlite3.DatabaseError as error:
            if error.sqlite_errorcode not in (sqlite3.SQLITE_NOTADB, sqlite3.SQLITE_CORRUPT):
                raise
            self.path.unlink()
            return self._locked()

    def _locked(self) -> sqlite3.Connection:
        base = sqlite3.connect(self.path, timeout=0.0, isolation_level="DEFERRED")
        try:
            base.execute("PRAGMA locking_mode = EXCLUSIVE")  # until the connection is closed
            base.execute("PRAGMA journal_mode = WAL")  # what is kept waits for no disk, and
            base.execute("PRAGMA synchronous = NORMAL")  # a power cut costs only the last of it
            base.execute("PRAGMA cache_size = -2000")
            base.execute("BEGIN IMMEDIATE")
            base.commit()
            base.executescript(_TABLES)
            base.execute("BEGIN IMMEDIATE")
            base.commit()
        except BaseException:
            base.close()
            raise
        return base

    def cached(self, item: InputFile, *, with_bad: bool = True) -> CachedResult | None:
        """Find what an earlier run answered for a file, where it is still the same file.

        Args:
            item: the file as it is now.
            with_bad: also that it could not be read.
        """
        if not self.earlier:
            return None
        found = self._base.execute(
            "SELECT bad, rows, thumbnail FROM picture WHERE key = ? AND size = ? AND modified = ?",
            (_storable(item.identity), item.size, item.mtime_ns),
        ).fetchone()
        if found is None or (found[0] and not with_bad):
            return None
        rows = tuple(
            replace(Prediction.from_dict(row), file=item.key) for row in json.loads(found[1])
        )
        return CachedResult(rows, found[2])

    def add(self, item: InputFile, rows: Sequence[Prediction], thumbnail: bytes = b"") -> None:
        """Keep what was found in a file; on disk half a second later.

        Raises:
            OutputError: the disk is full, or the file's folder is gone.
        """
        is_bad = any(row.status == Status.UNREADABLE for row in rows)
        text = json.dumps([row.to_dict() for row in rows])
        try:
            if not self._is_mine:
                self._base.execute("DELETE FROM run")
                self._base.execute("DELETE FROM picture")
                self._base.execute("INSERT INTO run VALUES (?, ?)", (self._options, self.begun))
                self._is_mine = True
            self._base.execute(
                "INSERT OR REPLACE INTO picture VALUES (?, ?, ?, ?, ?, ?)",
                (_storable(item.identity), item.size, item.mtime_ns, is_bad, text, thumbnail),
            )
            if time.monotonic() - self._committed > _COMMIT_SECONDS:
                self._base.commit()
                self._committed = time.monotonic()
        except sqlite3.Error as error:
            raise self._explained(error) from error

    def remove(self) -> None:
        """Remove the journal: there is nothing left to do."""
        self._is_removed = True
        self._base.close()
        self.path.unlink(missing_ok=True)

    def __enter__(self) -> Self:
        """Give the journal."""
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Keep what there is and let other runs have it."""
        if self._is_removed:
            return
        held = 1
        with closing(self._base), suppress(sqlite3.Error):  # a full disk was told about already
            self._base.commit()
            ((held,),) = self._base.execute("SELECT count(*) FROM picture LIMIT 1")
        if not held:
            self.remove()

    def _explained(self, error: sqlite3.Error) -> OutputError:
        if getattr(error, "sqlite_errorcode", 0) == sqlite3.SQLITE_BUSY:
            return OutputError(
                f"another run is writing {self._output}. Wait for it, or name another --output"
            )
        return OutputError(f"cannot write {self.path}: {error}. What is done is kept; run it again")


def _now() -> str:
    return datetime.now().astimezone().isoformat(timespec="seconds")


def _storable(key: str) -> str:
    """Escape names that are no Unicode, which SQLite does not take."""
    return key.encode("utf-8", "backslashreplace").decode()
