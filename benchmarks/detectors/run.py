"""Compare face detectors on the same pictures, and the rules around ours.

    python benchmarks/detectors/run.py ../shared/data -o benchmarks/results/detectors.json

in the environment that ``requirements.txt`` describes. Every detector sees every scene of
``scenes.py`` on one thread; its time is processor time, so that other work on the machine counts
little. A found box is right where it overlaps a face's place by 0.4 or more (intersection over
union); a crop of the data, whose face's place is not known, is found where a box holds the
picture's middle and a tenth of its area.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import time
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, field
from importlib.metadata import version
from pathlib import Path
from typing import Any

from peers import Look, Peer, installed
from rich.console import Console
from rich.progress import track
from rules import UNFOUND, report, see, unfound_crops
from scenes import Scene, judge, make_all, read_crops, read_photos
from scipy.stats import binomtest

from facegender.faces.yunet import YuNet


@dataclass(slots=True)
class Tally:
    """What one detector did with the scenes of one condition."""

    exact: int = 0
    faces: int = 0
    missed: int = 0
    wrong: int = 0
    images: int = 0
    milliseconds: list[float] = field(default_factory=list)

    def add(self, look: Look, scene: Scene) -> None:
        """Look at a scene and count."""
        began = time.process_time()
        found = look(scene.pixels)
        self.milliseconds.append((time.process_time() - began) * 1000)
        right, missed, wrong = judge(found[(-found[:, 4]).argsort(kind="stable")], scene)
        self.exact += not missed and not wrong
        self.faces += int(right.sum()) + missed
        self.missed += missed
        self.wrong += wrong
        self.images += 1

    def metrics(self) -> dict[str, Any]:
        """Counts and shares, with a Wilson interval of 95 % around the share of exact pictures."""
        interval = binomtest(self.exact, self.images).proportion_ci(method="wilson")
        return {
            "pictures": self.images,
            "exact": self.exact,
            "exact_share": round(self.exact / self.images, 4),
            "exact_interval": [round(interval.low, 4), round(interval.high, 4)],
            "faces": self.faces,
            "missed": self.missed,
            "wrong": self.wrong,
            "median_milliseconds": round(statistics.median(self.milliseconds), 1),
        }


def scenes(data: Path, photos: int | None, crops: int, each: int) -> Iterator[Scene]:
    """All scenes that every detector sees."""
    taken = read_photos(data, photos)
    yield from taken
    yield from read_crops(data, crops)
    yield from make_all(taken, each)


def describe(peer: Peer) -> dict[str, Any]:
    """What is known of a detector without a picture."""
    return {
        "package": f"{peer.package} {version(peer.package)}",
        **peer.sizes(),
        "license": peer.license,
        "runs_on": peer.runs_on,
        "landmarks": peer.landmarks,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("data", type=Path)
    parser.add_argument("-o", "--output", type=Path)
    parser.add_argument("--photos", type=int, help="only so many photos")
    parser.add_argument("--crops", type=int, default=100, help="of each source")
    parser.add_argument("--turned", type=int, default=100, help="photos at each turn")
    parser.add_argument("--store", type=Path, help="a store of training over all crops")
    parser.add_argument("--only", nargs="*", metavar="DETECTOR", help="keep the others' figures")
    arguments = parser.parse_args()
    kept: dict[str, Any] = {}
    if arguments.only is not None:
        kept = json.loads(arguments.output.read_text(encoding="utf-8"))["detectors"]
    names = arguments.only if kept else [peer.name for peer in installed()]
    peers = [(peer, peer.load()) for peer in installed() if peer.name in names]
    detector = YuNet()
    tallies: dict[str, dict[str, Tally]] = {peer.name: defaultdict(Tally) for peer, _ in peers}
    seen = []
    everything = scenes(arguments.data, arguments.photos, arguments.crops, arguments.turned)
    console = Console(stderr=True)
    for scene in track(everything, "pictures", console=console, disable=not console.is_terminal):
        for peer, look in peers:
            tallies[peer.name][scene.condition].add(look, scene)
        seen.append(see(scene, detector))
    if arguments.store:
        unfound = unfound_crops(arguments.data, arguments.store)
        seen += [see(scene, detector) for scene in unfound]
    result = {
        "detectors": kept
        | {
            peer.name: describe(peer)
            | {"conditions": {name: t.metrics() for name, t in tallies[peer.name].items()}}
            for peer, _ in peers
        },
        "rules": report(seen, arguments.store),
        "notes": {
            "right": "overlap of 0.4 with the face's place; for a crop of the data: the first box "
            "that holds the picture's middle and a tenth of its area",
            UNFOUND: "the crops of all the data in which training found no face from 0.5 on; "
            "looked at, 17 of 78 show a face or most of one; the others cloth, letters, ears",
        },
        "processors": os.cpu_count(),
        "machine": f"{platform.system()} {platform.machine()}",
        "versions": {name: version(name) for name in ("facegender", "onnxruntime", "numpy")},
    }
    text = json.dumps(result, indent=1, ensure_ascii=False)
    if arguments.output:
        arguments.output.write_text(text + "\n", encoding="utf-8")
    else:
        print(text)


if __name__ == "__main__":
    main()
