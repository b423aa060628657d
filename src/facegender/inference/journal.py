"""Journal: the results of a run on disk, so that a stopped run resumes where it stopped.

One SQLite file beside the output. A run locks it while it writes, it survives a crash at any
moment, and it is removed when every image has been read. A result is found again by the file's
path, size and time, and only for the same model and options.
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
from facegender.inputs.sources import InputFile
from facegender.results.predictions import Prediction

_COMMIT_SECONDS = 0.5
_SCHEMA_VERSION = 3
_SCHEMA = f"""
    CREATE TABLE run (options TEXT NOT NULL, started TEXT NOT NULL);
    CREATE TABLE result (
        file TEXT PRIMARY KEY, state TEXT, is_unreadable INTEGER, rows TEXT, thumbnail BLOB
    ) WITHOUT ROWID;
    PRAGMA user_version = {_SCHEMA_VERSION};
"""

_VALUE_ERRORS = (
    *(sqlite3.DataError, sqlite3.IntegrityError),
    *(sqlite3.InterfaceError, sqlite3.ProgrammingError),
)
"""SQLite's errors about a value; its other errors are about the database."""


@dataclass(frozen=True, slots=True)
class CachedResult:
    """The result of an earlier run for an image.

    Attributes:
        rows: its rows.
        thumbnail: a small JPEG, or empty.
    """

    rows: tuple[Prediction, ...]
    thumbnail: bytes


class Journal:
    """The journal of one output; a context manager.

    Attributes:
        path: its file.
        earlier: number of results from an earlier run with the same model and options.
        starts_over: there are results of a run with another model or other options, which are
            removed with the first result of this run.
        started: when the run was started (for a resumed run, the first time), as ISO 8601 text.
    """

    def __init__(self, output: Path, options: Mapping[str, Any]) -> None:
        """Open the journal of an output, or create it.

        Args:
            output: the file that the run will write.
            options: everything besides the image that a result depends on.

        Raises:
            OutputError: another run is writing this output, or the journal cannot be written.
        """
        target = Path(realpath(output))  # two names of one file have the same journal
        self.path = target.with_name(f"{OWN_FILE_PREFIX}{target.name}.journal")
        self._output = output
        self._options = json.dumps(options, sort_keys=True)
        self._committed = time.monotonic()
        self._is_removed = False
        try:
            self._database = self._open()
            found = self._database.execute("SELECT options, started FROM run").fetchone()
            ((count,),) = self._database.execute("SELECT count(*) FROM result")
        except sqlite3.Error as error:
            raise self._explain(error) from error
        self._is_same_run = found is not None and found[0] == self._options
        self.starts_over = bool(count) and not self._is_same_run
        self.started = found[1] if self._is_same_run else current_time()
        self.earlier: int = count if self._is_same_run else 0

    def _open(self) -> sqlite3.Connection:
        """Open the file and lock it; a damaged one is replaced."""
        try:
            return self._lock()
        except sqlite3.DatabaseError as error:
            if error.sqlite_errorcode not in (sqlite3.SQLITE_NOTADB, sqlite3.SQLITE_CORRUPT):
                raise
            self.path.unlink()
            return self._lock()

    def _lock(self) -> sqlite3.Connection:
        database = sqlite3.connect(self.path, timeout=0.0, isolation_level="DEFERRED")
        try:
            database.execute("PRAGMA locking_mode = EXCLUSIVE")  # until the connection is closed
            # Writes do not wait for the disk; a power cut loses only the last of them
            database.execute("PRAGMA journal_mode = WAL")
            database.execute("PRAGMA synchronous = NORMAL")
            database.execute("PRAGMA cache_size = -2000")
            database.execute("BEGIN IMMEDIATE")
            database.commit()
            if database.execute("PRAGMA user_version").fetchone() != (_SCHEMA_VERSION,):
                _create_tables(database)
            database.execute("BEGIN IMMEDIATE")
            database.commit()
        except BaseException:
            database.close()
            raise
        return database

    def find(self, file: InputFile, *, retry_errors: bool = False) -> CachedResult | None:
        """Return the result of an earlier run for a file, if the file is unchanged.

        Args:
            file: the file in its current state.
            retry_errors: ignore the result of an unreadable or unsupported image.
        """
        if not self.earlier:
            return None
        try:
            found = self._database.execute(
                "SELECT is_unreadable, rows, thumbnail FROM result WHERE file = ? AND state = ?",
                (_escape(file.identity), _state(file)),
            ).fetchone()
            if found is None or (found[0] and retry_errors):
                return None
            rows = tuple(
                replace(Prediction.from_dict(row), file=file.key) for row in json.loads(found[1])
            )
        except (sqlite3.Error, ValueError, TypeError, KeyError):  # damaged: read the file again
            return None
        return CachedResult(rows, found[2])

    def add(self, file: InputFile, rows: Sequence[Prediction], thumbnail: bytes = b"") -> None:
        """Store the result for a file; it is on disk half a second later.

        Args:
            file: the file.
            rows: its rows.
            thumbnail: a small JPEG, or empty.

        Raises:
            OutputError: the disk is full, or the folder is gone.
            ValueError: this result cannot be stored; the journal is unchanged.
        """
        is_unreadable = any(row.error is not None for row in rows)
        text = json.dumps([row.to_dict() for row in rows])
        try:
            if not self._is_same_run:
                self._database.execute("DELETE FROM run")
                self._database.execute("DELETE FROM result")
                self._database.execute(
                    "INSERT INTO run VALUES (?, ?)", (self._options, self.started)
                )
                self._is_same_run = True
            self._database.execute(
                "INSERT OR REPLACE INTO result VALUES (?, ?, ?, ?, ?)",
                (_escape(file.identity), _state(file), is_unreadable, text, thumbnail),
            )
            if time.monotonic() - self._committed > _COMMIT_SECONDS:
                self._database.commit()
                self._committed = time.monotonic()
        except sqlite3.Error as error:
            if isinstance(error, _VALUE_ERRORS):
                raise ValueError(f"SQLite cannot store this result: {error}") from error
            raise self._explain(error) from error

    def remove(self) -> None:
        """Remove the journal: the run is complete."""
        self._is_removed = True
        self._database.close()
        self.path.unlink(missing_ok=True)

    def __enter__(self) -> Self:
        """Return the journal."""
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Commit and unlock; an empty journal is removed."""
        if self._is_removed:
            return
        count = 1
        with closing(self._database), suppress(sqlite3.Error):  # add() has reported a full disk
            self._database.commit()
            ((count,),) = self._database.execute("SELECT count(*) FROM result LIMIT 1")
        if not count:
            self.remove()

    def _explain(self, error: sqlite3.Error) -> OutputError:
        if getattr(error, "sqlite_errorcode", 0) == sqlite3.SQLITE_BUSY:
            return OutputError(
                f"Another run is writing {self._output}. Wait for it, or use another --output"
            )
        return OutputError(
            f"Cannot write {self.path}: {error}. Results so far are kept. To resume, run it again"
        )


def _create_tables(database: sqlite3.Connection) -> None:
    """Create the tables, instead of those of another version."""
    tables = database.execute("SELECT name FROM sqlite_master WHERE type = 'table'").fetchall()
    for (name,) in tables:
        database.execute(f'DROP TABLE "{name}"')
    database.executescript(_SCHEMA)


def current_time() -> str:
    """Return the local time as ISO 8601 text."""
    return datetime.now().astimezone().isoformat(timespec="seconds")


def _state(file: InputFile) -> str:
    """Return size and modification time as text: an integer of SQLite has only 64 bits.

    A date of a file system or an archive can be any number (a zero NTFS date is the year 1601, a
    tar's PAX header has decimal digits), and its nanoseconds overflow before 1677 and after 2262.
    """
    return f"{file.size} {file.state}"


def _escape(name: str) -> str:
    """Escape a name that is not valid Unicode, which SQLite does not accept."""
    return name.encode("utf-8", "backslashreplace").decode()
