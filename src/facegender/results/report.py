"""Rows -> one self-contained HTML page that opens offline.

The page holds everything but the originals: rows, small copies, style and script. Its security
policy lets it run its own script alone and load nothing but pictures from the same disk. Data
stand in blocks that the browser does not run; the script turns them into text, never into HTML.
"""

from __future__ import annotations

import base64
import hashlib
import json
import os
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass
from itertools import islice
from pathlib import Path
from typing import Any, TypeVar
from urllib.parse import quote, urlsplit

from facegender.files import atomic_write
from facegender.results.predictions import Status

CAVEAT = "The answer is a guess at a label that people gave, not a fact about a person."

_PER_BLOCK = 64  # pictures whose small copies the page takes up at a time
_PAGE = Path(__file__).parent / "report_page"
_SCRIPTS = ("words", "pictures", "marks", "overview", "gallery", "larger", "report")  # in order
_URL = re.compile(r"[!-\[\]-~]+")  # browsers read other characters, and a backslash, their own way
_T = TypeVar("_T")


@dataclass(frozen=True, slots=True)
class ReportImage:
    """One picture of the report.

    Attributes:
        rows: all of its rows in the form of the details file, the picture's own answer first.
        thumbnail: a small JPEG of it, see :func:`thumbnail`; None where it could not be read.
        source: where the page finds the original, see :func:`relative_url`; None where there is no
            file of its own (in an archive): the small copy is shown larger then.
    """

    rows: tuple[Mapping[str, Any], ...]
    thumbnail: bytes | None = None
    source: str | None = None

    def __post_init__(self) -> None:
        """Refuse what is no single picture, and an original that another host would send.

        Raises:
            ValueError: no row, rows of several files, or a source that is not on this disk.
        """
        if len({row["file"] for row in self.rows}) != 1:
            raise ValueError("a picture of the report needs rows, all of one file")
        if self.source is not None:
            parts = urlsplit(self.source)
            is_here = parts.scheme == "file" or not (parts.scheme or parts.netloc)
            if not is_here or not _URL.fullmatch(self.source):
                raise ValueError(f"{self.source!r} is neither a relative path nor a file URL")


@dataclass(frozen=True, slots=True)
class ReportInfo:
    """What the report says about how it was made.

    Attributes:
        model: name of the network.
        fingerprint: of the model file.
        version: of facegender.
        created: when, as ISO 8601 text.
        input: what was answered for, as the person gave it.
        seconds: how long it took; None where that is not known.
        terms: licence and terms of the model.
        caveat: what else the model's answers must not be taken for; that an answer is a guess at a
            label is always said.
    """

    model: str
    fingerprint: str
    version: str
    created: str
    input: str
    seconds: float | None = None
    terms: str = ""
    caveat: str = ""


def write_report(path: Path, images: Iterable[ReportImage], about: ReportInfo) -> int:
    """Write the page; memory does not grow with the number of pictures.

    Args:
        path: where to; an older file there is replaced once the new one is whole.
        images: in the order to be shown, may be a stream. Skipped files are left out.
        about: what the page says of the run and the model.

    Returns:
        How many pictures are in the report.

    Raises:
        OutputError: it cannot be written there.
    """
    head, tail = _page()
    facts = asdict(about) | {"caveat": "" if about.caveat == CAVEAT else about.caveat}
    facts["per_block"] = _PER_BLOCK
    told = "\0".join((about.input, about.fingerprint))  # the same run again finds its marks
    facts["id"] = hashlib.sha256(told.encode("utf-8", "surrogatepass")).hexdigest()[:16]
    shown = (image for image in images if image.rows[0]["status"] != Status.SKIPPED)
    count = 0
    with atomic_write(path) as file:
        file.write(head)
        file.write(f'<script type="application/json" id="data-about">{_json(facts)}</script>\n')
        for block in _blocks(shown, _PER_BLOCK):
            rows = [{"rows": image.rows, "source": image.source} for image in block]
            small = "\n".join(_base64(image.thumbnail) for image in block)
            file.write(f'<script type="application/json" class="pictures">{_json(rows)}</script>\n')
            file.write(f'<script type="text/plain" class="thumbnails">{small}</script>\n')
            count += len(block)
        file.write(tail)
    return count


def relative_url(image: Path, report: Path) -> str:
    """Give the URL by which a page finds a picture: relative, so that both can move together.

    A picture on another drive than the page (Windows) has none; it gets its file URL.
    """
    place = os.path.abspath(image)  # noqa: PTH100  (links stay as they are named, `..` goes)
    try:
        inside = os.path.relpath(place, os.path.dirname(os.path.abspath(report)))  # noqa: PTH100, PTH120
    except ValueError:
        return Path(place).as_uri()
    return quote(os.fsencode(inside.replace(os.sep, "/")), safe="/")


def _page() -> tuple[str, str]:
    """Put the page together, and give what stands before and after its data."""
    style, page = ((_PAGE / name).read_text("utf-8") for name in ("report.css", "report.html"))
    script = "\n".join((_PAGE / f"{name}.js").read_text("utf-8") for name in _SCRIPTS)
    policy = (
        "default-src 'none'; img-src 'self' file: data:; base-uri 'none'; form-action 'none'; "
        f"style-src '{_digest(style)}'; script-src '{_digest(script)}'"
    )
    for mark, text in (("@CSP@", policy), ("@STYLE@", style), ("@SCRIPT@", script)):
        page = page.replace(mark, text)
    head, mark, tail = page.partition("<!-- pictures -->\n")
    assert mark, "the page has no place for its pictures"
    return head, tail


def _digest(text: str) -> str:
    """Name a text by its digest, in the form of a security policy."""
    return f"sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}"


def _json(value: object) -> str:
    r"""Write JSON that can stand in a script block, whatever its strings hold.

    All but ASCII is escaped, and so are ``< > &``: no ``</script>`` or ``<!--`` can come out.
    """
    text = json.dumps(value, separators=(",", ":"), allow_nan=False)
    for character in "<>&":
        text = text.replace(character, f"\\u{ord(character):04x}")
    return text


def _base64(data: bytes | None) -> str:
    return "-" if data is None else base64.b64encode(data).decode("ascii")


def _blocks(values: Iterable[_T], size: int) -> Iterator[list[_T]]:
    """Hand a stream on in lists of ``size``."""
    coming = iter(values)
    while block := list(islice(coming, size)):
        yield block
