"""Images, caches, archives and one small run, all made by code."""

from __future__ import annotations

import io
import os
import tarfile
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from made import make_image_cache
from numpy.typing import NDArray
from PIL import Image, ImageDraw

# Before anything imports huggingface_hub: a test that would download fails at once instead.
os.environ["HF_HUB_OFFLINE"] = "1"
# Networks this small are quicker on one thread, above all beside other work.
torch.set_num_threads(1)

from facegender.model.model_file import LABELS  # noqa: E402
from facegender.training.console import Console  # noqa: E402
from facegender.training.data.image_cache import ImageCache  # noqa: E402
from facegender.training.data.samples import Sample  # noqa: E402
from facegender.training.recipe import (  # noqa: E402
    AugmentOptions,
    InputOptions,
    NetworkOptions,
    Recipe,
    TrainOptions,
)
from facegender.training.run_folder import TrainRequest  # noqa: E402
from facegender.training.train import train  # noqa: E402

SIDE = 32
TINY = Recipe(
    name="tiny",
    network=NetworkOptions("test_resnet"),  # timm's own, made for tests: 0.4 M parameters
    input=InputOptions(height=SIDE, width=SIDE),
    augment=AugmentOptions(hflip_prob=0.5, rotation_degrees=20, scale=1.1, color_jitter=0.1),
    train=TrainOptions(epochs=3, batch_size=16, learning_rate=2e-3, precision="32"),
)


def draw_face(label: str, seed: int, size: tuple[int, int] = (36, 40)) -> Image.Image:
    """A "face" on a gray background: reddish is male, bluish is female."""
    rng = np.random.default_rng([seed, LABELS.index(label)])
    background = int(rng.integers(60, 200))
    image = Image.new("RGB", size, (background, background, background))
    strong, weak = int(rng.integers(170, 255)), int(rng.integers(20, 90))
    skin = (strong, weak, weak) if label == "male" else (weak, weak, strong)
    left, top = (int(rng.integers(1, max(2, side // 4))) for side in size)
    box = (left, top, max(left, size[0] - left), max(top, size[1] - top))
    ImageDraw.Draw(image).ellipse(box, skin)
    return image


def make_cache(count: int, side: int = SIDE) -> ImageCache:
    """A cache in memory: every second image male, sources of uneven size."""
    samples = [
        Sample(
            "a.tar", f"{LABELS[i % 2]}/{i}.png", LABELS[i % 2], source="web" if i % 5 else "film"
        )
        for i in range(count)
    ]
    pixels = [np.asarray(draw_face(s.label, i, (side, side))) for i, s in enumerate(samples)]
    return make_image_cache(samples, [f"{i:064x}" for i in range(count)], np.stack(pixels))


def png(image: Image.Image, **options: object) -> bytes:
    file = io.BytesIO()
    image.save(file, "PNG", **options)
    return file.getvalue()


@pytest.fixture
def recipe() -> Recipe:
    return TINY


@pytest.fixture(scope="session")
def draw() -> Callable[..., Image.Image]:
    return draw_face


@pytest.fixture(scope="session")
def cache() -> ImageCache:
    """100 images: neither 70 nor 30 of them are a multiple of a batch of 16."""
    return make_cache(100)


@pytest.fixture(scope="session")
def train_rows() -> NDArray[np.int64]:
    return np.arange(70, dtype=np.int64)


@pytest.fixture(scope="session")
def validation_rows() -> NDArray[np.int64]:
    return np.arange(70, 100, dtype=np.int64)


@pytest.fixture(scope="session")
def request_of_run(tmp_path_factory: pytest.TempPathFactory) -> TrainRequest:
    """A tar.gz, a zip and a folder of 40 images each, with metadata; one copy, one broken file.

    30 persons have images in both archives; those of the folder have no person. One label in
    eight is wrong, so that there is something to calibrate. Without an audit, for most tests do not
    look at one.
    """
    root = tmp_path_factory.mktemp("data")
    rows = ["file,archive,person,source,age,race"]
    with (
        tarfile.open(root / "a.tar.gz", "w:gz") as tar,
        zipfile.ZipFile(root / "b.zip", "w") as packed,
    ):
        for i in range(40):
            label = LABELS[i % 2]
            for archive in ("a.tar.gz", "b.zip", "c"):
                name = f"{label}/{archive[0]}{i}.png"
                drawn = LABELS[1 - i % 2] if i % 8 == 0 else label
                data = png(draw_face(drawn, i + 100 * ord(archive[0])))
                if archive == "a.tar.gz":
                    info = tarfile.TarInfo(f"deep/{name}")
                    info.size = len(data)
                    tar.addfile(info, io.BytesIO(data))
                    rows.append(f"deep/{name},{archive},p{i % 30},film,{i},group {i % 3}")
                elif archive == "b.zip":
                    packed.writestr(name, data)
                    rows.append(f"{name},{archive},p{i % 30},web,,")
                else:
                    (root / "c" / label).mkdir(parents=True, exist_ok=True)
                    (root / "c" / name).write_bytes(data)
        tar.addfile(tarfile.TarInfo("deep/male/empty.png"))
    (root / "c" / "male" / "copy.png").write_bytes((root / "c" / "male" / "c1.png").read_bytes())
    table = root / "table.csv"
    table.write_text("\n".join(rows), encoding="utf-8")
    inputs = tuple(str(root / name) for name in ("a.tar.gz", "b.zip", "c"))
    terms = {"license": "none", "terms": "made by code"}
    return TrainRequest(inputs, metadata=str(table), test=0.2, audit="", **terms)


@pytest.fixture(scope="session")
def run_folder(request_of_run: TrainRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run over ``request_of_run``."""
    folder = tmp_path_factory.mktemp("runs") / "first"
    train(request_of_run, TINY, folder, console=Console(quiet=True))
    return folder
