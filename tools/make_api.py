"""Generate docs/reference/api.md from the docstrings of the public names.

    python tools/make_api.py            writes docs/reference/api.md
    python tools/make_api.py --check    exit code 1 if the page is out of date; writes nothing

griffe parses the docstrings, ruff formats the signatures.
"""

from __future__ import annotations

import argparse
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import griffe
from griffe import DocstringSectionKind as Kind

ROOT = Path(__file__).parents[1]
PAGE = ROOT / "docs" / "reference" / "api.md"

ORDER = {
    "Predict": (
        "Classifier",
        "predict_folder",
        "predict_to_files",
        "PredictOptions",
        "PredictOutputs",
        "ImageLimits",
        "write_process_results",
    ),
    "Results": ("Prediction", "Status", "Box", "Face", "RunSummary", "ModelDescription"),
    "Errors": (
        "FacegenderError",
        "InputError",
        "OutputError",
        "ModelFileError",
        "UnreadableImageError",
        "UnsupportedImageError",
        "MissingExtraError",
        "StoppedError",
    ),
}
"""Every public name, in the order of the page."""

CONSTRUCTED = {"PredictOptions", "PredictOutputs", "ImageLimits", "Box"}
"""Classes that callers construct; the page shows their signature."""

INTERNAL = {
    *("aligner", "files", "paths", "probabilities", "rows", "threshold"),
    *("from_dict", "from_json", "scaled", "to_json"),
}
"""Members for the package's own modules: they may change with any version."""

HEAD = """\
# Python API

Names on this page change only with a line in the [changelog](../../CHANGELOG.md); everything else
may change at any time. The examples build on each other and run beside the folder `faces/`:

```pycon
>>> from pathlib import Path
>>> from facegender import Box, Classifier, FacegenderError, ImageLimits, Prediction
>>> from facegender import PredictOptions, PredictOutputs, Status
>>> from facegender import predict_folder, predict_to_files, write_process_results
```

`python tools/make_api.py` generates this page from the docstrings.
"""


def write_page() -> str:
    """Return the whole page."""
    package = griffe.load(
        "facegender",
        search_paths=[ROOT / "src"],
        docstring_parser="google",
        docstring_options={"returns_multiple_items": False, "returns_named_value": False},
    )
    assert isinstance(package, griffe.Module)
    parts = [HEAD]
    for heading, names in ORDER.items():
        parts.append(f"## {heading}\n")
        for name in names:
            found = package[name]
            parts += describe(found.final_target if found.is_alias else found, name, 3)
    return "\n".join(parts)


def describe(found: griffe.Object, name: str, level: int) -> Iterator[str]:
    """Yield an object's part of the page: heading, signature, docstring, members."""
    title = name.rpartition(".")[2] if level > 3 else name
    yield f"{'#' * level} {title}\n"
    if isinstance(found, griffe.Function) or name in CONSTRUCTED:
        yield fenced(signature(found), "python")
    elif isinstance(found, griffe.Attribute) and found.annotation is not None:
        yield f"`{found.annotation}`\n"
    yield from explain(found)
    if isinstance(found, griffe.Class):
        for member in sorted(found.members.values(), key=lambda member: member.is_attribute):
            is_hidden = member.name.startswith("_") or member.name in INTERNAL
            if is_hidden or not isinstance(member, griffe.Object):
                continue
            if member.docstring:
                yield from describe(member, f"{name}.{member.name}", level + 1)


def signature(found: griffe.Object) -> str:
    """Return the signature of a function or class, over several lines if it is long."""
    assert isinstance(found, griffe.Function | griffe.Class)
    if isinstance(found, griffe.Function) and isinstance(found.parent, griffe.Class):
        del found.parameters[0]  # self, cls
    line = found.signature()
    is_function = isinstance(found, griffe.Function)
    marks = "".join(f"@{each.value}\n" for each in found.decorators) if is_function else ""
    command = [sys.executable, "-m", "ruff", "format", "--line-length=88", "-"]
    run = subprocess.run(
        command, input=f"{marks}def {line}: ...\n", capture_output=True, text=True, check=True
    )
    return run.stdout.strip().removesuffix(": ...").removeprefix("def ").replace("\ndef ", "\n")


def explain(found: griffe.Object) -> Iterator[str]:
    """Yield the sections of a docstring."""
    if found.docstring is None:
        return
    for section in found.docstring.parsed:
        if section.kind is Kind.text:
            yield prose(section.value) + "\n"
        elif section.kind is Kind.admonition:  # sections that griffe does not know: Example
            yield fenced(section.value.description, "pycon")
        elif section.kind is Kind.returns:
            yield "**Returns**\n"
            yield from (f"{prose(item.description, joined=True)}\n" for item in section.value)
        else:
            yield f"**{section.kind.value.capitalize()}**\n"
            yield "\n".join(f"- {entry(item)}" for item in section.value) + "\n"


def entry(item: griffe.DocstringNamedElement | griffe.DocstringRaise) -> str:
    """Return one line of a list: a parameter, an attribute, an error."""
    says = prose(item.description, joined=True)
    if isinstance(item, griffe.DocstringNamedElement):
        annotation = "" if item.annotation is None else f" (`{item.annotation}`)"
        return f"`{item.name}`{annotation}: {says}"
    names = str(item.annotation).strip("()").split(", ")
    return f"{', '.join(f'`{name}`' for name in names)}: {says}"


def prose(text: str, *, joined: bool = False) -> str:
    """Convert a docstring's markup to Markdown."""
    text = re.sub(r":\w+:`~?([^`]+)`", lambda match: f"`{match[1].rpartition('.')[2]}`", text)
    text = text.replace("``", "`")
    return " ".join(text.split()) if joined else text


def fenced(text: str, language: str) -> str:
    """Return a fenced code block."""
    return f"```{language}\n{text}\n```\n"


def main() -> int:
    """Write the page, or check that it is up to date."""
    parser = argparse.ArgumentParser(description="Generate docs/reference/api.md.")
    parser.add_argument("--check", action="store_true", help="exit code 1 if it is out of date")
    page = write_page()
    if parser.parse_args().check:
        if PAGE.read_text("utf-8") == page:
            return 0
        print(f"{PAGE} is out of date. Run:  python tools/make_api.py", file=sys.stderr)
        return 1
    PAGE.write_text(page, "utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
