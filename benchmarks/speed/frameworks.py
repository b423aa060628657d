"""Speed of others on the same images: published baselines, and a plain torch script."""

from __future__ import annotations

import resource
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

from benchmarks.accuracy.baselines import Baseline
from facegender.images.pixels import Pixels


def baseline_rate(baseline: Baseline, files: Sequence[Path], full_image: bool) -> float:
    """Measure images per second of a published baseline, without its start and decoding.

    ``full_image``: each image is the face; else the baseline detects the face first.
    """
    from facegender.images.decode import decode

    images = [decode(file.read_bytes()) for file in files]
    began = 0.0

    def timed_images() -> Iterator[Pixels]:
        nonlocal began
        yield images[0]  # its answer comes once everything is loaded
        began = time.perf_counter()
        yield from images

    answers = list(baseline.run(timed_images(), full_image=full_image))
    assert len(answers) == len(images) + 1
    return len(images) / (time.perf_counter() - began)


def torch_script(files: Sequence[Path]) -> tuple[float, float]:
    """Load all images as tensors of 224x224, then run a ResNet-18 on one after the other.

    This is what this project's first script did; the weights are random, since only the speed
    counts. Returns images per second, without start and imports, and the peak in MB.
    """
    import torch
    from PIL import Image
    from torchvision import models, transforms

    network = models.resnet18(weights=None)
    network.fc = torch.nn.Linear(network.fc.in_features, 2)
    network.eval()
    prepare = transforms.Compose(
        [
            transforms.Resize((224, 224)),
            transforms.Grayscale(3),
            transforms.ToTensor(),
            transforms.Normalize([0.485, 0.456, 0.406], [0.229, 0.224, 0.225]),
        ]
    )
    began = time.perf_counter()
    loaded = [prepare(Image.open(file).convert("RGB")) for file in files]
    with torch.no_grad():
        answers = [int(network(tensor[None]).argmax()) for tensor in loaded]
    rate = len(answers) / (time.perf_counter() - began)
    return rate, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


if __name__ == "__main__":  # in a process of its own, to measure its memory
    import json

    folder, count = sys.argv[1:]
    print(json.dumps(torch_script(sorted(Path(folder).iterdir())[: int(count)])))
