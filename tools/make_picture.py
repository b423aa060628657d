"""Make the README's picture: the report on faces/, as a browser shows it.

    python tools/make_picture.py --browser /usr/bin/chromium       writes docs/report.png

Playwright drives the browser (`pip install playwright`); without --browser it is Playwright's own
Chromium. The six portraits are in the public domain.
"""

from __future__ import annotations

import argparse
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from PIL import Image
from playwright.sync_api import sync_playwright

ROOT = Path(__file__).parents[1]
IMAGE = ROOT / "docs" / "report.png"
WIDTH, HEIGHT = 1100, 1130


def main() -> None:
    """Answer for faces/, open the report, take its picture."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--browser", help="a Chromium, instead of Playwright's own")
    browser_path = parser.parse_args().browser
    with tempfile.TemporaryDirectory() as folder:
        work = Path(folder)
        shutil.copytree(ROOT / "faces", work / "faces")
        command = [sys.executable, "-m", "facegender", "predict", "faces"]
        subprocess.run([*command, "--report", "report.html"], cwd=work, check=True)
        taken = work / "report.png"
        with sync_playwright() as playwright:
            # the page is our own and no other is opened, so it needs no sandbox, which root lacks
            browser = playwright.chromium.launch(
                executable_path=browser_path, args=["--no-sandbox"]
            )
            size = {"width": WIDTH, "height": HEIGHT}
            page = browser.new_page(viewport=size, locale="en-GB", color_scheme="light")
            page.goto((work / "report.html").as_uri())
            page.wait_for_load_state("networkidle")
            page.screenshot(path=taken)
            browser.close()
        with Image.open(taken) as image:
            image.quantize(256).save(IMAGE, optimize=True)
    print(f"{IMAGE}: {IMAGE.stat().st_size:,} bytes")


if __name__ == "__main__":
    main()
