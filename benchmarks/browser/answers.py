"""Whether the page of `facegender page` answers as `predict` does, on pictures drawn at random.

    facegender page -o site --runtime npm
    python benchmarks/browser/answers.py site ARCHIVE... --draw 40 -o FILE.json

Needs Chromium (or its path in CHROMIUM) and playwright. No picture is kept.
"""

from __future__ import annotations

import argparse
import csv
import functools
import http.server
import io
import json
import os
import random
import sys
import tempfile
import threading
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import PIL
from playwright.sync_api import sync_playwright

from facegender.inference.classifier import Classifier
from facegender.inference.predict import predict_folder
from facegender.inputs.paths import collect_inputs

CHROMIUM = os.environ.get("CHROMIUM", "/usr/bin/chromium")
SAME = ("status", "label", "crop", "width", "height")
SIDES = ("x", "y", "width", "height")
SECONDS = 1800


class Quiet(http.server.SimpleHTTPRequestHandler):
    def log_message(self, *args: Any) -> None:
        """Say nothing."""


@contextmanager
def served(folder: Path) -> Iterator[str]:
    handler = functools.partial(Quiet, directory=str(folder))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()
        thread.join()


def draw(archive: Path, count: int, seed: int, place: Path) -> None:
    """Put some of an archive's pictures into a folder, each as likely as any other."""
    rng = random.Random(seed)
    kept: list[tuple[str, bytes]] = []
    images = (item for item in collect_inputs([archive], recursive=True) if item.is_image)
    for number, item in enumerate(images):
        at = number if number < count else rng.randrange(number + 1)
        if at < count:
            kept[at : at + 1] = [(item.key, item.data or item.path.read_bytes())]
    for number, (name, data) in enumerate(kept):
        (place / f"{archive.name} {number}{Path(name).suffix}").write_bytes(data)


def of_the_page(address: str, folder: Path) -> tuple[str, dict[str, list[dict[str, str]]]]:
    """Have the page answer for a folder: the browser's version, and rows by file."""
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        page = browser.new_page(locale="en-US")
        page.goto(address)
        page.set_input_files("#files", [str(path) for path in sorted(folder.iterdir())])
        for _ in range(SECONDS):
            if page.inner_text("#told").startswith("All answered"):
                break
            page.wait_for_timeout(1000)
        with page.expect_download() as download:
            page.click("#save-csv")
        text = Path(download.value.path()).read_text("utf-8")
        version = browser.version
        browser.close()
    rows = defaultdict(list)
    for row in csv.DictReader(io.StringIO(text, newline="")):
        rows[row["file"]].append(row)
    return version, rows


def compare(folder: Path, found: dict[str, list[dict[str, str]]]) -> dict[str, Any]:
    """Hold every row of the page against the one of `predict`."""
    other, apart, shifts = [], [0.0], [0]
    rows = list(predict_folder(folder))
    for row in rows:
        there = found[str(row.file)]
        if len(there) != sum(one.file == row.file for one in rows):
            other.append(f"{row.file}: {len(there)} rows")
            continue
        mine = there[row.face_index or 0]
        said = {name: getattr(row, name) for name in SAME}
        if any((mine[name] or "None") != str(value) for name, value in said.items()):
            other.append(f"{row.file}: {[mine[name] for name in SAME]}, not {[*said.values()]}")
        elif row.probability is not None and row.box is not None:
            apart.append(abs(float(mine["probability"]) - row.probability))
            shifts += [abs(int(mine[f"box_{side}"]) - getattr(row.box, side)) for side in SIDES]
    return {
        "pictures": len({row.file for row in rows}),
        "faces": sum(row.face_index is not None for row in rows),
        "other": other,
        "probability_apart_at_most": round(max(apart), 4),
        "box_pixels_apart_at_most": max(shifts),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("site", type=Path, help="the folder of `facegender page`")
    parser.add_argument("archives", type=Path, nargs="+", help="pictures, as for predict")
    parser.add_argument("--draw", type=int, default=30, help="of each archive")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--output", "-o", type=Path, required=True)
    options = parser.parse_args()
    site_model = json.loads((options.site / "local/model.json").read_text("utf-8"))
    assert site_model["digest"] == Classifier.load().digest, "the site has another network"
    result: dict[str, Any] = {
        "command": " ".join(
            ["python benchmarks/browser/answers.py"]
            + [Path(word).name if Path(word).is_absolute() else word for word in sys.argv[1:]]
        ),
        "model": site_model["digest"],
        "runtime": site_model["runtime"],
        "pillow": PIL.__version__,
        "archives": {},
    }
    with served(options.site) as address:
        for archive in options.archives:
            with tempfile.TemporaryDirectory() as name:
                draw(archive, options.draw, options.seed, Path(name))
                result["chromium"], rows = of_the_page(address, Path(name))
                result["archives"][archive.name] = compare(Path(name), rows)
            print(archive.name, json.dumps(result["archives"][archive.name]), file=sys.stderr)
    options.output.write_text(json.dumps(result, indent=2) + "\n", "utf-8")


if __name__ == "__main__":
    main()
