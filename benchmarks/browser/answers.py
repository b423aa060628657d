"""Compare the answers of the page of `facegender page` with those of `predict`, on random images.

    facegender page -o site --runtime npm
    python -m benchmarks.browser.answers site ARCHIVE... --draw 40 -o FILE.json

Needs playwright, and Chromium (its path may be given in CHROMIUM). No image is kept.
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
COMPARED_COLUMNS = ("status", "label", "crop", "width", "height")
BOX_COLUMNS = ("x", "y", "width", "height")
TIMEOUT_SECONDS = 1800


class QuietHandler(http.server.SimpleHTTPRequestHandler):
    def log_message(self, *args: Any) -> None:
        """Log nothing."""


@contextmanager
def serve(folder: Path) -> Iterator[str]:
    handler = functools.partial(QuietHandler, directory=str(folder))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()
        thread.join()


def draw(archive: Path, count: int, seed: int, folder: Path) -> None:
    """Copy a uniform random sample of an archive's images into a folder (reservoir sampling)."""
    rng = random.Random(seed)
    sample: list[tuple[str, bytes]] = []
    images = (item for item in collect_inputs([archive], recursive=True) if item.is_image)
    for number, item in enumerate(images):
        slot = number if number < count else rng.randrange(number + 1)
        if slot < count:
            data = item.data
            if data is None:
                assert item.path is not None
                data = item.path.read_bytes()
            sample[slot : slot + 1] = [(item.key, data)]
    for number, (name, data) in enumerate(sample):
        (folder / f"{archive.name} {number}{Path(name).suffix}").write_bytes(data)


def answers_of_page(address: str, folder: Path) -> tuple[str, dict[str, list[dict[str, str]]]]:
    """Run the page on a folder; return the browser's version, and rows by file."""
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        page = browser.new_page(locale="en-US")
        page.goto(address)
        page.set_input_files("#files", [str(path) for path in sorted(folder.iterdir())])
        for _ in range(TIMEOUT_SECONDS):
            if page.inner_text("#status").startswith("Done"):
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
    """Compare every row of the page with that of `predict`."""
    different, differences, shifts = [], [0.0], [0]
    rows = list(predict_folder(folder))
    for row in rows:
        page_rows = found[str(row.file)]
        if len(page_rows) != sum(one.file == row.file for one in rows):
            different.append(f"{row.file}: {len(page_rows)} rows")
            continue
        page_row = page_rows[row.face_index or 0]
        expected = {name: getattr(row, name) for name in COMPARED_COLUMNS}
        if any((page_row[name] or "None") != str(value) for name, value in expected.items()):
            values = [page_row[name] for name in COMPARED_COLUMNS]
            different.append(f"{row.file}: {values}, not {[*expected.values()]}")
        elif row.probability is not None and row.box is not None:
            differences.append(abs(float(page_row["probability"]) - row.probability))
            shifts += [
                abs(int(page_row[f"box_{side}"]) - getattr(row.box, side)) for side in BOX_COLUMNS
            ]
    return {
        "images": len({row.file for row in rows}),
        "faces": sum(row.face_index is not None for row in rows),
        "different": different,
        "max_probability_difference": round(max(differences), 4),
        "max_box_difference_pixels": max(shifts),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("site", type=Path, help="the folder of `facegender page`")
    parser.add_argument("archives", type=Path, nargs="+", help="images, as for predict")
    parser.add_argument("--draw", type=int, default=30, help="images of each archive")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--output", "-o", type=Path, required=True)
    options = parser.parse_args()
    site_model = json.loads((options.site / "local/model.json").read_text("utf-8"))
    assert site_model["digest"] == Classifier.load().digest, "The site has another network"
    result: dict[str, Any] = {
        "command": " ".join(
            ["python -m benchmarks.browser.answers"]
            + [Path(word).name if Path(word).is_absolute() else word for word in sys.argv[1:]]
        ),
        "model": site_model["digest"],
        "runtime": site_model["runtime"],
        "pillow": PIL.__version__,
        "archives": {},
    }
    with serve(options.site) as address:
        for archive in options.archives:
            with tempfile.TemporaryDirectory() as name:
                draw(archive, options.draw, options.seed, Path(name))
                result["chromium"], rows = answers_of_page(address, Path(name))
                result["archives"][archive.name] = compare(Path(name), rows)
            print(archive.name, json.dumps(result["archives"][archive.name]), file=sys.stderr)
    options.output.write_text(json.dumps(result, indent=2) + "\n", "utf-8")


if __name__ == "__main__":
    main()
