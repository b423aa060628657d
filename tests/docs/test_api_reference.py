"""The Python interface: its page is up to date, and every example does what it says."""

from __future__ import annotations

import doctest
import importlib
import re
import shutil
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest

import facegender

ROOT = Path(__file__).parents[2]
PAGE = ROOT / "docs" / "reference" / "api.md"
PACKAGE = Path(facegender.__file__).parent
WITH_EXAMPLES = sorted(
    ".".join(path.relative_to(PACKAGE).with_suffix("").parts)
    for path in PACKAGE.rglob("*.py")
    if re.search(r"^ +>>> (?!.*SKIP)", path.read_text("utf-8"), re.M)
    and path != PACKAGE / "__init__.py"
)


@pytest.fixture
def beside_faces(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working folder that holds ``faces/``, as the examples want it."""
    shutil.copytree(ROOT / "faces", tmp_path / "faces")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def failures(text: str, name: str, names: dict[str, object]) -> tuple[int, int]:
    """How many examples failed, of how many; what was wrong goes to standard output."""
    runner = doctest.DocTestRunner()
    test = doctest.DocTestParser().get_doctest(text, names, name, name, 0)
    return runner.run(test).failed, len(test.examples)


def test_the_page_is_up_to_date() -> None:
    pytest.importorskip("griffe", reason="the page is made by griffelib: pip install '.[dev]'")
    command = [sys.executable, ROOT / "tools" / "make_api.py", "--check"]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_an_old_page_is_told(tmp_path: Path) -> None:
    pytest.importorskip("griffe", reason="the page is made by griffelib: pip install '.[dev]'")
    (tmp_path / "tools").mkdir()
    (tmp_path / "docs" / "reference").mkdir(parents=True)
    tool = shutil.copy(ROOT / "tools" / "make_api.py", tmp_path / "tools")
    (tmp_path / "src").symlink_to(ROOT / "src")
    old = PAGE.read_text("utf-8").replace("**Parameters**", "**Arguments**", 1)
    (tmp_path / "docs" / "reference" / "api.md").write_text(old, "utf-8")
    done = subprocess.run([sys.executable, tool, "--check"], capture_output=True, text=True)
    assert done.returncode == 1 and "python tools/make_api.py" in done.stderr


def test_every_public_name_has_its_place() -> None:
    headings = re.findall(r"^### (\w+)$", PAGE.read_text("utf-8"), re.MULTILINE)
    assert sorted(headings) == sorted(set(facegender.__all__) - {"__version__"})


def test_the_examples_of_the_page(beside_faces: Path) -> None:
    blocks = re.findall(r"^```pycon\n(.*?)^```", PAGE.read_text("utf-8"), re.MULTILINE | re.DOTALL)
    failed, count = failures("\n".join(blocks), "api.md", {})
    assert failed == 0 and count > 15


def test_the_example_of_the_package(beside_faces: Path) -> None:
    failed, count = failures(facegender.__doc__ or "", "facegender", {})
    assert failed == 0 and count > 3


def test_modules_with_examples_are_found() -> None:
    assert len(WITH_EXAMPLES) >= 8


@pytest.mark.parametrize("name", WITH_EXAMPLES)
def test_the_examples_of_a_module(name: str, beside_faces: Path) -> None:
    """Also those that are on no page."""
    module: ModuleType = importlib.import_module(f"facegender.{name}")
    public: dict[str, object] = {each: getattr(facegender, each) for each in facegender.__all__}
    public |= {"Path": Path, "classifier": facegender.Classifier.load()}
    runner = doctest.DocTestRunner()
    for test in doctest.DocTestFinder().find(module, globs=public | vars(module)):
        runner.run(test)
    assert runner.failures == 0 and runner.tries > 0


@pytest.mark.parametrize("page", ["README.md", "README.ru.md"])
def test_the_python_of_the_readme(
    page: str, beside_faces: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (code,) = re.findall(r"^```python\n(.*?)^```", (ROOT / page).read_text("utf-8"), re.M | re.S)
    exec(code, {})
    first, *rest = capsys.readouterr().out.splitlines()
    assert re.fullmatch(r"female 0\.99\d*", first)
    assert rest == [
        "CREDITS.md None skipped None",
        "barack_obama.jpg 0 ok male",
        "barack_obama_speaking.jpg 0 ok male",
        "barack_obama_standing.jpg 0 ok male",
        "eileen_collins.jpg 0 ok female",
        "grace_hopper.jpg 0 ok male",
        "joe_biden.jpg 0 ok male",
    ]
