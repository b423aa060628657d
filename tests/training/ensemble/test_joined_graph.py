"""What the one graph of all members computes, and what its two small networks learn from."""

from __future__ import annotations

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from fake_members import red_is_male, rotated_by
from made import build_model
from onnx import TensorProto, helper
from scipy.special import expit

from facegender.training.data.image_cache import ImageCache
from facegender.training.ensemble import alignment_network, gating_network
from facegender.training.ensemble.graph_builder import GraphBuilder
from facegender.training.ensemble.joined_graph import Members, add_aligned_crops, join_members
from facegender.training.ensemble.open_networks import CLASSIFIER_MEAN, CLASSIFIER_SCALE
from facegender.training.ensemble.options import EnsembleOptions

OPTIONS = EnsembleOptions()


def run(model: onnx.ModelProto, **inputs: np.ndarray) -> np.ndarray:
    return onnxruntime.InferenceSession(model.SerializeToString()).run(None, inputs)[0]


def test_the_gating_network_answers_in_the_file_as_in_torch() -> None:
    torch.manual_seed(0)
    network = gating_network.build_gating_network().eval()
    x = torch.randn(5, 3, 32, 32)
    with torch.no_grad():
        expected = network(x).sigmoid().numpy()
    model = gating_network.export_gating_network(network)
    assert run(model, classifier_input=x.numpy()) == pytest.approx(expected, abs=1e-5)


@pytest.mark.parametrize("strength", [3.0, 60.0])  # 60: log odds over the limit
def test_log_odds_are_added_with_the_weight_of_the_gating_network(strength: float) -> None:
    torch.manual_seed(1)
    gating = gating_network.build_gating_network().eval()
    rng = np.random.default_rng(0)
    pixels = rng.integers(0, 256, (40, 1, 1, 3), np.uint8)
    pixels = np.ascontiguousarray(np.broadcast_to(pixels, (40, 32, 32, 3)))  # any view is the same
    trained = onnx.load_from_string(build_model())
    members = Members(
        32,
        trained,
        red_is_male(strength),
        gating_network.export_gating_network(gating),
        rotated_by(30.0),  # of an image of one color nothing is seen
    )
    x = (pixels[:, 0, 0] - np.array(CLASSIFIER_MEAN)) / CLASSIFIER_SCALE
    crops = np.broadcast_to(x[:, :, None, None], (40, 3, 32, 32)).astype(np.float32)
    with torch.no_grad():
        gate = gating(torch.tensor(crops)).sigmoid().numpy()[:, 0]
    assert gate.std() > 0
    alone = run(trained, pixels=pixels)
    first = np.clip(np.log(alone[:, 1] / alone[:, 0]), -9.2, 9.2)
    second = np.clip(strength * x[:, 0], -9.2, 9.2)
    total = 0.7 * first + gate * second - 0.5
    options = EnsembleOptions(trained_weight=0.7, log_odds_bias=-0.5)
    together = run(join_members(members, options, 2.0), pixels=pixels)
    assert together[:, 1] == pytest.approx(expit(total / 2), abs=1e-4)
    assert together.sum(1) == pytest.approx(1)


@pytest.mark.parametrize(("degrees", "quarters"), [(90.0, 1), (-90.0, -1), (180.0, 2), (5.0, 0)])
def test_a_rotated_crop_is_resampled_and_a_nearly_upright_one_is_not(
    degrees: float, quarters: int
) -> None:
    builder = GraphBuilder()
    thresholds = OPTIONS.align_degrees
    aligned = add_aligned_crops(builder, "crops", 32, rotated_by(degrees), thresholds)
    shape = ["N", 3, 32, 32]
    model = builder.build(
        "align",
        [helper.make_tensor_value_info("crops", TensorProto.FLOAT, shape)],
        [helper.make_tensor_value_info(aligned, TensorProto.FLOAT, shape)],
    )
    crops = np.random.default_rng(0).uniform(0, 255, (3, 3, 32, 32)).astype(np.float32)
    expected = np.rot90(crops, quarters, axes=(2, 3))
    assert run(model, crops=crops) == pytest.approx(expected, abs=1e-2)


def test_the_alignment_network_answers_in_the_file_as_in_torch() -> None:
    torch.manual_seed(0)
    network = alignment_network.build_alignment_network().eval()
    x = torch.rand(3, 3, 64, 64)
    with torch.no_grad():
        expected = network(x).numpy() * np.array(alignment_network.PARAMETER_SCALES)
    model = alignment_network.export_alignment_network(network)
    assert run(model, small_crop=x.numpy()) == pytest.approx(expected, abs=1e-4)


def test_the_parameters_of_a_similarity_follow_from_its_matrix() -> None:
    parameters = np.array([[0, 0, 0, 0], [45, 0.2, 0.1, -0.3], [-170, -0.4, 0, 1]], np.float64)
    matrices = alignment_network.similarity_matrices(parameters)
    assert alignment_network.similarity_parameters(matrices) == pytest.approx(parameters)


def test_a_misaligned_batch_is_the_same_again_and_another_at_the_next_step(
    cache: ImageCache,
) -> None:
    batch = alignment_network.misaligned_batch
    rows = np.arange(min(64, len(cache.samples)))
    x, target = batch(cache, rows, 0, 0)
    assert x.shape == (len(rows), 3, 64, 64) and x.isfinite().all()
    assert target.shape == (len(rows), 4) and target[:, 0].abs().max() > 20
    again, same = batch(cache, rows, 0, 0)
    assert torch.equal(x, again) and torch.equal(target, same)
    assert not torch.equal(target, batch(cache, rows, 0, 1)[1])
    assert not torch.equal(target, batch(cache, rows, 1, 0)[1])


def test_the_gating_network_learns_from_upright_and_from_degraded_images(
    cache: ImageCache,
) -> None:
    batch = gating_network.degraded_batch
    rows = np.arange(min(64, len(cache.samples)))
    x, target = batch(cache, rows, 0, 0)
    assert x.shape == (len(rows), 3, 32, 32) and x.isfinite().all()
    assert target.min() < 0.1 and target.max() > 0.9
    again, same = batch(cache, rows, 0, 0)
    assert torch.equal(x, again) and torch.equal(target, same)
    assert not torch.equal(target, batch(cache, rows, 0, 1)[1])
    assert not torch.equal(target, batch(cache, rows, 1, 0)[1])
