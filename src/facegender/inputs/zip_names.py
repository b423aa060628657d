"""Names in a zip that does not say how they are encoded.

The standard says cp437, but programs write the encoding of their system. The encoding that gives
the most plausible text is taken, over all names of an archive.
"""

from __future__ import annotations

import struct
import zipfile
import zlib
from collections.abc import Sequence

_UTF8_FLAG = 0x800
_UNICODE_PATH = 0x7075
_STANDARD = "cp437"
# In order of preference where two are equally plausible.
_ENCODINGS = (
    "gbk", "cp932", "cp949", "big5", "cp866", "cp1251", _STANDARD, "cp850", "cp1252", "cp1250",
)  # fmt: skip
# For each encoding, the first bytes of its common characters, and how plausible they are.
_COMMON = {
    "gbk": (range(0xB0, 0xD8), 1.0),
    "cp932": (range(0x88, 0x98), 0.95),
    "big5": (range(0xA4, 0xC7), 0.95),
    "cp949": (range(0xB0, 0xC9), 0.97),
}
_CYRILLIC = frozenset(map(chr, range(0x430, 0x450))) | frozenset("ёіїєґў")
_SECOND_BYTES = frozenset("@[\\]^`{|}~")
_MAX_BYTES = 1 << 16
_KOREAN_CHARACTERS = 6


def member_names(members: Sequence[zipfile.ZipInfo]) -> list[str]:
    """Return the names of a zip's members as the system that packed them showed them."""
    raw = [_raw_name(member) for member in members]
    unknown = b"\n".join(name for name in raw if isinstance(name, bytes) and not name.isascii())
    encoding = guess_encoding(unknown[:_MAX_BYTES]) if unknown else _STANDARD
    return [name if isinstance(name, str) else name.decode(encoding, "replace") for name in raw]


def guess_encoding(text: bytes) -> str:
    """Return the encoding in which a text is the most plausible."""
    try:
        text.decode("utf-8")
        return "utf-8"
    except UnicodeDecodeError as error:
        if len(text) == _MAX_BYTES and error.start > len(text) - 4:  # cut within a character
            return "utf-8"
    scores = {encoding: _plausibility(text, encoding) for encoding in _ENCODINGS}
    best = max(_ENCODINGS, key=lambda encoding: scores[encoding])
    return best if scores[best] > 0.0 else _STANDARD


def _raw_name(member: zipfile.ZipInfo) -> str | bytes:
    """Return a name, or its bytes where its encoding is unknown."""
    name = member.orig_filename
    if member.flag_bits & _UTF8_FLAG:
        return name.partition("\0")[0]
    raw = name.encode(_STANDARD).partition(b"\0")[0]
    return _unicode_path(member.extra, raw) or raw


def _unicode_path(extra: bytes, raw: bytes) -> str | None:
    """Return the name in Info-ZIP's extra field for Unicode paths, if it belongs to this name."""
    while len(extra) >= 4:
        kind, size = struct.unpack("<HH", extra[:4])
        field, extra = extra[4 : 4 + size], extra[4 + size :]
        is_path = kind == _UNICODE_PATH and len(field) > 5 and field[0] == 1
        if is_path and struct.unpack("<I", field[1:5])[0] == zlib.crc32(raw):
            return field[5:].decode("utf-8", "replace")
    return None


def _plausibility(text: bytes, encoding: str) -> float:
    """Return how plausible a text is in an encoding: the mean over its bytes, -1 to 1."""
    total, count, hangul = 0.0, 0, 0
    for line in text.splitlines():
        try:
            characters = f"  {line.decode(encoding)} "
        except UnicodeDecodeError:
            return -1.0
        for at in range(2, len(characters) - 1):
            character, around = characters[at], characters[at - 2 : at + 2]
            if not character.isascii():
                code = character.encode(encoding)
                total += len(code) * _character_score(character, around, code, encoding)
                count += len(code)
                hangul += "\uac00" <= character <= "\ud7a3"
            elif character in _SECOND_BYTES and not around[1].isascii():
                total -= 1.0  # rather the second byte of a character
                count += 1
    score = total / count if count else -1.0
    # Common Korean and common Chinese have the same bytes, so the number of them decides.
    is_korean = encoding == "cp949" and hangul >= _KOREAN_CHARACTERS and score > 0.9
    return score + 0.1 if is_korean else score


def _character_score(character: str, around: str, code: bytes, encoding: str) -> float:
    """Score a character; ``around`` is the two before it, itself and the one after it."""
    is_in_word = any(_is_ascii_letter(other) for other in (around[1], around[3]))
    if len(code) == 2:
        is_latin = is_in_word and _is_ascii_letter(chr(code[1]))
        return -0.5 if is_latin else _double_byte_score(character, code, encoding)
    if not character.isalpha():
        return -1.0
    if "\uff66" <= character <= "\uff9f":  # half-width katakana
        return 0.2
    if character.isupper() and around[1].islower():
        return -1.0
    if character.islower() and around[:2].isupper() and around[:2].isalpha():
        return -1.0
    if character in _CYRILLIC or character.lower() in _CYRILLIC:
        return -0.5 if is_in_word else 1.0 if character.islower() else 0.96
    if character < "\u0180":  # Latin
        return 0.75 if around[1].isascii() else 0.3
    return -1.0


def _is_ascii_letter(character: str) -> bool:
    return character.isascii() and character.isalpha()


def _double_byte_score(character: str, code: bytes, encoding: str) -> float:
    if "\u3041" <= character <= "\u30ff":  # kana
        return 1.0 if encoding == "cp932" else 0.3
    is_hangul = "\uac00" <= character <= "\ud7a3"
    if is_hangul or "\u4e00" <= character <= "\u9fff":
        leads, score = _COMMON.get(encoding, (range(0), 0.0))
        is_common = code[0] in leads and (code[1] >= 0xA1 or encoding in ("cp932", "big5"))
        if is_common and is_hangul == (encoding == "cp949"):
            return score
        return 0.4 if code[0] >= 0xA1 and code[1] >= 0xA1 and encoding == "gbk" else 0.2
    is_punctuation = "\u3000" <= character <= "\u303f" or "\uff01" <= character <= "\uff5e"
    return 0.7 if is_punctuation else -1.0
