"""The report: result rows as one self-contained HTML page that opens offline.

The page contains rows, thumbnails, style and script; the original images stay where they are. Its
content security policy allows only its own script, and only images from the same disk. Data is in
blocks that the browser does not execute, and the script inserts it as text, never as HTML.
"""

from __future__ import annotations

import base64
import hashlib
import json
import os
import re
from collections.abc import Iterable, Mapping
from contextlib import AbstractContextManager
from dataclasses import asdict, dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, TextIO
from urllib.parse import quote, urlsplit

from facegender.results.output_file import open_output
from facegender.results.predictions import Status

CAVEAT = "The answer is a guess at a label that people gave, not a fact about a person."
"""Shown with every result."""

_IMAGES_PER_BLOCK = 64
_PAGE = Path(__file__).parent / "report_page"
_SCRIPTS = (  # in order
    *("messages", "i18n", "images", "fit", "marks"),
    *("overview", "gallery", "lightbox", "report"),
)
_URL = re.compile(r"[!-\[\]-~]+")  # browsers rewrite other characters, and a backslash


@dataclass(frozen=True, slots=True)
class ReportImage:
    """One image of the report.

    Attributes:
        rows: all of its rows as in the details file, the main face first.
        thumbnail: a small JPEG, see :func:`facegender.images.pixels.thumbnail`; None if the image
            is unreadable.
        source: URL of the original, see :func:`relative_url`; None if it is in an archive, where
            the page enlarges the thumbnail instead.
    """

    rows: tuple[Mapping[str, Any], ...]
    thumbnail: bytes | None = None
    source: str | None = None

    def __post_init__(self) -> None:
        """Check the rows and the source.

        Raises:
            ValueError: no row, rows of several files, or a source that is not on this disk.
        """
        if len({row["file"] for row in self.rows}) != 1:
            raise ValueError("An image of the report needs rows, all of the same file")
        if self.source is not None:
            parts = urlsplit(self.source)
            is_local = parts.scheme == "file" or not (parts.scheme or parts.netloc)
            if not is_local or not _URL.fullmatch(self.source):
                raise ValueError(f"{self.source!r} is neither a relative path nor a file URL")


@dataclass(frozen=True, slots=True)
class ReportInfo:
    """What the report says about its origin.

    Attributes:
        model: name of the network.
        fingerprint: start of the model file's SHA-256, in hex.
        version: of facegender.
        created: when, as ISO 8601 text.
        input: the inputs, as the user named them.
        terms: license and terms of the model.
        caveat: a caveat of the model, shown in addition to :data:`CAVEAT`.
    """

    model: str
    fingerprint: str
    version: str
    created: str
    input: str
    terms: str = ""
    caveat: str = ""


class ReportWriter(AbstractContextManager["ReportWriter"]):
    """Writes images to a report, which appears when the block ends without an error.

    Memory use does not grow with the number of images.
    """

    def __init__(self, path: Path, about: ReportInfo) -> None:
        """Choose the file; nothing is written before ``with``.

        Args:
            path: the file to write; an earlier one is replaced when the new one is complete.
            about: what the page says about the run and the model.
        """
        self._output = open_output(path)
        self._about = about
        self._head, self._tail = _page()
        self._rows: list[str] = []
        self._thumbnails: list[str] = []
        self._file: TextIO | None = None
        self.count = 0
        """Number of images in the report."""

    def __enter__(self) -> ReportWriter:
        """Create the file under a temporary name.

        Raises:
            OutputError: it cannot be written.
        """
        about = self._about
        facts = asdict(about) | {"caveat": "" if about.caveat == CAVEAT else about.caveat}
        facts["per_block"] = _IMAGES_PER_BLOCK
        # The browser stores the user's marks by this: the same run keeps them
        identity = "\0".join((about.input, about.fingerprint))
        facts["id"] = hashlib.sha256(identity.encode("utf-8", "surrogatepass")).hexdigest()[:16]
        self._file = self._output.__enter__()
        self._file.write(self._head)
        self._file.write(
            f'<script type="application/json" id="data-about">{_json(facts)}</script>\n'
        )
        return self

    def append(self, image: ReportImage) -> None:
        """Add an image; a skipped file is ignored.

        Raises:
            ValueError: outside ``with``, or its rows cannot be written as JSON.
        """
        if self._file is None:
            raise ValueError("The report is not open: use append() inside 'with'")
        if image.rows[0]["status"] == Status.SKIPPED:
            return
        rows = _json({"rows": image.rows, "source": image.source})
        self._thumbnails.append(_base64(image.thumbnail))
        self._rows.append(rows)
        self.count += 1
        if len(self._rows) == _IMAGES_PER_BLOCK:
            self._write_block()

    def _write_block(self) -> None:
        assert self._file is not None
        rows, thumbnails = ",".join(self._rows), "\n".join(self._thumbnails)
        self._file.write(f'<script type="application/json" class="images">[{rows}]</script>\n')
        self._file.write(f'<script type="text/plain" class="thumbnails">{thumbnails}</script>\n')
        self._rows, self._thumbnails = [], []

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> bool | None:
        """Complete the page and rename it to its final name, or remove it after an error.

        Raises:
            OutputError: the disk is full.
        """
        if error is None and self._file is not None:
            try:
                if self._rows:
                    self._write_block()
                self._file.write(self._tail)
            except OSError as failure:
                self._output.__exit__(type(failure), failure, failure.__traceback__)
        self._file = None
        return self._output.__exit__(kind, error, trace)


def write_report(path: Path, images: Iterable[ReportImage], about: ReportInfo) -> int:
    """Write the page; see :class:`ReportWriter`.

    Args:
        path: the file to write; an earlier one is replaced when the new one is complete.
        images: in the order to show; may be a stream. Skipped files are left out.
        about: what the page says about the run and the model.

    Returns:
        Number of images in the report.

    Raises:
        OutputError: the file cannot be written.
    """
    with ReportWriter(path, about) as report:
        for image in images:
            report.append(image)
        return report.count


def relative_url(image: Path, report: Path) -> str:
    """Return the URL of an image relative to a report, so that both can be moved together.

    An image on another drive than the report (Windows) gets its file URL.
    """
    target = os.path.abspath(image)  # noqa: PTH100  (links are not resolved)
    try:
        relative = os.path.relpath(target, os.path.dirname(os.path.abspath(report)))  # noqa: PTH100, PTH120
    except ValueError:
        return Path(target).as_uri()
    return quote(os.fsencode(relative.replace(os.sep, "/")), safe="/")


def _page() -> tuple[str, str]:
    """Assemble the page and return what comes before and after its data."""
    style, page = ((_PAGE / name).read_text("utf-8") for name in ("report.css", "report.html"))
    script = "\n".join((_PAGE / f"{name}.js").read_text("utf-8") for name in _SCRIPTS)
    policy = (
        "default-src 'none'; img-src 'self' file: data:; base-uri 'none'; form-action 'none'; "
        f"style-src '{_digest(style)}'; script-src '{_digest(script)}'"
    )
    for mark, text in (("@CSP@", policy), ("@STYLE@", style), ("@SCRIPT@", script)):
        page = page.replace(mark, text)
    head, mark, tail = page.partition("<!-- images -->\n")
    assert mark, "report.html has no mark for the data"
    return head, tail


def _digest(text: str) -> str:
    """Return the digest of a text in the form of a content security policy."""
    return f"sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}"


def _json(value: object) -> str:
    r"""Return JSON that is safe inside a script block, whatever its strings contain.

    Everything but ASCII is escaped, and also ``< > &``: no ``</script>`` or ``<!--`` can occur.
    """
    text = json.dumps(value, separators=(",", ":"), allow_nan=False)
    for character in "<>&":
        text = text.replace(character, f"\\u{ord(character):04x}")
    return text


def _base64(data: bytes | None) -> str:
    return "-" if data is None else base64.b64encode(data).decode("ascii")
