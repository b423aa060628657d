"""What others do with the same pictures: published peers, and the way of a plain torch script."""

from __future__ import annotations

import resource
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any


def published() -> tuple[Any, ...]:
    """The peers of ``benchmarks/accuracy/peers.py``, whether they are installed or not."""
    sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "accuracy"))
    from peers import PEERS

    return PEERS


def peer_rate(peer: Any, files: Sequence[Path], whole: bool) -> float:
    """Pictures a second of a published peer, its start and decoding not counted.

    ``whole``: each picture is the face, as it is; else the peer finds the face first.
    """
    from facegender.images.decode import decode

    images = [decode(file.read_bytes()) for file in files]
    began = 0.0

    def coming():  # type: ignore[no-untyped-def]
        nonlocal began
        yield images[0]  # its answer comes when all is loaded
        began = time.perf_counter()
        yield from images

    answers = list(peer.run(coming(), whole=whole))
    assert len(answers) == len(images) + 1
    return len(images) / (time.perf_counter() - began)


def user_way(files: Sequence[Path]) -> tuple[float, float]:
    """Load every picture as a tensor of 224x224, then ask a ResNet-18 one after the other.

    As the first script of this project's user did it; with random weights, for only its speed
    is asked for. Gives pictures a second, start and imports not counted, and its peak in MB.
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


if __name__ == "__main__":  # in a process of its own, for its memory
    import json

    folder, count = sys.argv[1:]
    print(json.dumps(user_way(sorted(Path(folder).iterdir())[: int(count)])))
