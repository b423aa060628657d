"""Signatures and suffixes of images, videos and archives.

Sources: the file formats' own specifications; the brands of ISO media files are registered at
https://mp4ra.org/registered-types/brands.
"""

from __future__ import annotations

import struct

from facegender.errors import how_to_install

# fmt: off
RAW_SUFFIXES = frozenset((
    ".3fr", ".arw", ".cr2", ".crw", ".dcr", ".dng", ".erf", ".fff", ".iiq", ".k25", ".kdc", ".mef",
    ".mos", ".mrw", ".nef", ".nrw", ".orf", ".pef", ".raf", ".rw2", ".rwl", ".sr2", ".srf", ".srw",
    ".x3f",
))
"""Suffixes of camera raw files, which are read by their embedded preview."""

IMAGE_SUFFIXES = RAW_SUFFIXES | frozenset((
    ".jpg", ".jpeg", ".jpe", ".jfif", ".jif", ".mpo", ".png", ".apng", ".webp", ".avif", ".avifs",
    ".gif", ".bmp", ".dib", ".tif", ".tiff", ".btf", ".ppm", ".pgm", ".pbm", ".pnm", ".jp2", ".jpx",
    ".jpf", ".j2k", ".j2c", ".jpc", ".heic", ".heif", ".heics", ".heifs", ".hif", ".jxl", ".tga",
    ".ico", ".cur", ".pcx",
))
"""Suffixes of images that are read."""

ARCHIVE_SUFFIXES = frozenset((
    ".tar", ".tar.gz", ".tgz", ".tar.bz2", ".tbz2", ".tbz", ".tar.xz", ".txz", ".zip", ".cbz",
    ".cbt",
))
"""Suffixes of archives that are read."""

OTHER_ZIP_SUFFIXES = frozenset((
    ".docx", ".xlsx", ".pptx", ".odt", ".ods", ".odp", ".epub", ".jar", ".apk", ".whl", ".npz",
))
"""Suffixes of zip files that are documents and programs, not collections of images."""

_VIDEO_SUFFIXES = (
    ".mp4", ".mov", ".m4v", ".mkv", ".webm", ".avi", ".3gp", ".3g2", ".mts", ".m2ts", ".mpg",
    ".mpeg", ".wmv", ".flv", ".ogv", ".vob",
)
_PACKED_SUFFIXES = (
    ".rar", ".cbr", ".7z", ".cb7", ".tar.zst", ".tzst", ".tar.lz4", ".tar.lz", ".tlz", ".tar.lzma",
    ".tar.z", ".cab", ".arj", ".lzh", ".lha", ".ace", ".sit", ".sitx", ".zipx",
)
_OTHER_IMAGE_SUFFIXES = (
    ".psd", ".psb", ".xcf", ".svg", ".svgz", ".exr", ".dds", ".qoi", ".icns", ".jxr", ".wdp",
    ".hdp", ".sgi", ".pict", ".pct", ".djvu", ".wmf", ".emf", ".bpg", ".flif",
)
_VIDEO_BRANDS = frozenset((
    b"qt  ", b"isom", b"iso2", b"iso3", b"iso4", b"iso5", b"iso6", b"mp41", b"mp42", b"avc1",
    b"M4V ", b"M4VP", b"M4VH", b"mmp4", b"MSNV", b"NDSC", b"NDSH", b"dash", b"3gp4", b"3gp5",
    b"3gp6", b"3gr6", b"3gs6", b"3ge6", b"3g2a", b"XAVC", b"f4v ", b"FACE",
))
# fmt: on

AVIF_BRANDS = frozenset((b"avif", b"avis"))
"""Brands in the ``ftyp`` box of an AVIF file."""

HEIC_BRANDS = frozenset((b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"hevm", b"hevs"))
"""Brands in the ``ftyp`` box of a HEIC file."""

_CONTAINER_BRANDS = frozenset((b"mif1", b"mif2", b"msf1", b"miaf", b"MA1A", b"MA1B"))

APPLE_DOUBLE = b"\x00\x05\x16\x07"
"""Signature of macOS metadata in a file of its own."""

COMPRESSIONS = (b"\x1f\x8b", b"BZh", b"\xfd7zXZ\x00")
"""Signatures of gzip, bzip2 and xz."""

TIFF = (b"II*\x00", b"MM\x00*", b"II+\x00", b"MM\x00+")
"""Signatures of TIFF and BigTIFF."""

RAW = (
    b"IIRO",  # Olympus
    b"IIRS",
    b"MMOR",
    b"IIU\x00",  # Panasonic, Leica
    b"FUJIFILMCCD-RAW",
    b"\x00MRM",  # Minolta
    b"FOVb",  # Sigma
    b"II\x1a\x00\x00\x00HEAPCCDR",  # Canon CRW
)
"""Signatures of camera raw files that are no TIFF."""

JXL = (b"\xff\x0a", b"\x00\x00\x00\x0cJXL \x0d\x0a\x87\x0a")
"""Signatures of JPEG XL, as a codestream and in a container."""

_IMAGES = (
    b"\xff\xd8\xff",  # JPEG
    b"\x89PNG\r\n\x1a\n",
    b"GIF87a",
    b"GIF89a",
    b"\x00\x00\x00\x0cjP  \x0d\x0a\x87\x0a",  # JPEG 2000
    b"\xff\x4f\xff\x51",  # JPEG 2000 codestream
    *TIFF,
    *RAW,
    *JXL,
)

_PPM = tuple(b"P%d" % n + space for n in range(1, 7) for space in (b" ", b"\t", b"\n", b"\r"))

_VIDEO = "a video is not read: save frames of it as images, for example with ffmpeg"
_PACKED = "this kind of archive is not read: unpack it and name the folder"
_CANON = "camera raw in Canon's CR3 is not read: convert it to DNG or JPEG"
_CONVERT = "this image format is not read: convert it to JPEG or PNG"

UNSUPPORTED_SUFFIXES = {
    **dict.fromkeys(_VIDEO_SUFFIXES, _VIDEO),
    **dict.fromkeys(_PACKED_SUFFIXES, _PACKED),
    **dict.fromkeys(_OTHER_IMAGE_SUFFIXES, _CONVERT),
    ".cr3": _CANON,
}
"""For each suffix of a file that cannot be read, what to do."""

_UNSUPPORTED = (
    (b"Rar!\x1a\x07", _PACKED),
    (b"7z\xbc\xaf\x27\x1c", _PACKED),
    (b"MSCF\0\0\0\0", _PACKED),
    (b"\x1a\x45\xdf\xa3", _VIDEO),  # Matroska, WebM
    (b"8BPS\x00", _CONVERT),
    (b"gimp xcf ", _CONVERT),
    (b"<svg", _CONVERT),
    (b"\x76\x2f\x31\x01", _CONVERT),  # OpenEXR
    (b"DDS ", _CONVERT),
    (b"qoif", _CONVERT),
    (b"icns", _CONVERT),
    (b"II\xbc\x01", _CONVERT),  # JPEG XR
    (b"#?RADIANCE", _CONVERT),
    (b"BPG\xfb", _CONVERT),
    (b"AT&TFORM", _CONVERT),  # DjVu
)


def has_signature(head: bytes) -> bool:
    """Tell whether a file has the signature of an image that is read, whatever its name is.

    Args:
        head: its first bytes, at least 26 if it has as many.
    """
    if head.startswith(_IMAGES):
        return True
    if head[:2] == b"BM":
        return head[6:10] == b"\0\0\0\0"  # two reserved fields
    if head[:4] == b"RIFF":
        return head[8:12] == b"WEBP"
    return heif_kind(head) is not None or is_icon(head)


def is_image(head: bytes) -> bool:
    """Tell whether a file that is named like an image can be one.

    Besides :func:`has_signature` it accepts formats without a signature that is long enough to
    recognize a file of any name.
    """
    return (
        has_signature(head)
        or head.startswith(_PPM)
        or any(check(head) for check in (is_pcx, is_dib, is_tga))
    )


def unsupported_content(head: bytes) -> str | None:
    """Return what to do with an image, video or archive that cannot be read; None for others."""
    if head[4:8] == b"ftyp":
        if head[8:12] == b"crx ":
            return _CANON
        return _VIDEO if head[8:12] in _VIDEO_BRANDS or head[8:11] == b"3gp" else None
    if head[4:8] in (b"moov", b"mdat", b"wide", b"free") and head[:2] == b"\0\0":
        return _VIDEO  # QuickTime without a brand
    if head[:4] == b"RIFF":
        return _VIDEO if head[8:12] == b"AVI " else None
    return next((reason for start, reason in _UNSUPPORTED if head.startswith(start)), None)


def missing_extra(format_name: str, extra: str) -> str:
    """Say how to install the extra that reads a format."""
    return f"{format_name} needs the '{extra}' extra: {how_to_install(extra)}"


def heif_kind(head: bytes) -> str | None:
    """Return ``AVIF`` or ``HEIF`` for a file of this family, by its major and compatible brands."""
    if head[4:8] != b"ftyp":
        return None
    major = head[8:12]
    end = min(int.from_bytes(head[:4], "big"), len(head))
    brands = {head[at : at + 4] for at in range(16, end - 3, 4)}
    for brand in (major, *sorted(brands, key=lambda brand: brand not in AVIF_BRANDS)):
        if brand in AVIF_BRANDS:
            return "AVIF"
        if brand in HEIC_BRANDS:
            return "HEIF"
    if major in _CONTAINER_BRANDS:
        return "AVIF" if b"av01" in head else "HEIF"
    return None


def is_icon(head: bytes) -> bool:
    """Tell whether a file is a Windows icon or cursor; each image in it has a reserved zero."""
    return (
        head[:4] in (b"\0\0\1\0", b"\0\0\2\0")
        and head[4:6] != b"\0\0"
        and len(head) >= 22
        and head[9] == 0
        and int.from_bytes(head[18:22], "little") >= 22
    )


def is_pcx(head: bytes) -> bool:
    """Tell whether a file is a PCX: manufacturer, version, encoding, bits, and an even window."""
    if len(head) < 12 or head[0] != 10 or head[1] not in (0, 2, 3, 4, 5) or head[2] > 1:
        return False
    left, top, right, bottom = struct.unpack("<4H", head[4:12])
    return head[3] in (1, 2, 4, 8) and right >= left and bottom >= top


def is_dib(head: bytes) -> bool:
    """Tell whether a file is a BMP without its file header."""
    size = int.from_bytes(head[:4], "little")
    if size not in (40, 52, 56, 64, 108, 124) or len(head) < 16:
        return False
    return head[12:14] == b"\1\0" and head[14] in (1, 4, 8, 16, 24, 32) and head[15] == 0


def is_tga(head: bytes) -> bool:
    """Tell whether a file is a TGA, which has no signature, by all fields of its header."""
    if len(head) < 18:
        return False
    _, has_map, kind, _, length, map_bits, _, _, width, height, bits, flags = struct.unpack(
        "<BBBHHBHHHHBB", head[:18]
    )
    if not (width and height) or flags & 0xC0:
        return False
    if has_map == 1:
        has_colors = kind in (1, 9) and 0 < length <= 256 and map_bits in (15, 16, 24, 32)
        return has_colors and bits == 8
    if has_map or length or map_bits:
        return False
    return (kind in (2, 10) and bits in (15, 16, 24, 32)) or (kind in (3, 11) and bits in (8, 16))
