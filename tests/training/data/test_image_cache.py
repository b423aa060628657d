"""The image cache has what ``resize(decode(bytes))`` returns, and is written once, atomically."""

from __future__ import annotations

import hashlib
import os
import tarfile
from collections import namedtuple
from collections.abc import Callable
from io import BytesIO
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from facegender.errors import InputError, OutputError
from facegender.faces.alignment import ALIGNED_CROP, Crop
from facegender.faces.face_aligner import FaceAligner
from facegender.images.decode import decode
from facegender.images.pixels import Resize, resize
from facegender.training.data import cache_writer
from facegender.training.data.image_cache import open_image_cache
from facegender.training.data.image_rows import EncodedImages, read_rows

RESIZE = Resize(24, 20)
UNCROPPED = FaceAligner(Crop(), RESIZE)
PORTRAITS = Path(__file__).parents[3] / "faces"


@pytest.fixture
def faces(tmp_path: Path, draw: Callable[..., Image.Image]) -> Path:
    """Images of many sizes and kinds, and two files that are no images."""
    root = tmp_path / "faces"
    for label in ("male", "female"):
        (root / label).mkdir(parents=True)
    draw("male", 1, (31, 57)).save(root / "male" / "odd.png")
    draw("male", 2, (20, 24)).save(root / "male" / "same size.png")
    draw("female", 3, (64, 40)).convert("L").save(root / "female" / "grey.jpg")
    exif = Image.Exif()
    exif[0x0112] = 6
    draw("female", 4, (50, 30)).save(root / "female" / "turned.jpg", exif=exif)
    clear = draw("female", 5, (9, 9))
    clear.putalpha(100)
    clear.save(root / "female" / "é中.png")
    (root / "male" / "broken.jpg").write_bytes(b"\xff\xd8\xff not an image")
    (root / "male" / "empty.png").write_bytes(b"")
    return root


def entries(folder: Path) -> list[str]:
    return sorted(item.name for item in folder.iterdir()) if folder.is_dir() else []


def test_pixels_are_exactly_those_of_the_decoder(faces: Path, tmp_path: Path) -> None:
    cache = open_image_cache([faces], None, UNCROPPED, tmp_path / "cache")
    assert cache.pixels.shape == (7, 24, 20, 3)
    assert cache.pixels.dtype == np.uint8
    assert sorted(s.file for s in cache.samples) == sorted(
        str(path.relative_to(faces)) for path in faces.rglob("*.*")
    )
    for sample, digest, error, pixels in zip(
        cache.samples, cache.digests, cache.errors, cache.pixels, strict=True
    ):
        data = (faces / sample.file).read_bytes()
        assert digest == hashlib.sha256(data).hexdigest()
        if sample.file in ("male/broken.jpg", "male/empty.png"):
            assert error
            assert not pixels.any()
        else:
            assert not error
            np.testing.assert_array_equal(pixels, resize(decode(data), RESIZE))
    assert [("female", "male")[n] for n in cache.labels] == [s.label for s in cache.samples]


def test_many_images_keep_their_order(tmp_path: Path, draw: Callable[..., Image.Image]) -> None:
    (tmp_path / "faces" / "male").mkdir(parents=True)
    for number in range(300):
        Image.new("RGB", (4, 4), (number % 256, number // 256, 7)).save(
            tmp_path / "faces" / "male" / f"{number:03}.png"
        )
    reported: list[int] = []
    cache = open_image_cache(
        [tmp_path / "faces"],
        None,
        FaceAligner(Crop(), Resize(2, 2)),
        tmp_path / "s",
        on_image=reported.append,
    )
    assert [int(row[0, 0, 0]) + 256 * int(row[0, 0, 1]) for row in cache.pixels] == list(range(300))
    assert reported[0] == 256


def test_opened_again_without_decoding(faces: Path, tmp_path: Path) -> None:
    first = open_image_cache([faces], None, UNCROPPED, tmp_path / "cache")
    reported: list[str] = []
    (place,) = (tmp_path / "cache").iterdir()
    before = (place / "pixels.u8").stat().st_mtime_ns
    again = open_image_cache(
        [faces],
        None,
        UNCROPPED,
        tmp_path / "cache",
        on_skip=lambda *both: reported.append(str(both)),
    )
    assert (place / "pixels.u8").stat().st_mtime_ns == before
    assert entries(tmp_path / "cache") == [place.name]
    assert (again.samples, again.digests, again.errors) == (
        first.samples,
        first.digests,
        first.errors,
    )
    np.testing.assert_array_equal(again.pixels, first.pixels)


def test_a_change_of_the_inputs_makes_another_cache(faces: Path, tmp_path: Path) -> None:
    folder, table = tmp_path / "cache", tmp_path / "table.csv"

    def count() -> int:
        return len(entries(folder))

    open_image_cache([faces], None, UNCROPPED, folder)
    open_image_cache(
        [faces], None, FaceAligner(Crop(), Resize(24, 20, resize_mode="letterbox")), folder
    )
    assert count() == 2
    table.write_text("file,person\nmale/odd.png,ann\n", encoding="utf-8")
    with_table = open_image_cache([faces], table, UNCROPPED, folder)
    assert {s.person for s in with_table.samples} == {"", "ann"}
    assert count() == 3
    table.write_text("file,person\nmale/odd.png,bob\n", encoding="utf-8")
    assert {s.person for s in open_image_cache([faces], table, UNCROPPED, folder).samples} == {
        "",
        "bob",
    }
    assert count() == 4
    odd = faces / "male" / "odd.png"
    status = odd.stat()
    Image.new("RGB", (5, 5)).save(odd)
    os.utime(odd, ns=(status.st_atime_ns, status.st_mtime_ns))  # detected by its size alone
    cache = open_image_cache([faces], None, UNCROPPED, folder)
    assert count() == 5
    place = next(i for i, s in enumerate(cache.samples) if s.file == "male/odd.png")
    assert not cache.pixels[place].any()


def test_a_link_to_an_archive_is_followed(tmp_path: Path, draw: Callable[..., Image.Image]) -> None:
    def pack(seed: int) -> None:
        data = BytesIO()
        draw("male", seed).save(data, "PNG")
        with tarfile.open(tmp_path / "real.tar", "w") as tar:
            info = tarfile.TarInfo(f"male/{seed}.png")
            info.size = data.tell()
            data.seek(0)
            tar.addfile(info, data)

    (tmp_path / "link.tar").symlink_to("real.tar")
    for seed in (1, 2):
        pack(seed)
        cache = open_image_cache([tmp_path / "link.tar"], None, UNCROPPED, tmp_path / "cache")
        assert cache.samples[0].file == f"male/{seed}.png"


def test_names_that_are_not_utf8_are_read_back(
    tmp_path: Path, draw: Callable[..., Image.Image]
) -> None:
    data = BytesIO()
    draw("male", 1).save(data, "PNG")
    name = b"male/\xff\xfe,\r.png".decode("utf-8", "surrogateescape")
    with tarfile.open(tmp_path / "a.tar", "w", errors="surrogateescape") as tar:
        info = tarfile.TarInfo(name)
        info.size = data.tell()
        data.seek(0)
        tar.addfile(info, data)
    for _ in range(2):
        cache = open_image_cache([tmp_path / "a.tar"], None, UNCROPPED, tmp_path / "cache")
        assert [s.file for s in cache.samples] == [name]


def test_nothing_unfinished_remains(faces: Path, tmp_path: Path) -> None:
    with tarfile.open(tmp_path / "a.tar", "w") as tar:
        tar.add(faces, "faces")
    whole = (tmp_path / "a.tar").read_bytes()
    (tmp_path / "a.tar").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(InputError, match=r"a\.tar"):
        open_image_cache([tmp_path / "a.tar"], None, UNCROPPED, tmp_path / "cache")
    assert entries(tmp_path / "cache") == []

    def stop(done: int) -> None:
        raise KeyboardInterrupt

    for number in range(300):
        (faces / "male" / f"{number}.png").write_bytes(b"x")
    with pytest.raises(KeyboardInterrupt):
        open_image_cache([faces], None, UNCROPPED, tmp_path / "cache", on_image=stop)
    assert entries(tmp_path / "cache") == []


@pytest.mark.parametrize(
    "aligner", [UNCROPPED, FaceAligner(ALIGNED_CROP, Resize(48, 40))], ids=["uncropped", "aligned"]
)
def test_without_room_for_pixels_encoded_images_give_the_same(
    faces: Path, tmp_path: Path, aligner: FaceAligner, monkeypatch: pytest.MonkeyPatch
) -> None:
    (faces / "male" / "a face.jpg").write_bytes((PORTRAITS / "joe_biden.jpg").read_bytes())
    for number in range(250):
        Image.new("RGB", (4, 4), (number, 99, 7)).save(faces / "female" / f"{number:03}.png")
    roomy = open_image_cache([faces], None, aligner, tmp_path / "roomy")
    usage = namedtuple("usage", "total used free")

    def has_room_for_files(folder: Path) -> tuple[int, ...]:
        return usage(0, 0, 0 if (folder / "pixels.u8").exists() else 2 << 30)

    reported: list[str] = []
    with monkeypatch.context() as patch:
        patch.setattr(cache_writer.shutil, "disk_usage", has_room_for_files)
        for name in ("a.txt", "note.txt"):
            (faces / name).write_text("not an image")
        skips = {"on_skip": lambda name, reason: reported.append(name)}
        tight = open_image_cache([faces], None, aligner, tmp_path / "tight", **skips)
        assert reported == ["faces/a.txt", "faces/note.txt"]
        patch.setattr(cache_writer.shutil, "disk_usage", lambda folder: usage(0, 0, 0))
        with pytest.raises(OutputError, match="Less than 1 GiB is free"):
            open_image_cache([faces], None, aligner, tmp_path / "full")
    assert entries(tmp_path / "full") == [] and len(entries(tmp_path / "tight")) == 1
    assert (tight.samples, tight.digests, tight.errors) == (
        roomy.samples,
        roomy.digests,
        roomy.errors,
    )
    np.testing.assert_array_equal(tight.crop_matrices, roomy.crop_matrices)
    rows = np.random.default_rng(0).permutation(len(roomy.samples))[:200]
    rows[:2] = [roomy.errors.index(error) for error in roomy.errors if error][:2]
    for kept, pixels in (
        (tight.pixels, roomy.pixels),
        (tight.context_pixels, roomy.context_pixels),
    ):
        assert isinstance(kept, EncodedImages)
        assert kept.shape == pixels.shape and kept.nbytes < pixels.nbytes
        np.testing.assert_array_equal(read_rows(kept, rows), read_rows(pixels, rows))


def test_files_of_a_killed_process_are_removed(faces: Path, tmp_path: Path) -> None:
    open_image_cache([faces], None, UNCROPPED, tmp_path / "cache")
    (place,) = (tmp_path / "cache").iterdir()
    left = place.rename(place.with_name(f"{place.name}.abc.tmp"))
    for path in (*left.iterdir(), left):
        os.utime(path, (0, 0))
    open_image_cache([faces], None, UNCROPPED, tmp_path / "cache")
    assert entries(tmp_path / "cache") == [place.name]


@pytest.mark.parametrize("what", ["input", "table"])
def test_missing_input_or_table(faces: Path, tmp_path: Path, what: str) -> None:
    absent = tmp_path / "absent"
    with pytest.raises(InputError, match="absent"):
        open_image_cache(
            [absent if what == "input" else faces],
            absent if what == "table" else None,
            UNCROPPED,
            tmp_path / "cache",
        )
    assert entries(tmp_path / "cache") == []


def test_faces_are_cropped_as_in_prediction_and_cached_in_full(tmp_path: Path) -> None:
    folder = tmp_path / "data" / "male"
    folder.mkdir(parents=True)
    for name in ("joe_biden.jpg", "barack_obama.jpg"):
        (folder / name).write_bytes((PORTRAITS / name).read_bytes())
    Image.new("RGB", (60, 50), "teal").save(folder / "no_face.png")
    (folder / "broken.jpg").write_bytes(b"\xff\xd8\xff")
    aligner = FaceAligner(ALIGNED_CROP, Resize(48, 40))
    cache = open_image_cache([folder.parent], None, aligner, tmp_path / "cache")
    assert cache.context_pixels.shape == (4, 60, 50, 3)
    for sample, shown, context_pixels, matrix in zip(
        cache.samples, cache.pixels, cache.context_pixels, cache.crop_matrices, strict=True
    ):
        if "broken" in sample.file:
            assert not shown.any() and not context_pixels.any() and np.isnan(matrix).all()
            continue
        pixels = decode((folder.parent / sample.file).read_bytes())
        crop = aligner(pixels)
        assert np.array_equal(shown, crop.pixels)
        assert np.array_equal(context_pixels, resize(pixels, Resize(60, 50)))
        assert np.isnan(matrix).all() == (crop.face is None) == ("no_face" in sample.file)
        if crop.face:  # the middle of the crop is where the face is, from -1 to 1
            middle = crop.face.landmarks.mean(0) / pixels.shape[1::-1] * 2 - 1
            np.testing.assert_allclose(matrix @ (0, 0.12, 1), middle, atol=0.1)


def test_another_crop_rule_makes_another_cache(faces: Path, tmp_path: Path) -> None:
    folder = tmp_path / "cache"
    open_image_cache([faces], None, UNCROPPED, folder)
    open_image_cache([faces], None, FaceAligner(ALIGNED_CROP, RESIZE), folder)
    assert len(list(folder.iterdir())) == 2


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="needs Linux's /proc")
def test_reading_rows_does_not_keep_the_file_in_memory(tmp_path: Path) -> None:
    def mapped_bytes() -> int:
        status = Path("/proc/self/status").read_text()
        return int(status.split("RssFile:")[1].split()[0]) << 10

    count, width = 64, 1 << 20
    path = tmp_path / "pixels.u8"
    np.repeat(np.arange(count, dtype=np.uint8), width).tofile(path)
    values = np.memmap(path, np.uint8, "r", shape=(count, width))
    before = mapped_bytes()
    for start in range(0, count, 8):
        rows = np.arange(start, start + 8)[::-1].copy()
        some = read_rows(values, rows)
        assert np.array_equal(some, np.repeat(rows.astype(np.uint8)[:, None], width, 1))
        assert mapped_bytes() - before < 4 << 20
    assert values[5].sum() == 5 * width  # what was given back can still be read
    assert np.array_equal(read_rows(np.arange(9), np.array([4, 2])), [4, 2])


@pytest.mark.parametrize("offset", [0, 128])
def test_rows_of_a_file_are_those_of_the_array(tmp_path: Path, offset: int) -> None:
    path = tmp_path / "values"
    values = np.random.default_rng(0).normal(size=(20, 3, 5)).astype(np.float16)
    path.write_bytes(b"x" * offset + values.tobytes())
    mapped = np.memmap(path, np.float16, "r", offset, values.shape)
    for rows in ([3, 19, 3, 0], [], list(range(20))):
        some = read_rows(mapped, np.array(rows, np.int64))
        assert some.dtype == np.float16 and not isinstance(some, np.memmap)
        assert np.array_equal(some, values[rows])
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(InputError, match="is too short"):
        read_rows(mapped, np.array([19]))
    path.unlink()
    mapped = np.memmap(path, np.float16, "w+", offset, values.shape)
    mapped[:] = values
    path.unlink()  # it may be deleted at any time (see cache_folder)
    assert np.array_equal(read_rows(mapped, np.array([7, 2])), values[[7, 2]])
