"""What others do with the same pictures: published peers, and the way of a plain torch script."""

from __future__ import annotations

import resource
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np


def peer_rate(name: str, files: Sequence[Path]) -> float:
    """One of ``benchmarks/accuracy/peers.py``: pictures a second, its start not counted."""
    sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "accuracy"))
    from peers import PEERS

    from facegender.images import decode

    peer = next(peer for peer in PEERS if peer.name == name)
    pictures = [decode(file.read_bytes()) for file in files]
    began = 0.0

    def coming():  # type: ignore[no-untyped-def]
        nonlocal began
        yield pictures[0]  # its answer comes when all is loaded
        began = time.perf_counter()
        yield from pictures

    answers = list(peer.run(coming()))
    assert len(answers) == len(pictures) + 1
    return len(pictures) / (time.perf_counter() - began)


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


def training_rates(data: Path, pictures: int, steps: int) -> tuple[float, float]:
    """Steps of training as ``train`` does them, and the same on tensors that are ready; in turns.

    Gives pictures a second of both. The network and its recipe are ``best``.
    """
    import tarfile
    import tempfile

    from facegender.training import fit
    from facegender.training.devices import make_fabric
    from facegender.training.network import build_network
    from facegender.training.recipe import read_recipe
    from facegender.training.samples import Sample
    from facegender.training.store import store_in_memory

    recipe = read_recipe("best")
    with tarfile.open(data / "faces-0.tar.gz") as tar:
        some = []
        for member in tar:
            stream = tar.extractfile(member)
            if stream is not None and member.name.endswith(".webp"):
                label = "male" if "male" in member.name.split("/")[:-1] else "female"
                some.append((Sample("faces-0", member.name, label), stream.read()))
            if len(some) == pictures:
                break
    store = store_in_memory(some, recipe.input.framer)
    batch = recipe.fit.batch
    order = np.resize(np.arange(len(store.labels)), batch * (steps + 1))
    network = build_network(recipe.network.name)
    seconds = [0.0, 0.0]
    with tempfile.TemporaryDirectory() as folder:
        loop = fit._Loop(network, store, recipe, Path(folder), make_fabric(recipe, 1))
        batches = loop.loader.of_epoch(order, 0)
        ready = next(batches)
        loop.step(ready, 10, 1)  # warms up
        for _ in range(steps):
            began = time.perf_counter()
            loop.step(next(batches), 10, 1)
            seconds[0] += time.perf_counter() - began
            began = time.perf_counter()
            loop.step(ready, 10, 1)
            seconds[1] += time.perf_counter() - began
    return batch * steps / seconds[0], batch * steps / seconds[1]


if __name__ == "__main__":  # in a process of its own, for its memory and its threads
    import json

    what, *arguments = sys.argv[1:]
    if what == "user":
        print(json.dumps(user_way(sorted(Path(arguments[0]).iterdir())[: int(arguments[1])])))
    else:
        print(json.dumps(training_rates(Path(arguments[0]), int(arguments[1]), int(arguments[2]))))
