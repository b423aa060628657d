"""Write ``photos.csv``: the boxes of the faces on the photos, by consensus of detectors.

    python -m benchmarks.detectors.truth ../shared/data

A box counts if detectors of two families agree on it (IoU above 0.3); it is the mean of the
families' boxes. Boxes of one family alone are listed on standard error: all 12 were reviewed, and
show no face or are far off one.
"""

from __future__ import annotations

import csv
import sys
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from benchmarks.detectors.baselines import Boxes, installed
from benchmarks.detectors.scenes import TRUTH, iou, read_files

MIN_IOU = 0.3


@dataclass(slots=True)
class Cluster:
    """The boxes of one face, by detector."""

    boxes: dict[str, Boxes] = field(default_factory=dict)

    def mean(self) -> Boxes:
        """Average the boxes; every family counts once."""
        families = {name.split()[0] for name in self.boxes}
        means = [
            np.mean([box for name, box in self.boxes.items() if name.startswith(family)], 0)
            for family in families
        ]
        return np.asarray(np.mean(means, 0))


def main() -> None:
    detectors = {one.name: one.load() for one in installed() if "," not in one.name}
    with TRUTH.open("w", newline="") as file:
        out = csv.writer(file, lineterminator="\n")
        out.writerow(["file", "x", "y", "width", "height", "detectors"])
        for name, pixels in read_files(Path(sys.argv[1])):
            clusters: list[Cluster] = []
            for detector, detect in detectors.items():
                for box in detect(pixels):
                    near = [
                        cluster
                        for cluster in clusters
                        if detector not in cluster.boxes
                        and iou(box, cluster.mean()[None, :4])[0] > MIN_IOU
                    ]
                    (near[0] if near else _added(clusters)).boxes[detector] = box
            for cluster in clusters:
                row = [name, *cluster.mean()[:4].round(1).tolist(), len(cluster.boxes)]
                if len({detector.split()[0] for detector in cluster.boxes}) > 1:
                    out.writerow(row)
                else:
                    print("one family alone:", *row, *cluster.boxes, file=sys.stderr)


def _added(clusters: list[Cluster]) -> Cluster:
    clusters.append(Cluster())
    return clusters[-1]


if __name__ == "__main__":
    main()
