"""CONTRIBUTING.md: the table of rooms is that of the imports."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import facegender

ROOT = Path(__file__).parents[2]
PACKAGE = Path(facegender.__file__).parent


def listed_rooms() -> list[set[str]]:
    """The rooms of each row of the table, from the lowest up."""
    text = (ROOT / "CONTRIBUTING.md").read_text("utf-8")
    rows = re.findall(r"^\| (`.*?) \|", text.partition("## Rooms")[2], re.MULTILINE)
    return [set(re.findall(r"`(\w+)`", row)) for row in rows]


def rooms_imported_by(path: Path) -> Iterator[str]:
    """The rooms that a module imports anywhere, inside of functions too."""
    for node in ast.walk(ast.parse(path.read_text("utf-8"))):
        names: list[str] = []
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            names = [f"{node.module}.{alias.name}" for alias in node.names]
        yield from (name.split(".")[1] for name in names if name.startswith("facegender."))


def test_every_room_is_listed_once() -> None:
    listed = [room for row in listed_rooms() for room in row]
    there = {
        path.stem if path.is_file() else path.name
        for path in PACKAGE.iterdir()
        if not path.name.startswith("__") and (path.is_dir() or path.suffix == ".py")
    }
    assert sorted(listed) == sorted(there)


def test_rooms_import_only_rooms_above_their_row() -> None:
    rows, checked = listed_rooms(), 0
    for number, row in enumerate(rows):
        allowed = set().union(*rows[:number])
        for room in row:
            modules = [PACKAGE / f"{room}.py", *(PACKAGE / room).rglob("*.py")]
            for path in filter(Path.is_file, modules):
                imported = set(rooms_imported_by(path)) - {room, "__version__"}
                assert imported <= allowed, f"{path.relative_to(PACKAGE)}: {imported - allowed}"
                checked += len(imported)
    assert checked > 100
