"""Which orientation counts: of the decoder, of EXIF, of XMP; an upright image is never turned."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from made import encode
from PIL import Image

from facegender.images.decode import decode, decode_downscaled
from facegender.images.pixels import Pixels

ORIENTATION = 0x0112
SIZE = (40, 60)  # upright
SAVED = {
    "JPEG": {"quality": 95, "subsampling": 0},
    "PNG": {},
    "WEBP": {"lossless": True},
    "AVIF": {"quality": 95},
    "HEIF": {"quality": 95},
    "TIFF": {},
}
XMP = ("JPEG", "PNG", "WEBP")  # formats whose orientation may be in XMP alone


def upright(size: tuple[int, int] = SIZE) -> Image.Image:
    """Red above, green at the left: no turn leaves it as it is."""
    width, height = size
    pixels = np.zeros((height, width, 3), np.uint8)
    pixels[: height // 3, :, 0], pixels[:, : width // 4, 1] = 255, 255
    return Image.fromarray(pixels)


def xmp(orientation: int, width: int = 0, height: int = 0, *, element: bool = False) -> bytes:
    """An XMP packet; width and height are of the stored image, 0 leaves them out."""
    values = {"tiff:Orientation": orientation, "tiff:ImageWidth": width, "tiff:ImageLength": height}
    named = {name: value for name, value in values.items() if value}
    attributes = " ".join(f'{name}="{value}"' for name, value in named.items())
    elements = "".join(f"<{name}>{value}</{name}>" for name, value in named.items())
    return (
        '<x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf:RDF><rdf:Description '
        f"{'' if element else attributes}>{elements if element else ''}</rdf:Description>"
        "</rdf:RDF></x:xmpmeta>"
    ).encode()


def save(
    image: Image.Image, kind: str, exif: int | None = None, packet: bytes | None = None
) -> bytes:
    """Encode with an orientation in EXIF and an XMP packet; EXIF without orientation for 0."""
    options: dict[str, Any] = dict(SAVED[kind])
    if kind == "HEIF":
        pytest.importorskip("pillow_heif", reason="the extra 'heif' is not installed")
        import pillow_heif

        pillow_heif.register_heif_opener()
    if exif is not None:
        made = Image.Exif()
        made[0x010E] = "a description"
        if exif:
            made[ORIENTATION] = exif
        options["exif"] = made.tobytes()
    if packet is not None and kind == "PNG":
        from PIL.PngImagePlugin import PngInfo

        options["pnginfo"] = PngInfo()
        options["pnginfo"].add_itxt("XML:com.adobe.xmp", packet.decode())
    elif packet is not None and kind == "TIFF":
        from PIL.TiffImagePlugin import ImageFileDirectory_v2

        options["tiffinfo"] = ImageFileDirectory_v2()
        options["tiffinfo"][700] = packet
        if exif:
            options["tiffinfo"][ORIENTATION] = options.pop("exif") and exif
    elif packet is not None and kind == "HEIF":  # the encoder would turn by the XMP
        hidden = packet.replace(b"Orientation", b"orientatioN")
        data = encode(image, kind, **options, xmp=hidden)
        assert data.count(hidden) == 1
        return data.replace(hidden, packet)
    elif packet is not None:
        options["xmp"] = packet
    return encode(image, kind, **options)


def is_upright(pixels: Pixels, size: tuple[int, int] = SIZE) -> bool:
    expected = np.asarray(upright(size))
    if pixels.shape != expected.shape:
        return False
    return bool(np.abs(pixels.astype(int) - expected).mean() < 12)


def lying(size: tuple[int, int] = SIZE) -> Image.Image:
    """As a camera that was turned stores it: orientation 6 makes it upright."""
    return upright(size).transpose(Image.Transpose.ROTATE_90)


@pytest.mark.parametrize("kind", SAVED)
def test_an_image_without_orientation(kind: str) -> None:
    assert is_upright(decode(save(upright(), kind)))


@pytest.mark.parametrize("element", [False, True])
@pytest.mark.parametrize("kind", XMP)
def test_xmp_counts_where_exif_has_none(kind: str, element: bool) -> None:
    packet = xmp(6, 60, 40, element=element)
    assert is_upright(decode(save(lying(), kind, None, packet)))
    assert is_upright(decode(save(lying(), kind, 0, packet)))
    assert is_upright(decode(save(lying(), kind, None, xmp(6, element=element))))
    for nothing in (xmp(9), b"no packet", b"tiff:Orientation='"):
        assert is_upright(decode(save(upright(), kind, None, nothing)))


@pytest.mark.parametrize("kind", SAVED)
def test_exif_counts_before_xmp(kind: str) -> None:
    assert is_upright(decode(save(lying(), kind, 6, xmp(6, 60, 40))))  # once, not twice
    assert is_upright(decode(save(lying(), kind, 6, xmp(1, 60, 40))))
    assert is_upright(decode(save(upright(), kind, 1, xmp(6, 60, 40))))


@pytest.mark.parametrize("sides", [(60, 40), (120, 80), (241, 163)])
@pytest.mark.parametrize("kind", XMP)
def test_xmp_left_over_by_a_program_that_turned_the_pixels(
    kind: str, sides: tuple[int, int]
) -> None:
    """It still has the size of the image as it lay, also where a fraction of it is decoded."""
    size = (sides[1], sides[0])
    data = save(upright(size), kind, None, xmp(6, *sides))
    assert is_upright(decode(data), size)
    small = decode_downscaled(data, 30)
    assert small.pixels.shape[0] > small.pixels.shape[1]
    assert (small.width, small.height) == size
    turned = save(lying(size), kind, None, xmp(6, *sides))
    small = decode_downscaled(turned, 30)
    assert small.pixels.shape[0] > small.pixels.shape[1]


@pytest.mark.parametrize("kind", ["AVIF", "TIFF", "HEIF"])
def test_formats_with_a_rotation_of_their_own_ignore_xmp(kind: str) -> None:
    assert is_upright(decode(save(upright(), kind, None, xmp(6, 60, 40))))
    assert is_upright(decode(save(upright(), kind, None, xmp(6))))


def test_exif_of_heic_is_ignored_where_its_decoder_turned() -> None:
    data = save(lying(), "HEIF", 6)
    assert b"irot" in data and is_upright(decode(data))
    made = Image.Exif()
    made[ORIENTATION] = 6
    shown = made.tobytes()
    made[ORIENTATION] = 1
    hidden = made.tobytes()
    data = encode(upright(), "HEIF", quality=95, exif=hidden)
    assert data.count(hidden) == 1
    assert is_upright(decode(data.replace(hidden, shown)))  # without a box of its own


def test_jpeg_xl_is_turned_once_by_its_decoder() -> None:
    codecs = pytest.importorskip("imagecodecs", reason="the extra 'jxl' is not installed")
    data = codecs.jpegxl_encode_jpeg(save(lying(), "JPEG", 6, xmp(6, 60, 40)))
    assert is_upright(decode(data))
    assert is_upright(decode(codecs.jpegxl_encode(np.asarray(upright()), lossless=True)))
