from __future__ import annotations

import io
import os
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from made import encode, image
from PIL import Image, ImageCms, ImageOps

from facegender.errors import UnreadableImageError
from facegender.images import opening
from facegender.images.decode import decode, decode_downscaled, from_pil_image
from facegender.images.formats import ImageLimits, looks_like_image, read_image_file
from facegender.images.pixels import Resize, resize

SHADES = np.arange(64, dtype=np.uint8).reshape(8, 8) * 4
SMOOTH = np.asarray(Image.linear_gradient("L").resize((90, 70)))
COLOR = np.stack([SMOOTH, SMOOTH[::-1], SMOOTH[:, ::-1]], axis=-1)


@pytest.mark.parametrize(
    "kind", ["JPEG", "MPO", "PNG", "WEBP", "GIF", "BMP", "TIFF", "PPM", "AVIF", "JPEG2000"]
)
def test_every_format_is_read(kind: str) -> None:
    pixels = decode(encode(Image.fromarray(COLOR), kind))
    assert pixels.shape == (70, 90, 3) and pixels.dtype == np.uint8
    assert np.abs(pixels.astype(int) - COLOR).mean() < 12
    pixels[0, 0] = 0  # the caller's own


@pytest.mark.parametrize("turn", range(1, 9))
@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP"])
def test_exif_turns(turn: int, kind: str) -> None:
    upright = np.zeros((60, 40, 3), np.uint8)
    upright[:20, :, 0], upright[:, :10, 1] = 255, 255  # red above, green at the left
    back = {2: 0, 3: 3, 4: 1, 5: 5, 6: 2, 7: 6, 8: 4}.get(turn)
    # The stored image is the upright one, rotated the other way.
    stored = Image.fromarray(upright)
    if back is not None:
        stored = stored.transpose(Image.Transpose(back))
    exif = Image.Exif()
    exif[0x0112] = turn
    options = {"JPEG": {"quality": 95, "subsampling": 0}, "WEBP": {"lossless": True}}.get(kind, {})
    pixels = decode(encode(stored, kind, exif=exif.tobytes(), **options))
    assert pixels.shape == upright.shape
    assert np.abs(pixels.astype(int) - upright).mean() < 5


def test_damaged_exif_counts_as_none() -> None:
    exif = Image.Exif()
    exif[0x0112] = 99
    assert decode(encode(Image.fromarray(COLOR), exif=exif.tobytes())).shape == (70, 90, 3)


@pytest.mark.parametrize(
    ("mode", "kind"),
    [
        *[(mode, "PNG") for mode in ("1", "L", "LA", "P", "RGBA")],
        *[(mode, "TIFF") for mode in ("CMYK", "I", "F", "YCbCr")],
        *[("L", "JPEG"), ("CMYK", "JPEG"), ("P", "GIF"), ("RGBA", "WEBP")],
    ],
)
def test_every_mode_becomes_rgb(mode: str, kind: str) -> None:
    flat = Image.new("RGB", (20, 10), (204, 204, 204))
    pixels = decode(encode(flat.convert(mode, dither=Image.Dither.NONE), kind))
    assert pixels.shape == (10, 20, 3)
    assert np.abs(pixels.astype(int) - (255 if mode == "1" else 204)).max() <= 3


@pytest.mark.parametrize("kind", ["PNG", "TIFF", "PPM"])
def test_16_bits_become_8(kind: str) -> None:
    pixels = decode(encode(Image.fromarray(SHADES.astype(np.uint16) * 257), kind))
    assert np.array_equal(pixels, np.repeat(SHADES[:, :, None], 3, axis=2))


def test_float_without_a_number_is_read() -> None:
    values = np.full((4, 4), 0.5, np.float32)
    values[0, 0] = np.nan
    assert decode(encode(Image.fromarray(values), "TIFF"))[3, 3].tolist() == [128] * 3


def test_transparent_parts_become_white() -> None:
    half = Image.new("RGBA", (2, 1), (10, 20, 30, 255))
    half.putpixel((1, 0), (10, 20, 30, 0))
    assert decode(encode(half)).tolist() == [[[10, 20, 30], [255, 255, 255]]]
    palette = Image.new("P", (1, 1), 0)
    palette.putpalette([9, 9, 9])
    assert decode(encode(palette, transparency=0)).tolist() == [[[255, 255, 255]]]


@pytest.mark.parametrize("kind", ["GIF", "WEBP", "PNG", "TIFF"])
def test_of_several_frames_the_first_is_taken(kind: str) -> None:
    frames = [Image.new("RGB", (16, 16), color) for color in ("red", "blue")]
    options = {"lossless": True} if kind == "WEBP" else {}
    data = encode(frames[0], kind, save_all=True, append_images=frames[1:], **options)
    assert decode(data)[8, 8].tolist() == [255, 0, 0]


def test_one_pixel() -> None:
    assert decode(encode(Image.new("RGB", (1, 1), "lime"))).tolist() == [[[0, 255, 0]]]


@pytest.mark.parametrize("share", [0.1, 0.5, 0.9])
@pytest.mark.parametrize(
    ("kind", "options"),
    [
        *[(kind, {}) for kind in ("JPEG", "PNG", "WEBP", "GIF", "BMP", "AVIF", "JPEG2000")],
        *[("JPEG", {"progressive": True}), ("WEBP", {"lossless": True})],
    ],
)
def test_cut_off_is_unreadable(kind: str, options: dict[str, Any], share: float) -> None:
    data = encode(image(size=(160, 120), seed=1), kind, **options)
    with pytest.raises(UnreadableImageError):
        decode(data[: int(len(data) * share)])


@pytest.mark.parametrize(
    "options",
    [{}, {"progressive": True}, {"quality": 95}, {"subsampling": 0}, {"restart_marker_rows": 1}],
    ids=str,
)
@pytest.mark.parametrize("mode", ["RGB", "L"])
def test_jpeg_cut_off_with_an_end_marker(mode: str, options: dict[str, Any]) -> None:
    data = encode(image(size=(150, 120), seed=1).convert(mode), "JPEG", **options)
    decode(data)
    decode(data + b"trailing bytes of a camera\xff\xd9")
    # In the middle of the last scan's data; of a sequential JPEG that is all of it.
    start = data.rindex(b"\xff\xda") + 20
    for share in (0.0, 0.2, 0.5, 0.8, 0.95):
        cut = start + int(share * (len(data) - start))
        with pytest.raises(UnreadableImageError, match="truncated"):
            decode(data[:cut].rstrip(b"\xff") + b"\xff\xd9")


def test_a_whole_gray_jpeg_is_no_false_alarm() -> None:
    grayscale = Image.new("RGB", (70, 50), (128, 128, 128))
    for options in ({}, {"progressive": True}, {"optimize": True}):
        assert decode(encode(grayscale, "JPEG", **options)).shape == (50, 70, 3)


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"", "empty"),
        (b"only text", "not an image"),
        (b"\xff\xd8\xff", "cannot be decoded|not an image"),
        (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n", "not an image"),
    ],
)
def test_no_image_is_unreadable(data: bytes, message: str) -> None:
    with pytest.raises(UnreadableImageError, match=message):
        decode(data)


def heic(image: Image.Image) -> bytes:
    """A HEIC file of an image."""
    pytest.importorskip("pillow_heif").register_heif_opener()
    return encode(image, "HEIF", quality=90)


def test_heic_is_read_by_its_content() -> None:
    data = heic(Image.fromarray(COLOR))
    assert looks_like_image("IMG_0001", data[:16])
    pixels = decode(data)
    assert pixels.shape == (70, 90, 3) and np.abs(pixels.astype(int) - COLOR).mean() < 12
    with pytest.raises(UnreadableImageError):
        decode(data[: len(data) // 2])


def test_heic_without_its_extra_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    data = heic(Image.fromarray(COLOR))
    monkeypatch.setitem(sys.modules, "pillow_heif", None)
    opening._can_read_heic.cache_clear()
    with pytest.raises(UnreadableImageError, match=r"pip install '\.\[heif\]'"):
        decode(data)
    opening._can_read_heic.cache_clear()


@pytest.mark.parametrize("turn", [1, 6])
def test_a_large_jpeg_is_decoded_smaller(turn: int) -> None:
    exif = Image.Exif()
    exif[0x0112] = turn
    data = encode(Image.fromarray(COLOR).resize((1800, 1400)), "JPEG", exif=exif.tobytes())
    whole, half = decode(data), decode_downscaled(data, 900)
    upright = (1800, 1400) if turn == 1 else (1400, 1800)
    assert (half.width, half.height) == upright == whole.shape[1::-1]
    assert half.pixels.shape[:2] == (upright[1] // 2, upright[0] // 2) and half.scale == 2.0
    small = resize(whole, Resize(*half.pixels.shape[:2]))
    assert np.abs(half.pixels.astype(int) - small).mean() < 2
    same = decode_downscaled(data, 1801)
    assert same.scale == 1.0 and np.array_equal(same.pixels, whole)
    png = decode_downscaled(encode(Image.fromarray(COLOR)), 10)
    assert png.scale == 1.0 and np.array_equal(png.pixels, COLOR)
    for cut in (0.3, 0.7, 0.95):
        with pytest.raises(UnreadableImageError):
            decode_downscaled(data[: int(len(data) * cut)] + b"\xff\xd9", 900)


def test_colors_are_brought_to_srgb() -> None:
    flat = Image.new("RGB", (8, 8), (200, 100, 50))
    srgb = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    lab = ImageCms.ImageCmsProfile(ImageCms.createProfile("LAB")).tobytes()
    for useless in (srgb, lab, b"no profile", b""):
        assert decode(encode(flat, icc_profile=useless))[0, 0].tolist() == [200, 100, 50]
    # A profile with red and blue changed for each other, made of sRGB's by its two tags' names
    swapped = srgb.replace(b"rXYZ", b"?XYZ").replace(b"bXYZ", b"rXYZ").replace(b"?XYZ", b"bXYZ")
    renamed = swapped.replace("sRGB".encode("utf-16-be"), "mine".encode("utf-16-be"))
    renamed = renamed.replace(b"sRGB built-in", b"mine built-in")
    red, _, blue = decode(encode(flat, icc_profile=renamed))[0, 0].tolist()
    assert red < 100 < blue


def test_limits() -> None:
    data = encode(image(size=(40, 30), seed=1))
    with pytest.raises(UnreadableImageError, match="40x30 is over the limit of 1,000 pixels"):
        decode(data, ImageLimits(pixels=1000))
    assert decode(data, ImageLimits(pixels=1200)).shape == (30, 40, 3)
    with pytest.raises(ValueError, match="limits must be"):
        ImageLimits(pixels=0)


def test_too_many_pixels() -> None:
    head = b"P5\n20000 20000\n255\n"
    with pytest.raises(UnreadableImageError, match="limit"):
        decode(head + b"\0")


def test_from_pil_image_leaves_the_image_alone() -> None:
    transparent = Image.new("RGBA", (3, 2), (1, 2, 3, 255))
    assert from_pil_image(transparent).tolist() == [[[1, 2, 3]] * 3] * 2
    assert transparent.mode == "RGBA"
    with pytest.raises(UnreadableImageError, match="no pixels"):
        from_pil_image(Image.new("RGB", (0, 5)))
    data = encode(image(seed=1), "JPEG")
    with pytest.raises(UnreadableImageError, match="cannot be decoded"):
        from_pil_image(Image.open(io.BytesIO(data[:-50])))


@pytest.mark.parametrize(
    ("name", "head", "expected"),
    [
        ("a.jpg", b"", True),
        ("a.JPEG", b"text", True),
        ("a", b"\xff\xd8\xff\xe0", True),
        ("a.txt", b"\x89PNG\r\n\x1a\n", True),
        ("a.dat", b"RIFF\0\0\0\0WEBPVP8 ", True),
        ("a.wav", b"RIFF\0\0\0\0WAVEfmt ", False),
        (".DS_Store", b"\0\0\0\1Bud1", False),
        ("Thumbs.db", b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1", False),
        (".jpg", b"", False),
        ("notes.txt", b"hello", False),
    ],
)
def test_looks_like_image(name: str, head: bytes, expected: bool) -> None:
    assert looks_like_image(name, head) is expected


def refuse(path: Path, *args: object, **kwargs: object) -> None:
    raise PermissionError(13, "Permission denied")


def test_read_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    data = encode(image(seed=1))
    (tmp_path / "a.png").write_bytes(data)
    (tmp_path / "._a.png").write_bytes(b"\x00\x05\x16\x07" + bytes(60))
    (tmp_path / "notes").write_bytes(b"hello")
    os.mkfifo(tmp_path / "pipe.jpg")
    assert read_image_file(tmp_path / "a.png") == data
    assert read_image_file(tmp_path / "._a.png") is None
    assert read_image_file(tmp_path / "notes") is None
    assert read_image_file(tmp_path / "pipe.jpg") is None
    with pytest.raises(UnreadableImageError, match="limit of 9"):
        read_image_file(tmp_path / "a.png", ImageLimits(bytes=9))
    with monkeypatch.context() as refusing:
        refusing.setattr(Path, "open", refuse)
        with pytest.raises(UnreadableImageError, match="cannot be read: Permission denied"):
            read_image_file(tmp_path / "a.png")
    for name, reason in {"": "folder", "no.jpg": "not found", "a\0.jpg": "cannot be read"}.items():
        with pytest.raises(UnreadableImageError, match=reason):
            read_image_file(tmp_path / name)


@pytest.mark.parametrize("resize_mode", ["stretch", "letterbox", "center_crop"])
@pytest.mark.parametrize("size", [(1, 1), (90, 70), (5, 400), (32, 24)])
def test_resize(resize_mode: str, size: tuple[int, int]) -> None:
    pixels = resize(np.asarray(image(size=size, seed=1)), Resize(24, 32, resize_mode=resize_mode))
    assert pixels.shape == (24, 32, 3) and pixels.dtype == np.uint8


def test_resize_is_antialiased_and_follows_its_mode() -> None:
    stripes = np.zeros((64, 64, 3), np.uint8)
    stripes[:, ::2] = 255
    assert np.abs(resize(stripes, Resize(16, 16)).astype(int) - 128).max() < 20
    wide = Image.fromarray(COLOR)
    for resize_mode, expected in {
        "stretch": wide.resize((20, 20), Image.Resampling.BICUBIC),
        "letterbox": ImageOps.pad(wide, (20, 20), Image.Resampling.BICUBIC),
        "center_crop": ImageOps.fit(wide, (20, 20), Image.Resampling.BICUBIC),
    }.items():
        assert np.array_equal(
            resize(COLOR, Resize(20, 20, "bicubic", resize_mode)), np.asarray(expected)
        )


@pytest.mark.parametrize(
    "options",
    [
        {"height": 0},
        {"width": -1},
        {"interpolation": "cubic"},
        {"resize_mode": "zoom"},
        {"antialias": False},
    ],
)
def test_resize_refuses(options: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=r"size|interpolation|mode|antialias"):
        Resize(**({"height": 8, "width": 8} | options))
