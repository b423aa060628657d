"""The audit page in a browser: labels are decided by key and click, and the table is saved."""

from __future__ import annotations

import io
import json
import os
import tarfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from facegender.cli import main
from facegender.training.data.corrections import read_corrections

CHROMIUM = next(filter(os.path.exists, (os.environ.get("CHROMIUM", ""), "/usr/bin/chromium")), "")


@pytest.fixture(scope="module")
def found(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The audit of 240 tinted images, of which ten are in the wrong folder."""
    folder = tmp_path_factory.mktemp("review")
    rng = np.random.default_rng(1)
    with tarfile.open(folder / "faces.tar.gz", "w:gz") as archive:
        for number in range(240):
            channel = number % 2 * 2
            label = "male" if (channel == 0) != (number < 10) else "female"
            pixels = rng.integers(0, 120, (48, 48, 3), np.uint8)
            pixels[..., channel] += 120
            file = io.BytesIO()
            Image.fromarray(pixels).save(file, "PNG")
            entry = tarfile.TarInfo(f'{label}/{number}, </script> "x".png')
            entry.size = len(file.getvalue())
            file.seek(0)
            archive.addfile(entry, file)
    with pytest.raises(SystemExit) as done:
        main(["audit", str(folder / "faces.tar.gz"), "-o", str(folder / "found"), "-q"])
    assert done.value.code == 0
    return folder / "found"


def test_decisions_are_saved_as_corrections(found: Path, tmp_path: Path) -> None:
    api = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
    if not CHROMIUM:
        pytest.skip("no Chromium here: name its program in CHROMIUM")
    count = json.loads((found / "audit.json").read_text())["counts"]["label_issues"]
    assert count >= 5
    wrong: list[str] = []
    with api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        page: Any = browser.new_page(locale="en-US")
        page.on("pageerror", lambda error: wrong.append(str(error)))
        page.goto((found / "audit.html").as_uri())
        cards = page.locator(".review > li")
        assert cards.count() == count
        assert page.inner_text("#reviewed") == f"0 of {count} reviewed"
        assert f"{count} labels to review, about" in page.inner_text("main")
        assert page.locator("#save-review").is_disabled()
        digests = [cards.nth(row).get_attribute("data-sha") for row in range(4)]
        given = [cards.nth(row).locator("b").inner_text() for row in range(4)]
        cards.nth(0).focus()
        for key in ("f", "k", "d"):  # each moves on to the next card
            page.keyboard.press(key)
        cards.nth(3).get_by_role("button", name="Flip").click()
        page.keyboard.press("k")  # on the fifth
        page.keyboard.press("ArrowLeft")
        page.keyboard.press("u")  # undo the fifth
        page.reload()  # decisions stay
        assert page.inner_text("#reviewed") == f"4 of {count} reviewed"
        page.click("#language")
        assert page.inner_text("#reviewed") == f"Проверено 4 из {count}"
        assert page.inner_text(".review > li [data-decide=keep] >> nth=0") == "Верно"
        with page.expect_download() as download:
            page.click("#save-review")
        assert download.value.suggested_filename == "reviewed_labels.csv"
        download.value.save_as(tmp_path / "reviewed.csv")
        browser.close()
    assert not wrong
    before, after = (
        read_corrections(path) for path in (found / "label_issues.csv", tmp_path / "reviewed.csv")
    )
    other = {"male": "female", "female": "male"}
    labels = [other[given[0]], given[1], "", other[given[3]]]
    assert after.reviewed == {
        str(digest)[:16]: label for digest, label in zip(digests, labels, strict=True)
    }
    assert after.unreviewed == before.unreviewed - 4
    assert after.proposed.items() <= before.proposed.items()
