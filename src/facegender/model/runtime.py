"""Run the network's graph with ONNX Runtime or OpenVINO.

Every run uses one core, and as many runs are concurrent as there are cores. So no core waits for
another inside a run, and the results are bit-identical for any number of cores.
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
"""Names of the runtimes; ``auto`` is CUDA if it is installed, else OpenVINO if it is installed and
faster, else ONNX Runtime on the CPU."""

BATCH_SIZE = 16
"""Images per run of the network. A smaller batch is padded with black, so that the result for an
image is bit-identical whatever else is in the batch."""

_PROVIDERS = {"cuda": "CUDAExecutionProvider", "tensorrt": "TensorrtExecutionProvider"}
_CPU = "CPUExecutionProvider"


class Network(Protocol):
    """A graph that is ready to run; thread-safe."""

    @property
    def name(self) -> str:
        """Runtime, version, device and precision: everything that the exact bits depend on."""

    @property
    def input_spec(self) -> str:
        """Type and shape of its input for one image, such as ``uint8 [128, 128, 3]``."""

    @property
    def output_spec(self) -> str:
        """Type and shape of its output for one image, such as ``float32 [2]``."""

    def __call__(self, pixels: Pixels) -> NDArray[np.float32]:
        """Map ``uint8 [N, H, W, 3]`` to probabilities ``float32 [N, 2]``.

        N is 1 or :data:`BATCH_SIZE`.

        Raises:
            ModelFileError: the graph cannot be run.
        """


def count_cores() -> int:
    """Return the number of cores that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def check_runtime(runtime: str) -> None:
    """Check that a runtime is one of :data:`RUNTIMES` and is installed.

    Raises:
        InputError: it is unknown or not installed.
    """
    if runtime not in RUNTIMES:
        raise InputError(f"runtime {runtime!r} is not one of {', '.join(RUNTIMES)}")
    if runtime == "openvino" and find_spec("openvino") is None:
        raise InputError(f"OpenVINO is not installed: {how_to_install('openvino')}")
    if runtime in _PROVIDERS and _PROVIDERS[runtime] not in _providers():
        raise InputError(
            f"This ONNX Runtime has no {_PROVIDERS[runtime]}: install onnxruntime-gpu instead of "
            "onnxruntime, and the CUDA libraries that it needs"
        )


def load_network(graph: bytes, runtime: str, threads: int) -> Network:
    """Load a graph into a runtime.

    Args:
        graph: an ONNX graph, ``uint8 [N, H, W, 3]`` to ``float32 [N, 2]``.
        runtime: one of :data:`RUNTIMES`.
        threads: number of concurrent runs.

    Raises:
        InputError: an unknown runtime, or one that is not installed or finds no device.
        ModelFileError: the graph cannot be run.
    """
    check_runtime(runtime)
    if runtime == "auto" and _has_cuda():
        network = _ONNXRuntime(graph, _PROVIDERS["cuda"])
        if network.provider == _PROVIDERS["cuda"]:
            return network
    if runtime == "openvino" or (runtime == "auto" and _openvino_is_faster(graph)):
        return _OpenVINO(graph, threads)
    network = _ONNXRuntime(graph, _PROVIDERS.get(runtime, _CPU))
    if runtime in _PROVIDERS and network.provider != _PROVIDERS[runtime]:
        raise InputError(
            f"{_PROVIDERS[runtime]} finds no device, or a library is missing. Use another --runtime"
        )
    return network


def _providers() -> list[str]:
    import onnxruntime

    found: list[str] = onnxruntime.get_available_providers()
    return found


def _has_cuda() -> bool:
    """Tell whether the installed ONNX Runtime includes CUDA, without importing it."""
    found = find_spec("onnxruntime")
    if found is None or found.origin is None:
        return False
    return any(Path(found.origin).parent.glob("capi/*onnxruntime_providers_cuda*"))


def _openvino_is_faster(graph: bytes) -> bool:
    """Tell whether OpenVINO is installed and faster than ONNX Runtime for this graph.

    In float32 both are equally fast on the CPU; in bfloat16 (if the CPU has it) and int8 OpenVINO
    is about twice as fast.
    """
    if find_spec("openvino") is None:
        return False
    try:
        core = _openvino_core()
    except ImportError:  # installed, but not for this machine
        return False
    return _is_quantized(graph) or "BF16" in core.get_property("CPU", "OPTIMIZATION_CAPABILITIES")


def _is_quantized(graph: bytes) -> bool:
    return b"QuantizeLinear" in graph


def _openvino_core() -> Any:
    import openvino

    return openvino.Core()


class _ONNXRuntime:
    """ONNX Runtime; on the CPU one core per run."""

    def __init__(self, graph: bytes, provider: str) -> None:
        import onnxruntime

        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = 1  # one core per run: no thread waits or spins
        options.log_severity_level = 3
        options.enable_mem_pattern = False  # memory would be reserved for each batch size
        providers = [_CPU] if provider == _CPU else [provider, _CPU]
        try:
            self._session = onnxruntime.InferenceSession(graph, options, providers=providers)
        except Exception as error:  # ONNX Runtime's exceptions have no other common base
            raise ModelFileError(f"ONNX Runtime cannot run the graph: {error}") from error
        inputs, outputs = self._session.get_inputs(), self._session.get_outputs()
        self.input_spec, self.output_spec = _describe(inputs), _describe(outputs)
        self._input = inputs[0].name
        self.provider = str(self._session.get_providers()[0])
        device = self.provider.removesuffix("ExecutionProvider")
        precision = "int8" if _is_quantized(graph) else "float32"
        self.name = f"onnxruntime {onnxruntime.__version__} {device} {precision}"

    def __call__(self, pixels: Pixels) -> NDArray[np.float32]:
        try:
            (output,) = self._session.run(None, {self._input: pixels})
        except Exception as error:  # as above
            raise ModelFileError(f"The network cannot be run: {error}") from error
        found: NDArray[np.float32] = output
        return found


def _describe(tensors: Sequence[Any]) -> str:
    """Return NumPy's types and the shapes of a session's inputs or outputs, without the batch."""
    types = {"tensor(float)": "float32"}
    return ", ".join(
        f"{types.get(tensor.type, tensor.type[7:-1])} {list(tensor.shape)[1:]}"
        for tensor in tensors
    )


class _OpenVINO:
    """OpenVINO on the CPU: bfloat16 if the CPU has it, int8 if the graph is quantized."""

    def __init__(self, graph: bytes, threads: int) -> None:
        import openvino

        core = _openvino_core()
        has_bf16 = "BF16" in core.get_property("CPU", "OPTIMIZATION_CAPABILITIES")
        precision = "bf16" if has_bf16 and not _is_quantized(graph) else "f32"
        options = {
            "INFERENCE_NUM_THREADS": threads,
            "NUM_STREAMS": threads,  # one core per run
            "INFERENCE_PRECISION_HINT": precision,
            "ENABLE_CPU_PINNING": False,  # images are decoded on the same cores
        }

        def compile_for(batch: int) -> Any:
            model = core.read_model(graph)
            sides = model.input(0).partial_shape
            model.reshape([batch, *(sides[at].get_length() for at in (1, 2, 3))])
            return core.compile_model(model, "CPU", options)

        self._compile = compile_for
        self._models: dict[int, Any] = {}
        self._lock = threading.Lock()
        self._requests = threading.local()
        shown = "int8" if _is_quantized(graph) else precision
        self.name = f"openvino {openvino.__version__.split('-')[0]} CPU {shown}"
        model = self._run_checked("OpenVINO cannot run the graph", partial(self._model, BATCH_SIZE))
        self.input_spec, self.output_spec = (
            ", ".join(f"{each.element_type.to_dtype()} {list(each.shape)[1:]}" for each in tensors)
            for tensors in (model.inputs, model.outputs)
        )
        # Two threads that start their first run at once can deadlock in OpenVINO's binding
        self(np.zeros(tuple(model.input(0).shape), np.uint8))

    def __call__(self, pixels: Pixels) -> NDArray[np.float32]:
        found = self._run_checked("The network cannot be run", partial(self._infer, pixels))
        return np.array(found, dtype=np.float32)  # copied: OpenVINO reuses its memory

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
    def _run_checked(message: str, run: Callable[[], Any]) -> Any:
        try:
            return run()
        except RuntimeError as error:  # what OpenVINO raises
            raise ModelFileError(f"{message}: {error}") from error
