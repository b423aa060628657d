"""Compare face detectors on the same images, and the rules around ours.

    python -m benchmarks.detectors.run ../shared/data -o benchmarks/results/detectors.json

Runs in the environment that ``requirements.txt`` describes. Every detector sees every scene of
``scenes.py`` on one thread; times are processor time, so that other load on the machine matters
little. A box is correct if its IoU with a face is 0.4 or more; in a crop of the data, where the
face's box is not known, if it covers the center of the image and a tenth of its area.
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

from rich.console import Console
from rich.progress import track
from scipy.stats import binomtest

from benchmarks.detectors.baselines import Detect, Detector, installed
from benchmarks.detectors.rules import UNFOUND, observe, report, unfound_crops
from benchmarks.detectors.scenes import Scene, judge, make_all, read_crops, read_photos
from facegender.faces.yunet import YuNet


@dataclass(slots=True)
class Tally:
    """Counts of one detector on the scenes of one condition."""

    exact: int = 0
    faces: int = 0
    missed: int = 0
    wrong: int = 0
    images: int = 0
    milliseconds: list[float] = field(default_factory=list)

    def add(self, detect: Detect, scene: Scene) -> None:
        """Run the detector on a scene and count."""
        began = time.process_time()
        found = detect(scene.pixels)
        self.milliseconds.append((time.process_time() - began) * 1000)
        correct, missed, wrong = judge(found[(-found[:, 4]).argsort(kind="stable")], scene)
        self.exact += not missed and not wrong
        self.faces += int(correct.sum()) + missed
        self.missed += missed
        self.wrong += wrong
        self.images += 1

    def metrics(self) -> dict[str, Any]:
        """Return the counts, and the fraction of exact images with its 95 % Wilson interval."""
        interval = binomtest(self.exact, self.images).proportion_ci(method="wilson")
        return {
            "images": self.images,
            "exact": self.exact,
            "exact_fraction": round(self.exact / self.images, 4),
            "exact_interval": [round(interval.low, 4), round(interval.high, 4)],
            "faces": self.faces,
            "missed": self.missed,
            "wrong": self.wrong,
            "median_milliseconds": round(statistics.median(self.milliseconds), 1),
        }


def scenes(data: Path, photos: int | None, crops: int, each: int) -> Iterator[Scene]:
    """Give all scenes."""
    photo_scenes = read_photos(data, photos)
    yield from photo_scenes
    yield from read_crops(data, crops)
    yield from make_all(photo_scenes, each)


def describe(detector: Detector) -> dict[str, Any]:
    """Describe a detector: package, sizes, license."""
    return {
        "package": f"{detector.package} {version(detector.package)}",
        **detector.sizes(),
        "license": detector.license,
        "runs_on": detector.runs_on,
        "landmarks": detector.landmarks,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("data", type=Path)
    parser.add_argument("-o", "--output", type=Path)
    parser.add_argument("--photos", type=int, help="number of photos; default: all")
    parser.add_argument("--crops", type=int, default=100, help="crops of each source")
    parser.add_argument("--rotated", type=int, default=100, help="photos at each rotation")
    parser.add_argument("--image-cache", type=Path, help="training's image cache of all crops")
    parser.add_argument(
        "--only", nargs="*", metavar="DETECTOR", help="keep the results of the others"
    )
    options = parser.parse_args()
    earlier: dict[str, Any] = {}
    if options.only is not None:
        earlier = json.loads(options.output.read_text(encoding="utf-8"))["detectors"]
    names = options.only if earlier else [one.name for one in installed()]
    detectors = [(one, one.load()) for one in installed() if one.name in names]
    ours = YuNet()
    tallies: dict[str, dict[str, Tally]] = {one.name: defaultdict(Tally) for one, _ in detectors}
    observations = []
    everything = scenes(options.data, options.photos, options.crops, options.rotated)
    console = Console(stderr=True)
    for scene in track(everything, "images", console=console, disable=not console.is_terminal):
        for one, detect in detectors:
            tallies[one.name][scene.condition].add(detect, scene)
        observations.append(observe(scene, ours))
    if options.image_cache:
        unfound = unfound_crops(options.data, options.image_cache)
        observations += [observe(scene, ours) for scene in unfound]
    result = {
        "detectors": earlier
        | {
            one.name: describe(one)
            | {"conditions": {name: t.metrics() for name, t in tallies[one.name].items()}}
            for one, _ in detectors
        },
        "rules": report(observations, options.image_cache),
        "notes": {
            "correct": "IoU of 0.4 with a face's box; for a crop of the data: the first box that "
            "covers the image's center and a tenth of its area",
            UNFOUND: "the crops of all the data in which training found no face from 0.5 on; "
            "reviewed: 17 of 78 show a face or most of one; the others cloth, letters, ears",
        },
        "processors": os.cpu_count(),
        "machine": f"{platform.system()} {platform.machine()}",
        "versions": {name: version(name) for name in ("facegender", "onnxruntime", "numpy")},
    }
    text = json.dumps(result, indent=1, ensure_ascii=False)
    if options.output:
        options.output.write_text(text + "\n", encoding="utf-8")
    else:
        print(text)


if __name__ == "__main__":
    main()
