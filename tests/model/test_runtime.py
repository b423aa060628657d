"""What runs the graph: chosen by what is installed, the same bits in any batch."""

from __future__ import annotations

import importlib.util
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from facegender.errors import InputError
from facegender.inference.classifier import Classifier
from facegender.model import runtime
from facegender.model.runtime import BATCH_SIZE, check_runtime, count_cores

HAS_OPENVINO = importlib.util.find_spec("openvino") is not None
RUNTIMES = [
    "onnxruntime",
    pytest.param(
        "openvino", marks=pytest.mark.skipif(not HAS_OPENVINO, reason="OpenVINO not installed")
    ),
]


@pytest.mark.parametrize("name", RUNTIMES)
def test_the_same_bits_whatever_stands_beside(name: str, model_path: Path) -> None:
    one, two = (Classifier.load(model_path, runtime=name, threads=n) for n in (1, 2))
    size = one.description.resize
    rng = np.random.default_rng(0)
    pixels = rng.integers(0, 256, (3 * BATCH_SIZE + 5, size.height, size.width, 3), dtype=np.uint8)
    expected = one.probabilities(pixels)
    order = rng.permutation(len(pixels))
    assert np.array_equal(two.probabilities(pixels[order]), expected[order])
    assert np.array_equal(two.probabilities(pixels[7:8]), expected[7:8])
    with ThreadPoolExecutor(2) as pool:
        for found in pool.map(two.probabilities, [pixels] * 6):
            assert np.array_equal(found, expected)


@pytest.mark.skipif(not HAS_OPENVINO, reason="OpenVINO not installed")
def test_both_runtimes_answer_alike_and_say_which(model_path: Path) -> None:
    both = [Classifier.load(model_path, runtime=name) for name in ("onnxruntime", "openvino")]
    size = both[0].description.resize
    pixels = np.random.default_rng(0).integers(
        0, 256, (9, size.height, size.width, 3), dtype=np.uint8
    )
    assert both[0].probabilities(pixels) == pytest.approx(both[1].probabilities(pixels), abs=0.03)
    assert both[0].runtime.startswith("onnxruntime") and both[1].runtime.startswith("openvino")


@pytest.mark.parametrize(
    ("name", "reason"), [("gpu", "is not one of"), ("cuda", "CUDAExecutionProvider")]
)
def test_a_runtime_that_is_not_there(name: str, reason: str, model_path: Path) -> None:
    if name in runtime._PROVIDERS and runtime._PROVIDERS[name] in runtime._providers():
        pytest.skip("it is there")
    with pytest.raises(InputError, match=reason):
        check_runtime(name)
    with pytest.raises(InputError, match=reason):
        Classifier.load(model_path, runtime=name)


CUDA = "CUDAExecutionProvider"


class Session:
    """A session by the provider that it was asked for, or by the CPU where there is no device."""

    def __init__(self, provider: str, has_device: bool = True) -> None:
        self.provider = provider if has_device else "CPUExecutionProvider"


@pytest.mark.parametrize(
    ("has_cuda", "has_device", "has_openvino", "capabilities", "chosen"),
    [
        (True, True, False, [], CUDA),
        (True, True, True, ["BF16"], CUDA),
        (True, False, True, ["BF16"], "openvino"),
        (True, False, False, [], "CPUExecutionProvider"),
        (False, False, True, ["FP32", "BF16"], "openvino"),
        (False, False, True, ["FP32", "INT8"], "CPUExecutionProvider"),
        (False, False, False, [], "CPUExecutionProvider"),
    ],
)
def test_auto_takes_the_quickest_that_is_there(
    has_cuda: bool,
    has_device: bool,
    has_openvino: bool,
    capabilities: list[str],
    chosen: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    core = SimpleNamespace(get_property=lambda device, name: capabilities)
    monkeypatch.setattr(runtime, "_has_cuda", lambda: has_cuda)
    monkeypatch.setattr(runtime, "find_spec", lambda name: has_openvino or None)
    monkeypatch.setattr(runtime, "_openvino_core", lambda: core)
    monkeypatch.setattr(
        runtime, "_ONNXRuntime", lambda graph, provider: Session(provider, has_device)
    )
    monkeypatch.setattr(runtime, "_OpenVINO", lambda graph, threads: Session("openvino"))
    assert runtime.load_network(b"a graph", "auto", 2).provider == chosen  # type: ignore[attr-defined]


def test_cuda_by_name_never_runs_on_the_cpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(runtime, "_providers", lambda: [CUDA, "CPUExecutionProvider"])
    monkeypatch.setattr(runtime, "_ONNXRuntime", lambda graph, provider: Session(provider, False))
    with pytest.raises(InputError, match="finds no device"):
        runtime.load_network(b"a graph", "cuda", 2)


def test_without_openvino_nothing_changes(
    model_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(runtime, "find_spec", lambda name: None)
    assert Classifier.load(model_path).runtime.startswith("onnxruntime")
    with pytest.raises(InputError, match="pip install"):
        Classifier.load(model_path, runtime="openvino")


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="affinity is Linux's")
def test_only_the_cores_that_it_may_use_count() -> None:
    code = (
        "import os; os.sched_setaffinity(0, {min(os.sched_getaffinity(0))});"
        "from facegender.model.runtime import count_cores; print(count_cores())"
    )
    assert subprocess.check_output([sys.executable, "-c", code], text=True).strip() == "1"
    assert count_cores() >= 1
