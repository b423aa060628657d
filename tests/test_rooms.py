"""The package's structure: which room imports which, names, and sizes; read from the source."""

from __future__ import annotations

import ast
from collections import Counter, defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

import facegender

PACKAGE = Path(facegender.__file__).parent
PUBLIC = "__init__"
"""The module ``facegender`` itself."""

FLOORS: tuple[frozenset[str], ...] = (
    frozenset({"errors"}),
    frozenset({"images"}),
    frozenset({"faces", "files"}),
    frozenset({"inputs", "results", "model"}),
    frozenset({"inference"}),
    frozenset({"training", "serve", "cluster", "web"}),
    frozenset({"cli"}),
    frozenset({"__main__"}),
)
"""Rooms from the lowest: a module imports only its own room and rooms on lower floors."""

TRAINING_FLOORS: tuple[frozenset[str], ...] = (
    frozenset({"renamed", "ensemble.options"}),
    frozenset({"recipe"}),
    frozenset({"data"}),
    frozenset({"models", "loop", "run_folder"}),
    frozenset({"evaluation"}),
    frozenset({"console"}),
    frozenset({"evaluation.run", "audit"}),
    frozenset({"dataset"}),
    frozenset({"export"}),
    frozenset({"ensemble"}),
    frozenset({"prepare"}),
    frozenset({"train", "show_batch"}),
    frozenset({"export_run"}),
)
"""The same inside ``training``; a module with an entry of its own is apart from its room."""

PUBLIC_FROM = "inference"
"""Rooms from this floor up may import ``facegender`` itself, and of it only ``__version__``."""

HEAVY = frozenset({"torch", "torchvision", "timm", "onnx", "sklearn"})
VAGUE_NAMES = frozenset({"utils", "util", "common", "helpers", "helper", "manager", "misc"})
MAX_FUNCTION_LINES = 80
MAX_MODULE_LINES = 400

LONGER_MODULES: frozenset[str] = frozenset()
"""Modules that may have more lines for now, each with the reason beside it."""


@dataclass(frozen=True)
class Import:
    """One import of a module of the package by another, wherever it stands in the file."""

    importer: str
    imported: str
    name: str
    line: int

    def __str__(self) -> str:
        return f"{self.importer}:{self.line} imports {self.imported} ({self.name})"


def module_name(path: Path) -> str:
    """``cli/predict.py`` -> ``cli.predict``, ``cli/__init__.py`` -> ``cli``."""
    parts = path.relative_to(PACKAGE).with_suffix("").parts
    return ".".join(parts[:-1] if len(parts) > 1 and parts[-1] == PUBLIC else parts)


PATHS = {module_name(path): path for path in sorted(PACKAGE.rglob("*.py"))}
TREES = {name: ast.parse(path.read_text("utf-8")) for name, path in PATHS.items()}


def imports_of(importer: str) -> Iterator[Import]:
    """All imports of the package's own modules, also inside functions and for type checkers."""
    for node in ast.walk(TREES[importer]):
        if isinstance(node, ast.Import):
            found = [(alias.name, "") for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{importer}:{node.lineno} imports relatively"
            found = [(str(node.module), alias.name) for alias in node.names]
        else:
            continue
        for module, name in found:
            if module.split(".")[0] == "facegender":
                inside = module.removeprefix("facegender").removeprefix(".")
                submodule = f"{inside}.{name}".removeprefix(".")
                imported = submodule if submodule in PATHS else inside or PUBLIC
                yield Import(importer, imported, name, node.lineno)


IMPORTS = [each for importer in PATHS for each in imports_of(importer)]
BETWEEN_MODULES = [each for each in IMPORTS if PUBLIC not in (each.importer, each.imported)]


def floor(module: str, floors: tuple[frozenset[str], ...]) -> tuple[int, str]:
    """A module's floor and the entry that it belongs to: the longest one that fits."""
    entries = {entry: level for level, floor in enumerate(floors) for entry in floor}
    fitting = [entry for entry in entries if f"{module}.".startswith(f"{entry}.")]
    assert fitting, f"{module} is in no room: add it to the table"
    entry = max(fitting, key=len)
    return entries[entry], entry


def is_allowed(each: Import, floors: tuple[frozenset[str], ...]) -> bool:
    (from_floor, from_room) = floor(each.importer, floors)
    (to_floor, to_room) = floor(each.imported, floors)
    return to_room == from_room or to_floor < from_floor


def test_every_module_is_read() -> None:
    assert len(PATHS) == len(list(PACKAGE.rglob("*.py"))) > 100
    assert len(BETWEEN_MODULES) > 400
    edges = {(each.importer, each.imported) for each in IMPORTS}
    assert ("faces.yunet", "images.pixels") in edges
    assert ("inference.preprocess", "faces.opencv") in edges, "inside a function"
    assert ("cli.progress", "results.summary") in edges, "for type checkers"


def test_the_table_sees_a_wrong_import() -> None:
    assert not is_allowed(Import("images.decode", "files", "write_json", 1), FLOORS)
    assert not is_allowed(Import("results.details", "inputs.paths", "InputFile", 1), FLOORS)
    assert not is_allowed(Import("data.split", "evaluation.metrics", "x", 1), TRAINING_FLOORS)
    assert not is_allowed(Import("evaluation.metrics", "evaluation.run", "x", 1), TRAINING_FLOORS)
    assert is_allowed(Import("cli.predict", "inference.predict", "predict_to_files", 1), FLOORS)


@pytest.mark.parametrize("importer", [name for name in PATHS if name != PUBLIC])
def test_a_room_imports_only_rooms_below_it(importer: str) -> None:
    wrong = [
        str(each)
        for each in BETWEEN_MODULES
        if each.importer == importer and not is_allowed(each, FLOORS)
    ]
    assert not wrong


@pytest.mark.parametrize("importer", [name for name in PATHS if name.startswith("training.")])
def test_a_room_of_training_imports_only_rooms_below_it(importer: str) -> None:
    inside = [
        Import(
            each.importer.removeprefix("training."),
            each.imported.removeprefix("training."),
            each.name,
            each.line,
        )
        for each in BETWEEN_MODULES
        if each.importer == importer and each.imported.startswith("training.")
    ]
    assert not [str(each) for each in inside if not is_allowed(each, TRAINING_FLOORS)]


def test_only_the_version_is_taken_from_the_package_itself() -> None:
    lowest, _ = floor(PUBLIC_FROM, FLOORS)
    taken = [each for each in IMPORTS if each.imported == PUBLIC]
    assert taken
    for each in taken:
        assert each.name == "__version__" and floor(each.importer, FLOORS)[0] >= lowest, str(each)


def test_no_modules_import_each_other_in_a_circle() -> None:
    below: dict[str, set[str]] = defaultdict(set)
    for each in BETWEEN_MODULES:
        below[each.importer].add(each.imported)
    remaining = set(PATHS)
    while free := {name for name in remaining if not below[name] & remaining}:
        remaining -= free
    while top := remaining - {name for each in remaining for name in below[each]}:
        remaining -= top  # above a circle, but not part of it
    assert not remaining, f"these import each other: {sorted(remaining)}"


def test_no_two_modules_share_a_name() -> None:
    """A verb of the command line may be called like the module that it calls."""
    names = Counter(
        name.rpartition(".")[2]
        for name, path in PATHS.items()
        if path.name != "__init__.py" and not name.startswith("cli.")
    )
    assert [name for name, count in names.items() if count > 1] == []


def test_no_module_has_a_vague_name() -> None:
    parts = {part for name in PATHS for part in name.split(".")}
    assert not parts & VAGUE_NAMES


def test_no_public_name_is_defined_twice_in_the_light_core() -> None:
    defined: dict[str, list[str]] = defaultdict(list)
    for name, tree in TREES.items():
        if name.split(".")[0] != "training":
            for node in tree.body:
                kinds = (ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)
                if isinstance(node, kinds) and not node.name.startswith("_"):
                    defined[node.name].append(name)
    assert {name: homes for name, homes in defined.items() if len(homes) > 1} == {}
    assert len(defined) > 100


def top_level_imports(tree: ast.AST, *, at_run_time: bool = False) -> set[str]:
    """Modules that are imported when a module is, so not those inside functions.

    ``at_run_time`` leaves out those under ``if TYPE_CHECKING:`` too.
    """
    found: set[str] = set()
    pending = [tree]
    while pending:
        node = pending.pop()
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            found |= {f"{node.module}.{alias.name}" for alias in node.names} | {node.module or ""}
        elif isinstance(node, ast.If) and at_run_time and ast.unparse(node.test) == "TYPE_CHECKING":
            pending += node.orelse
        elif not isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.Lambda)):
            pending += ast.iter_child_nodes(node)
    return found


@pytest.mark.parametrize("name", [name for name in PATHS if name.split(".")[0] != "training"])
def test_the_light_core_imports_nothing_heavy(name: str) -> None:
    assert not {module.split(".")[0] for module in top_level_imports(TREES[name])} & HEAVY


@pytest.mark.parametrize("name", [name for name in PATHS if name.split(".")[0] == "cli"])
def test_a_verb_imports_what_it_calls_inside_itself(name: str) -> None:
    """So that --help is fast, and each verb needs only its own libraries."""
    for module in top_level_imports(TREES[name], at_run_time=True):
        first, _, inside = module.partition(".")
        assert first != "facegender" or inside.split(".")[0] in ("", "cli", "errors"), module


def test_the_imports_that_count() -> None:
    text = (
        "import a\nif TYPE_CHECKING:\n    import b\nelse:\n    from c import d\n"
        "def f():\n    import e\nclass C:\n    import g\n"
    )
    assert top_level_imports(ast.parse(text)) == {"a", "b", "c", "c.d", "g"}
    assert top_level_imports(ast.parse(text), at_run_time=True) == {"a", "c", "c.d", "g"}


def code_lines(function: ast.FunctionDef | ast.AsyncFunctionDef) -> int:
    """Lines of a function without its signature (a verb's is long: it declares the options) and
    without its docstring.
    """
    body = function.body[1:] if ast.get_docstring(function) else function.body
    return (function.end_lineno or 0) - body[0].lineno + 1 if body else 0


@pytest.mark.parametrize("name", PATHS)
def test_sizes(name: str) -> None:
    for node in ast.walk(TREES[name]):
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
            assert code_lines(node) <= MAX_FUNCTION_LINES, f"{name}.{node.name}"
    lines = len(PATHS[name].read_text("utf-8").splitlines())
    assert (lines > MAX_MODULE_LINES) == (name in LONGER_MODULES), f"{name}: {lines} lines"


def test_sizes_sees_a_long_function() -> None:
    text = 'def long(a, b):\n    """Say."""\n' + "    a = b\n" * 81
    (function,) = ast.parse(text).body
    assert isinstance(function, ast.FunctionDef) and code_lines(function) == 81
