"""Write ``photos.csv``: where the faces on the photos are, as two families of detectors say.

    python benchmarks/detectors/truth.py ../shared/data

A box counts where detectors of two families agree on it (overlap 0.3); it is the mean of the
families' boxes. What one family alone finds is listed on standard error: it was looked at, and all
12 such boxes are no faces, or a box far beside one.
"""

from __future__ import annotations

import csv
import sys
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from peers import Boxes, installed
from scenes import TRUTH, overlap, read_files

SAME = 0.3


@dataclass(slots=True)
class Cluster:
    """Boxes of one face, by detector."""

    boxes: dict[str, Boxes] = field(default_factory=dict)

    def mean(self) -> Boxes:
        """Every family counts once."""
        families = {name.split()[0] for name in self.boxes}
        return np.mean(
            [
                np.mean([box for name, box in self.boxes.items() if name.startswith(family)], 0)
                for family in families
            ],
            0,
        )


def main() -> None:
    scales = {peer.name: peer.load() for peer in installed() if "," not in peer.name}
    with TRUTH.open("w", newline="") as file:
        out = csv.writer(file, lineterminator="\n")
        out.writerow(["file", "x", "y", "width", "height", "detectors"])
        for name, pixels in read_files(Path(sys.argv[1])):
            clusters: list[Cluster] = []
            for detector, look in scales.items():
                for box in look(pixels):
                    near = [
                        cluster
                        for cluster in clusters
                        if detector not in cluster.boxes
                        and overlap(box, cluster.mean()[None, :4])[0] > SAME
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
