"""Model files and images made by code, for the tests."""

from __future__ import annotations

import io
import json
from dataclasses import asdict
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper
from PIL import Image

from facegender.images.pixels import Pixels, Resize
from facegender.model.model_file import DESCRIPTION_KEY, DIGEST_KEY, ModelDescription, seal
from facegender.training.data.image_cache import ImageCache
from facegender.training.data.samples import Sample

SIDE = 32


def build_model(
    changes: dict[str, Any] | None = None,
    *,
    channel_weights: tuple[float, float, float] = (0.0, 0.02, -0.02),
    has_softmax: bool = True,
    is_sealed: bool = True,
) -> bytes:
    """A model file whose P(male) is that of a mean blue under the mean green, over all pixels."""
    weights = np.array([[-w for w in channel_weights], channel_weights], np.float32).T
    nodes = [
        helper.make_node("Cast", ["pixels"], ["float"], to=TensorProto.FLOAT),
        helper.make_node("ReduceMean", ["float", "axes"], ["mean"], keepdims=0),
        helper.make_node("MatMul", ["mean", "weights"], ["logits"]),
        helper.make_node("Softmax" if has_softmax else "Identity", ["logits"], ["probabilities"]),
    ]
    graph = helper.make_graph(
        nodes,
        "mean",
        [helper.make_tensor_value_info("pixels", TensorProto.UINT8, ["N", SIDE, SIDE, 3])],
        [helper.make_tensor_value_info("probabilities", TensorProto.FLOAT, ["N", 2])],
        [
            numpy_helper.from_array(np.array([1, 2], np.int64), "axes"),
            numpy_helper.from_array(weights, "weights"),
        ],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9)
    described = asdict(ModelDescription("mean", Resize(SIDE, SIDE))) | (changes or {})
    helper.set_model_props(model, {DESCRIPTION_KEY: json.dumps(described), DIGEST_KEY: "0" * 64})
    data: bytes = model.SerializeToString()
    return seal(data) if is_sealed else data


def build_foreign_model() -> bytes:
    """An ONNX file that facegender did not make."""
    model = onnx.load_from_string(build_model(is_sealed=False))
    del model.metadata_props[:]
    foreign: bytes = model.SerializeToString()
    return foreign


def image(
    label: str = "male", size: tuple[int, int] = (40, 48), seed: int | None = None
) -> Image.Image:
    """A textured image that the mean model classifies as ``label``."""
    rng = np.random.default_rng(seed)
    pixels = rng.integers(0, 60, (size[1], size[0], 3), dtype=np.uint8)
    pixels[..., 1 if label == "male" else 2] += 120
    return Image.fromarray(pixels)


def encode(image: Image.Image, kind: str = "PNG", **options: Any) -> bytes:
    """The content of an image file."""
    file = io.BytesIO()
    image.save(file, kind, **options)
    return file.getvalue()


def make_image_cache(samples: list[Sample], digests: list[str], pixels: Pixels) -> ImageCache:
    """A cache in memory of readable images, all taken in full."""
    nowhere = np.full((len(samples), 2, 3), np.nan, np.float32)
    return ImageCache(samples, digests, [""] * len(samples), pixels, pixels, nowhere)
