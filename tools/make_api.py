"""Write docs/api.md from the docstrings of the public names.

    python tools/make_api.py            writes docs/api.md
    python tools/make_api.py --check    says whether it is up to date (exit code 1: it is not)

griffe reads the docstrings, ruff breaks the signatures into lines.
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
PAGE = ROOT / "docs" / "api.md"

ORDER = {
    "Answering": ("Classifier", "predict_folder", "write_process_results"),
    "What comes out": ("Prediction", "Status", "Box", "Face", "ModelDescription"),
    "Errors": (
        "FacegenderError",
        "InputError",
        "OutputError",
        "ModelFileError",
        "UnreadableImageError",
        "MissingExtraError",
        "StoppedError",
    ),
}
"""Every public name, in the order of the page."""

INSIDE = {
    *("framer", "probabilities", "rows", "threshold"),
    *("from_dict", "from_json", "scaled", "to_json"),
}
"""Members for the package's own modules: they may change with any version."""

HEAD = """\
# The Python interface

What is here changes only with a line in the [changelog](../CHANGELOG.md); whatever else the modules
hold may change at any time. The examples go on from each other, where `faces/` is:

```pycon
>>> from pathlib import Path
>>> from facegender import Box, Classifier, FacegenderError, Prediction, Status
>>> from facegender import predict_folder, write_process_results
```

This page is made from the docstrings by `python tools/make_api.py`.
"""


def write_page() -> str:
    """Give the whole page."""
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
    """Give an object's part of the page: heading, signature, docstring, members."""
    title = name.rpartition(".")[2] if level > 3 else name
    yield f"{'#' * level} {title}\n"
    if isinstance(found, griffe.Function):
        yield fenced(signature(found), "python")
    elif isinstance(found, griffe.Attribute) and found.annotation is not None:
        yield f"`{found.annotation}`\n"
    yield from explain(found)
    if isinstance(found, griffe.Class):
        for member in sorted(found.members.values(), key=lambda member: member.is_attribute):
            is_hidden = member.name.startswith("_") or member.name in INSIDE
            if not is_hidden and not member.is_alias and member.docstring:
                yield from describe(member, f"{name}.{member.name}", level + 1)


def signature(function: griffe.Function) -> str:
    """Write how a function is called, over several lines where it is long."""
    if isinstance(function.parent, griffe.Class):
        del function.parameters[0]  # self, cls
    line = function.signature()
    marks = "".join(f"@{each.value}\n" for each in function.decorators)
    command = [sys.executable, "-m", "ruff", "format", "--line-length=88", "-"]
    run = subprocess.run(
        command, input=f"{marks}def {line}: ...\n", capture_output=True, text=True, check=True
    )
    return run.stdout.strip().removesuffix(": ...").removeprefix("def ").replace("\ndef ", "\n")


def explain(found: griffe.Object) -> Iterator[str]:
    """Give what a docstring says."""
    if found.docstring is None:
        return
    for section in found.docstring.parsed:
        if section.kind is Kind.text:
            yield prose(section.value) + "\n"
        elif section.kind is Kind.admonition:  # the sections that griffe gives no meaning: Example
            yield fenced(section.value.description, "pycon")
        elif section.kind is Kind.returns:
            yield "**Returns**\n"
            yield from (f"{prose(item.description, joined=True)}\n" for item in section.value)
        else:
            yield f"**{section.kind.value.capitalize()}**\n"
            yield "\n".join(f"- {entry(item)}" for item in section.value) + "\n"


def entry(item: griffe.DocstringNamedElement | griffe.DocstringRaise) -> str:
    """Give one line of a list: a parameter, an attribute, an error."""
    says = prose(item.description, joined=True)
    if isinstance(item, griffe.DocstringNamedElement):
        annotation = "" if item.annotation is None else f" (`{item.annotation}`)"
        return f"`{item.name}`{annotation}: {says}"
    names = str(item.annotation).strip("()").split(", ")
    return f"{', '.join(f'`{name}`' for name in names)}: {says}"


def prose(text: str, *, joined: bool = False) -> str:
    """Turn a docstring's marks into Markdown's."""
    text = re.sub(r":\w+:`~?([^`]+)`", lambda match: f"`{match[1].rpartition('.')[2]}`", text)
    text = text.replace("``", "`")
    return " ".join(text.split()) if joined else text


def fenced(text: str, language: str) -> str:
    """Put code between fences."""
    return f"```{language}\n{text}\n```\n"


def main() -> int:
    """Write the page, or say whether it is up to date."""
    parser = argparse.ArgumentParser(description="Write docs/api.md from the docstrings.")
    parser.add_argument("--check", action="store_true", help="write nothing; exit code 1 if old")
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
