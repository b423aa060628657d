"""The images that speed is measured on, made once from the data, and how much is measured."""

from __future__ import annotations

import io
import shutil
import sys
import tarfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

from PIL import Image


@dataclass(frozen=True, slots=True)
class Bench:
    """Where the data is and how much is measured; the options of ``run.py`` describe each."""

    data: Path
    scratch: Path
    split: Path | None
    models: dict[str, Path]
    runtimes: tuple[str, ...]
    images: int
    some: int
    few: int
    photos: int
    steps: int
    growth: tuple[int, ...]
    audited: int
    validation: int | None
    rounds: int
    seconds: float

    def crops(self, count: int, side: int = 200) -> Path:
        """Make a folder of ``count`` JPEGs of faces, ``side`` pixels square."""
        folder = self.scratch / f"crops-{side}-{count}"
        return _made(folder, lambda to: self._write_crops(to, count, side))

    def _write_crops(self, folder: Path, count: int, side: int) -> None:
        for number, image in zip(range(count), self._faces(), strict=False):
            small = image.convert("RGB").resize((side, side), Image.Resampling.BICUBIC)
            small.save(folder / f"{number:06}.jpg", quality=92)

    def _faces(self) -> Iterator[Image.Image]:
        """Read faces of all sources; every archive is a random fifth of each."""
        for archive in self.archives():
            with tarfile.open(archive) as tar:
                for member in tar:
                    stream = tar.extractfile(member)
                    if stream is not None:
                        yield Image.open(io.BytesIO(stream.read()))

    def large(self) -> Path:
        """Make a folder of photos of 12 megapixels with faces: 20 different ones, and links."""
        return _made(self.scratch / f"photos-{self.photos}", self._write_photos)

    def _write_photos(self, folder: Path) -> None:
        with tarfile.open(self.data / "photos.tar") as tar:
            members = [member for member in tar if member.isfile()][: min(20, self.photos)]
            for number, member in enumerate(members):
                stream = tar.extractfile(member)
                assert stream is not None
                image = Image.open(io.BytesIO(stream.read())).convert("RGB")
                scale = (12e6 / (image.width * image.height)) ** 0.5
                size = (round(image.width * scale), round(image.height * scale))
                image.resize(size, Image.Resampling.BICUBIC).save(
                    folder / f"{number:06}.jpg", quality=90
                )
        for number in range(len(members), self.photos):
            (folder / f"{number:06}.jpg").symlink_to(f"{number % len(members):06}.jpg")

    def links(self, count: int, side: int = 200) -> Path:
        """Make a folder of ``count`` links to 200 crops."""

        def link(folder: Path) -> None:
            sources = sorted(self.crops(200, side).iterdir())
            for number in range(count):
                (folder / f"{number:07}.jpg").symlink_to(sources[number % len(sources)])

        return _made(self.scratch / f"links-{side}-{count}", link)

    def archives(self) -> list[Path]:
        """List the archives of labeled images."""
        return sorted(self.data.glob("faces-*.tar.gz"))

    def labeled(self) -> list[Path]:
        """List the archives to audit, or make one of the first images if not all are audited."""
        if not self.audited:
            return self.archives()
        first = self.archives()[0]
        return [_made(self.scratch / f"labeled-{self.audited}", self._write_archive) / first.name]

    def _write_archive(self, folder: Path) -> None:
        first = self.archives()[0]
        with tarfile.open(first) as archive, tarfile.open(folder / first.name, "w:gz") as subset:
            images = (member for member in archive if member.isfile())
            for member in islice(images, self.audited):
                subset.addfile(member, archive.extractfile(member))


def _made(folder: Path, make: Callable[[Path], None]) -> Path:
    """Make a folder if it is missing."""
    if not folder.is_dir():
        unfinished = folder.with_name(f"{folder.name}.tmp")
        shutil.rmtree(unfinished, ignore_errors=True)
        unfinished.mkdir(parents=True)
        log(f"making {folder.name}")
        make(unfinished)
        unfinished.rename(folder)
    return folder


def log(text: str) -> None:
    print(f"{time.strftime('%H:%M:%S')} {text}", file=sys.stderr, flush=True)
