"""Make the screenshot in the README: the report on faces/.

    python tools/make_picture.py --browser /usr/bin/chromium       writes docs/report.png

Needs Playwright (`pip install playwright`); without --browser it uses Playwright's own Chromium.
The six portraits are in the public domain.
"""

from __future__ import annotations

import argparse
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from PIL import Image
from playwright.sync_api import ViewportSize, sync_playwright

ROOT = Path(__file__).parents[1]
IMAGE = ROOT / "docs" / "report.png"
WIDTH, HEIGHT = 1100, 1130


def main() -> None:
    """Run predict on faces/, open the report, take the screenshot."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--browser", help="path of a Chromium instead of Playwright's own")
    browser_path = parser.parse_args().browser
    with tempfile.TemporaryDirectory() as folder:
        work = Path(folder)
        shutil.copytree(ROOT / "faces", work / "faces")
        command = [sys.executable, "-m", "facegender", "predict", "faces"]
        subprocess.run([*command, "--report", "report.html"], cwd=work, check=True)
        screenshot = work / "report.png"
        with sync_playwright() as playwright:
            # root has no sandbox; only our own page is opened, which needs none
            browser = playwright.chromium.launch(
                executable_path=browser_path, args=["--no-sandbox"]
            )
            viewport = ViewportSize(width=WIDTH, height=HEIGHT)
            page = browser.new_page(viewport=viewport, locale="en-US", color_scheme="light")
            page.goto((work / "report.html").as_uri())
            page.wait_for_load_state("networkidle")
            page.screenshot(path=screenshot)
            browser.close()
        with Image.open(screenshot) as image:
            image.quantize(256).save(IMAGE, optimize=True)
    print(f"{IMAGE}: {IMAGE.stat().st_size:,} bytes")


if __name__ == "__main__":
    main()
