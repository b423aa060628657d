"""OpenCV's FaceDetectorYN finds what our own detector finds, from a file in OpenCV's form."""

from __future__ import annotations

import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper
from PIL import Image

import facegender
from facegender.errors import MissingExtraError, ModelFileError
from facegender.faces.opencv import OpenCVYuNet
from facegender.faces.yunet import YuNet
from facegender.images.pixels import Pixels

cv2 = pytest.importorskip("cv2", reason="the extra 'opencv' is not installed")

STRIDES = (8, 16, 32)


SIDE = 640
"""In the model zoo's file of 2023; its newer one leaves the size open, which needs OpenCV 5."""


def opencv_form(side: int | None) -> bytes:
    """The YuNet that ships, rewired to what FaceDetectorYN wants.

    Its input is ``float32 [1, 3, H, W]``, BGR; its outputs are, for each stride, the two parts of
    the score, the box and the landmarks, each ``[1, places, values]``.
    """
    shipped = onnx.load(Path(facegender.__file__).parent / "faces" / "yunet.onnx")
    graph = shipped.graph
    weights = {item.name: item for item in graph.initializer}
    stem = numpy_helper.to_array(weights["w0"])[:, ::-1]  # the channels the other way round
    weights["w0"].CopyFrom(numpy_helper.from_array(np.ascontiguousarray(stem), "w0"))
    made_by = {node.output[0]: node for node in graph.node}
    outputs: list[onnx.ValueInfoProto] = []
    nodes = [node for node in graph.node if node.op_type not in ("Cast", "Transpose", "Concat")]
    convolutions = [node for node in nodes if node.op_type == "Conv"]
    convolutions[0].input[0] = "input"
    for node in convolutions:  # OpenCV 4 does not read it from the weights
        shape = helper.make_attribute("kernel_shape", weights[node.input[1]].dims[2:])
        node.attribute.append(shape)
    sizes = {"cls": 1, "obj": 1, "bbox": 4, "kps": 10}
    for name, size in sizes.items():
        places = np.array([1, -1, size], np.int64)
        graph.initializer.append(numpy_helper.from_array(places, f"shape_{name}"))
    parts = numpy_helper.from_array(np.array([sizes["bbox"], sizes["kps"]], np.int64), "parts")
    graph.initializer.append(parts)
    for stride in STRIDES:
        _, places = made_by[f"all{stride}"].input
        halves = [f"box{stride}", f"points{stride}"]
        nodes.append(helper.make_node("Split", [places, "parts"], halves, axis=1))
        sources = dict(zip(sizes, [*made_by[f"product{stride}"].input, *halves], strict=True))
        for name, size in sizes.items():
            source = sources[name]
            output, turned = f"{name}_{stride}", f"{name}_{stride}_turned"
            nodes.append(helper.make_node("Transpose", [source], [turned], perm=[0, 2, 3, 1]))
            nodes.append(helper.make_node("Reshape", [turned, f"shape_{name}"], [output]))
            count = (side // stride) ** 2 if side else None
            outputs.append(
                helper.make_tensor_value_info(output, TensorProto.FLOAT, [1, count, size])
            )
    nodes = [node for node in nodes if node.op_type not in ("Mul", "Sqrt")]
    pixels = helper.make_tensor_value_info("input", TensorProto.FLOAT, [1, 3, side, side])
    model = helper.make_model(
        helper.make_graph(nodes, "yunet", [pixels], outputs, list(graph.initializer)),
        opset_imports=list(shipped.opset_import),
        ir_version=shipped.ir_version,
    )
    onnx.checker.check_model(model)
    data: bytes = model.SerializeToString()
    return data


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("detector") / "é中.onnx"
    path.write_bytes(opencv_form(SIDE))
    return path


@pytest.fixture(scope="module")
def detector(path: Path) -> OpenCVYuNet:
    return OpenCVYuNet(path)


@pytest.mark.parametrize(
    "box", [(0, 0, 512, 512), (100, 0, 401, 333), (130, 20, 330, 220), (176, 66, 272, 176)]
)
def test_it_finds_what_our_own_detector_finds(
    astronaut: Pixels, detector: OpenCVYuNet, box: tuple[int, int, int, int]
) -> None:
    """In a photo, at odd sizes, and where the face fills the image."""
    left, top, right, bottom = box
    pixels = np.ascontiguousarray(astronaut[top:bottom, left:right])
    (ours,), (face,) = YuNet().detect(pixels), detector.detect(pixels)
    np.testing.assert_allclose(face.landmarks, ours.landmarks, atol=3)
    np.testing.assert_allclose(
        (face.x, face.y, face.width, face.height), (ours.x, ours.y, ours.width, ours.height), atol=3
    )
    assert face.score == pytest.approx(ours.score, abs=0.02)


@pytest.mark.skipif(cv2.__version__ < "5", reason="OpenCV 4 wants a size in the file")
def test_a_file_that_leaves_the_size_open(
    astronaut: Pixels, detector: OpenCVYuNet, tmp_path: Path
) -> None:
    path = tmp_path / "open.onnx"
    path.write_bytes(opencv_form(None))
    (expected,), (face,) = detector.detect(astronaut), OpenCVYuNet(path).detect(astronaut)
    np.testing.assert_allclose(face.landmarks, expected.landmarks, atol=0.1)


def test_the_highest_score_comes_first_and_no_face_twice(
    astronaut: Pixels, detector: OpenCVYuNet
) -> None:
    crowd = np.zeros((700, 900, 3), np.uint8)
    for side, x, y in ((60, 40, 500), (150, 300, 100), (400, 480, 250)):
        head = Image.fromarray(astronaut[20:220, 130:330]).resize((side, side))
        crowd[y : y + side, x : x + side] = head
    scores = [face.score for face in detector.detect(crowd)]
    assert len(scores) == 3
    assert scores == sorted(scores, reverse=True)


def test_faces_below_the_minimum_score_are_left_out(
    astronaut: Pixels, detector: OpenCVYuNet
) -> None:
    assert detector.detect(astronaut, min_score=0.99) == []
    assert len(detector.detect(astronaut, min_score=0.9)) == 1


@pytest.mark.parametrize("shape", [(1, 1), (1, 300), (700, 2), (33, 31)])
def test_it_finds_nothing_in_nothing(detector: OpenCVYuNet, shape: tuple[int, int]) -> None:
    assert detector.detect(np.full((*shape, 3), 90, np.uint8)) == []


def test_threads_do_not_disturb_each_other(astronaut: Pixels, detector: OpenCVYuNet) -> None:
    """Images of many sizes at once: each gets the result that it gets alone."""
    images = [np.ascontiguousarray(astronaut[: 260 + 20 * n, : 330 + 10 * n]) for n in range(12)]
    alone = [detector.detect(image) for image in images]
    assert all(alone)
    with ThreadPoolExecutor(4) as pool:
        together = list(pool.map(detector.detect, images))
    for expected, faces in zip(alone, together, strict=True):
        places = [(face.x, face.y, face.width, face.height) for face in faces]
        wanted = [(face.x, face.y, face.width, face.height) for face in expected]
        np.testing.assert_allclose(places, wanted, atol=0.01)


def test_a_file_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(
        ModelFileError, match=r"Cannot read the detector .*yunet\.onnx: No such file"
    ):
        OpenCVYuNet(tmp_path / "yunet.onnx")


@pytest.mark.parametrize("kind", ["empty", "text", "another network", "the one that ships"])
def test_a_file_that_is_no_yunet(
    tmp_path: Path, model_path: Path, kind: str, capfd: pytest.CaptureFixture[str]
) -> None:
    shipped = Path(facegender.__file__).parent / "faces" / "yunet.onnx"
    data = {
        "empty": b"",
        "text": b"no network at all\n" * 9,
        "another network": model_path.read_bytes(),
        "the one that ships": shipped.read_bytes(),
    }[kind]
    path = tmp_path / "other.onnx"
    path.write_bytes(data)
    with pytest.raises(ModelFileError, match=r"other\.onnx is not a YuNet .* cls_8"):
        OpenCVYuNet(path)
    assert capfd.readouterr() == ("", "")


def test_without_opencv_it_says_what_to_install(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "cv2", None)
    with pytest.raises(MissingExtraError, match=r"pip install '\.\[opencv\]'"):
        OpenCVYuNet(path)
