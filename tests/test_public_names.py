from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from made import encode, image

import facegender

PACKAGE = Path(facegender.__file__).parent


def test_all_is_what_is_visible() -> None:
    assert sorted(facegender.__all__) == facegender.__all__ == dir(facegender)
    for name in facegender.__all__:
        assert getattr(facegender, name) is not None
    modules = {name for names in facegender._MODULES.values() for name in names}
    assert modules | {"__version__"} == set(facegender.__all__)


def test_checkers_see_the_same_names() -> None:
    tree = ast.parse((PACKAGE / "__init__.py").read_text("utf-8"))
    imported = {
        alias.name
        for node in ast.walk(tree)
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("facegender.")
        for alias in node.names
    }
    assert imported | {"__version__"} == set(facegender.__all__)


def test_every_error_is_public() -> None:
    from facegender import errors

    mine = {name for name, value in vars(errors).items() if isinstance(value, type)}
    assert mine <= set(facegender.__all__)


def test_unknown_name() -> None:
    with pytest.raises(AttributeError, match="Classifer"):
        _ = facegender.Classifer  # type: ignore[attr-defined]


def test_torch_is_never_imported(
    photos: Callable[..., Path], tmp_path: Path, model_path: Path
) -> None:
    folder = photos({"a.png": encode(image(seed=1))})
    code = (
        "import sys, facegender\n"
        "assert not {'numpy', 'onnxruntime', 'PIL'} & sys.modules.keys()\n"
        "from facegender.cli import main\n"
        "try: main(sys.argv[1:])\n"
        "except SystemExit as end: assert end.code == 0\n"
        "assert 'onnxruntime' in sys.modules\n"
        "assert not {'torch', 'timm', 'onnx', 'facegender.training'} & sys.modules.keys()\n"
    )
    command = [sys.executable, "-c", code, "predict", str(folder), "--model", str(model_path)]
    subprocess.run(command, cwd=tmp_path, check=True, capture_output=True, text=True)
