"""Upper bounds of the speed of ``predict``: rates of its libraries alone."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from itertools import cycle
from pathlib import Path

import numpy as np

from facegender.images.decode import decode
from facegender.inference.classifier import Classifier

SIDE = 2048
"""Side of the matrices that are multiplied."""


def decode_rate(files: Sequence[Path], cores: int, reduced: int = 0) -> float:
    """Read and decode JPEGs in threads with libjpeg-turbo; return images per second.

    ``reduced``: decode at the smallest of 1/1, 1/2, 1/4, 1/8 that keeps so many pixels per side.
    """
    read = _decoder(reduced)

    def decode_all(subset: Sequence[Path]) -> None:
        for file in subset:
            read(file.read_bytes())

    subsets = [files[start :: 4 * cores] for start in range(4 * cores)]
    began = time.perf_counter()
    with ThreadPoolExecutor(cores) as pool:
        list(pool.map(decode_all, subsets))
    return len(files) / (time.perf_counter() - began)


def _decoder(reduced: int) -> Callable[[bytes], object]:
    try:
        import simplejpeg
    except ModuleNotFoundError:
        from io import BytesIO

        from PIL import Image

        def by_pillow(data: bytes) -> object:
            with Image.open(BytesIO(data)) as image:
                if reduced:
                    scale = reduced / max(image.size)
                    image.draft(None, (round(image.width * scale), round(image.height * scale)))
                return np.asarray(image)

        return by_pillow

    def by_simplejpeg(data: bytes) -> object:
        return simplejpeg.decode_jpeg(
            data, fastdct=False, fastupsample=False, min_width=reduced, min_height=reduced * 3 // 4
        )

    return by_simplejpeg


def decoder_name() -> str:
    from importlib.metadata import PackageNotFoundError, version

    try:
        return f"simplejpeg {version('simplejpeg')}"
    except PackageNotFoundError:
        return f"pillow {version('pillow')}"


def network_rates(
    model: Path,
    runtime: str,
    cores: int,
    seconds: float,
    batches: Sequence[int],
    pixels: np.ndarray,
    only: str = "",
) -> dict[str, float]:
    """Run a graph on pixels in memory; return images per second by batch size and use of the cores.

    ``pixels``: from :func:`preprocess`; the work of the graph that ships depends on the faces.
    ``only``: one of the keys of an earlier call.
    """
    return {
        f"batch {batch}, {name}": _rate(run, batch, side_by_side, seconds)
        for batch in batches
        for name, run, side_by_side in _variants(model, runtime, cores, _in_batches(pixels, batch))
        if only in ("", f"batch {batch}, {name}")
    }


def preprocess(model: Path, files: Sequence[Path], faces: str) -> np.ndarray:
    """Preprocess images for a model as ``predict --faces`` does: ``uint8 [N, H, W, 3]``."""
    aligner = Classifier.load(model).aligner
    images = (decode(file.read_bytes()) for file in files)
    crops = [aligner(one) if faces == "auto" else aligner.align(one, None) for one in images]
    return np.stack([crop.pixels for crop in crops])


def _in_batches(pixels: np.ndarray, batch: int) -> list[np.ndarray]:
    starts = range(0, len(pixels) - batch + 1, batch)
    return [pixels[start : start + batch] for start in starts]


def _variants(
    model: Path, runtime: str, cores: int, pixels: list[np.ndarray]
) -> list[tuple[str, Callable[[], object], int]]:
    if runtime == "openvino":
        return [("streams", _openvino(model, cores, pixels), cores)]
    variants = [("side by side", _onnxruntime(model, 1, pixels), cores)]
    if cores > 1:
        variants.append(("all cores per run", _onnxruntime(model, cores, pixels), 1))
    return variants


def detector_rate(side: int, cores: int, seconds: float) -> float:
    """Run the face detector's graph alone on squares in memory, one per run and core."""
    from facegender.faces import yunet

    model = Path(yunet.__file__).with_name(yunet.DETECTOR_NAME)
    pixels = np.random.default_rng(0).integers(0, 256, (1, side, side, 3), np.uint8)
    return _rate(_onnxruntime(model, 1, [pixels]), 1, cores, seconds)


def _onnxruntime(model: Path, threads: int, pixels: list[np.ndarray]) -> Callable[[], object]:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])
    batches = cycle(pixels)
    return lambda: session.run(None, {"pixels": next(batches)})


def _openvino(model: Path, cores: int, pixels: list[np.ndarray]) -> Callable[[], object]:
    import threading

    import openvino

    network = openvino.Core().read_model(model)
    network.reshape(list(pixels[0].shape))
    options = {"NUM_STREAMS": cores, "INFERENCE_NUM_THREADS": cores}  # precision: its default
    compiled = openvino.compile_model(network, "CPU", options)
    batches, local = cycle(pixels), threading.local()

    def run() -> object:
        if not hasattr(local, "request"):
            local.request = compiled.create_infer_request()
        return local.request.infer([next(batches)])

    return run


def _rate(run: Callable[[], object], batch: int, threads: int, seconds: float) -> float:
    def until(end: float) -> int:
        count = 0
        while time.perf_counter() < end:
            run()
            count += 1
        return count

    run()  # alone: two first runs of OpenVINO's binding can deadlock
    with ThreadPoolExecutor(threads) as pool:
        list(pool.map(lambda _: run(), range(threads)))
        began = time.perf_counter()
        runs = sum(pool.map(until, [began + seconds] * threads))
        return runs * batch / (time.perf_counter() - began)


def product_rate(product: Callable[[], object], seconds: float) -> float:
    """Repeat one of :func:`products`; return G multiply-adds per second."""
    product()
    began, count = time.perf_counter(), 0
    while time.perf_counter() - began < seconds:
        product()
        count += 1
    return float(count * SIDE**3 / 1e9 / (time.perf_counter() - began))


def products(runtimes: Sequence[str], cores: int) -> dict[str, Callable[[], object]]:
    """Return functions that multiply two large matrices on all cores, by precision and library.

    No library reaches the peak of every processor (torch does not on AMD's), so several are
    measured; the best of them is the peak.
    """
    import torch

    left = torch.rand(SIDE, SIDE)
    half = left.bfloat16()
    found: dict[str, Callable[[], object]] = {
        "float32, torch": lambda: left @ left,
        "bfloat16, torch": lambda: half @ half,
    }
    values = left.numpy()
    graph = _product_graph()
    if "onnxruntime" in runtimes:
        import onnxruntime

        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = cores
        session = onnxruntime.InferenceSession(graph, options, providers=["CPUExecutionProvider"])
        found["float32, onnxruntime"] = lambda: session.run(None, {"a": values, "b": values})
    if "openvino" in runtimes:
        import openvino

        core = openvino.Core()
        model = core.read_model(graph)
        for precision, hint in (("float32", "f32"), ("bfloat16", "bf16")):
            options = {"INFERENCE_NUM_THREADS": cores, "INFERENCE_PRECISION_HINT": hint}
            request = core.compile_model(model, "CPU", options).create_infer_request()
            found[f"{precision}, openvino"] = partial(request.infer, [values, values])
    return found


def _product_graph() -> bytes:
    from onnx import TensorProto, helper

    ends = [
        helper.make_tensor_value_info(name, TensorProto.FLOAT, [SIDE, SIDE])
        for name in ("a", "b", "c")
    ]
    node = helper.make_node("MatMul", ["a", "b"], ["c"])
    graph = helper.make_graph([node], "product", ends[:2], ends[2:])
    opset = [helper.make_opsetid("", 18)]
    model = helper.make_model(graph, opset_imports=opset, ir_version=9)
    return bytes(model.SerializeToString())
