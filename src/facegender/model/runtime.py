"""What runs the network's graph: ONNX Runtime, or OpenVINO where that is installed and better.

Every run takes one core. As many go on side by side as there are cores, so that no core waits for
another inside a run, and the same bits come out on machines with few cores and with many.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Sequence
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from facegender.errors import InputError, ModelFileError, how_to_install
from facegender.images.pixels import Pixels

RUNTIMES = ("auto", "onnxruntime", "openvino", "cuda", "tensorrt")
"""What a graph can be run by; ``auto`` is CUDA where it is there, else OpenVINO where that is
installed and better, else ONNX Runtime on the CPU."""

BATCH_SIZE = 16
"""Pictures in every run of the network over many. Always so many (the rest is black), so that the
same bits come out for a picture whatever stands beside it."""

_PROVIDERS = {"cuda": "CUDAExecutionProvider", "tensorrt": "TensorrtExecutionProvider"}
_CPU = "CPUExecutionProvider"


class Network(Protocol):
    """A graph that is ready to run; safe to call from many threads."""

    @property
    def name(self) -> str:
        """What runs it, where, and in which arithmetic: all that its last bits depend on."""

    @property
    def input_spec(self) -> str:
        """Type and shape of its inputs for one picture, such as ``uint8 [128, 128, 3]``."""

    @property
    def output_spec(self) -> str:
        """Type and shape of its outputs for one picture."""

    def __call__(self, pixels: Pixels) -> NDArray[np.float32]:
        """Map ``uint8 [N, H, W, 3]`` to probabilities ``float32 [N, 2]``; N is 1 or ``BATCH``.

        Raises:
            ModelFileError: the graph fails.
        """


def count_cores() -> int:
    """Count the cores that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def check_runtime(runtime: str) -> None:
    """Refuse what is none of :data:`RUNTIMES`, and what is not installed.

    Raises:
        InputError: another word, or a runtime that is not there.
    """
    if runtime not in RUNTIMES:
        raise InputError(f"runtime {runtime!r} is not one of {', '.join(RUNTIMES)}")
    if runtime == "openvino" and find_spec("openvino") is None:
        raise InputError(f"OpenVINO is not installed: {how_to_install('openvino')}")
    if runtime in _PROVIDERS and _PROVIDERS[runtime] not in _providers():
        raise InputError(
            f"this ONNX Runtime has no {_PROVIDERS[runtime]}: install onnxruntime-gpu in place of "
            "onnxruntime, and what it needs of CUDA"
        )


def load_network(graph: bytes, runtime: str, threads: int) -> Network:
    """Make a graph ready to run.

    Args:
        graph: an ONNX graph, ``uint8 [N, H, W, 3]`` to ``float32 [N, 2]``.
        runtime: one of :data:`RUNTIMES`.
        threads: how many runs may go on side by side.

    Raises:
        InputError: another word for ``runtime``, or one that is not installed or finds no device.
        ModelFileError: the graph cannot be run.
    """
    check_runtime(runtime)
    if runtime == "auto" and _has_cuda():
        network = _ONNXRuntime(graph, _PROVIDERS["cuda"])
        if network.provider == _PROVIDERS["cuda"]:
            return network
    if runtime == "openvino" or (runtime == "auto" and _openvino_is_better(graph)):
        return _OpenVINO(graph, threads)
    network = _ONNXRuntime(graph, _PROVIDERS.get(runtime, _CPU))
    if runtime in _PROVIDERS and network.provider != _PROVIDERS[runtime]:
        raise InputError(
            f"{_PROVIDERS[runtime]} finds no device or misses a library here: use another --runtime"
        )
    return network


def _providers() -> list[str]:
    import onnxruntime

    found: list[str] = onnxruntime.get_available_providers()
    return found


def _has_cuda() -> bool:
    """Tell whether the installed ONNX Runtime brings CUDA; it is not loaded for that."""
    found = find_spec("onnxruntime")
    if found is None or found.origin is None:
        return False
    return any(Path(found.origin).parent.glob("capi/*onnxruntime_providers_cuda*"))


def _openvino_is_better(graph: bytes) -> bool:
    """Tell whether OpenVINO is installed and computes more cheaply than ONNX Runtime would.

    In float32 the two are as fast as each other; bfloat16 (where the processor has it) and int8
    are where OpenVINO is about twice as fast on the CPU.
    """
    if find_spec("openvino") is None:
        return False
    try:
        core = _openvino_core()
    except ImportError:  # there, but not for this machine
        return False
    return _is_quantised(graph) or "BF16" in core.get_property("CPU", "OPTIMIZATION_CAPABILITIES")


def _is_quantised(graph: bytes) -> bool:
    return b"QuantizeLinear" in graph


def _openvino_core() -> Any:
    import openvino

    return openvino.Core()


class _ONNXRuntime:
    """ONNX Runtime; one core a run on the CPU."""

    def __init__(self, graph: bytes, provider: str) -> None:
        import onnxruntime

        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = 1  # a run is one core's work: nothing waits, nothing spins
        options.log_severity_level = 3
        options.enable_mem_pattern = False  # one would be kept for each number of faces asked twice
        providers = [_CPU] if provider == _CPU else [provider, _CPU]
        try:
            self._session = onnxruntime.InferenceSession(graph, options, providers=providers)
        except Exception as error:  # ONNX Runtime's own exceptions share no base but this
            raise ModelFileError(f"ONNX Runtime cannot run it: {error}") from error
        inputs, outputs = self._session.get_inputs(), self._session.get_outputs()
        self.input_spec, self.output_spec = _ends(inputs), _ends(outputs)
        self._input = inputs[0].name
        self.provider = str(self._session.get_providers()[0])
        used = self.provider.removesuffix("ExecutionProvider")
        arithmetic = "int8" if _is_quantised(graph) else "float32"
        self.name = f"onnxruntime {onnxruntime.__version__} {used} {arithmetic}"

    def __call__(self, pixels: Pixels) -> NDArray[np.float32]:
        try:
            (output,) = self._session.run(None, {self._input: pixels})
        except Exception as error:  # as above
            raise ModelFileError(f"the network cannot be run: {error}") from error
        found: NDArray[np.float32] = output
        return found


def _ends(ends: Sequence[Any]) -> str:
    """Say what goes in or comes out of a session, in NumPy's words."""
    types = {"tensor(float)": "float32"}
    return ", ".join(f"{types.get(end.type, end.type[7:-1])} {list(end.shape)[1:]}" for end in ends)


class _OpenVINO:
    """OpenVINO on the CPU: bfloat16 where the processor has it, int8 where the graph is."""

    def __init__(self, graph: bytes, threads: int) -> None:
        import openvino

        core = _openvino_core()
        has_bf16 = "BF16" in core.get_property("CPU", "OPTIMIZATION_CAPABILITIES")
        precision = "bf16" if has_bf16 and not _is_quantised(graph) else "f32"
        options = {
            "INFERENCE_NUM_THREADS": threads,
            "NUM_STREAMS": threads,  # a run is one core's work
            "INFERENCE_PRECISION_HINT": precision,
            "ENABLE_CPU_PINNING": False,  # pictures are read on the same cores
        }

        def compiled(batch: int) -> Any:
            model = core.read_model(graph)
            sides = model.input(0).partial_shape
            model.reshape([batch, *(sides[at].get_length() for at in (1, 2, 3))])
            return core.compile_model(model, "CPU", options)

        self._compile = compiled
        self._models: dict[int, Any] = {}
        self._lock = threading.Lock()
        self._requests = threading.local()
        arithmetic = "int8" if _is_quantised(graph) else precision
        self.name = f"openvino {openvino.__version__.split('-')[0]} CPU {arithmetic}"
        model = self._run_checked("OpenVINO cannot run it", partial(self._model, BATCH_SIZE))
        self.input_spec, self.output_spec = (
            ", ".join(f"{end.element_type.to_dtype()} {list(end.shape)[1:]}" for end in ends)
            for ends in (model.inputs, model.outputs)
        )
        # Two threads whose first runs meet can wait for each other forever in OpenVINO's binding
        self(np.zeros(tuple(model.input(0).shape), np.uint8))

    def __call__(self, pixels: Pixels) -> NDArray[np.float32]:
        found = self._run_checked("the network cannot be run", partial(self._infer, pixels))
        return np.array(found, dtype=np.float32)  # OpenVINO's own memory is written again

    def _infer(self, pixels: Pixels) -> Any:
        requests = self._requests.__dict__
        request = requests.get(str(len(pixels)))
        if request is None:
            request = self._model(len(pixels)).create_infer_request()
            requests[str(len(pixels))] = request
        return request.infer([pixels])[0]

    def _model(self, batch: int) -> Any:
        with self._lock:
            if batch not in self._models:
                self._models[batch] = self._compile(batch)
            return self._models[batch]

    @staticmethod
    def _run_checked(what: str, run: Callable[[], Any]) -> Any:
        try:
            return run()
        except RuntimeError as error:  # all that OpenVINO raises
            raise ModelFileError(f"{what}: {error}") from error
