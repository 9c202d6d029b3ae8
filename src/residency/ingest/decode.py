"""Text as hospitals store it: bytes in old encodings, Vietnamese by font, RTF and HTML, each read
exactly or not at all."""

from __future__ import annotations

import re
import tomllib
from contextlib import suppress
from datetime import date, datetime
from functools import cache
from pathlib import Path
from typing import Any

from residency.core.edits import Edits
from residency.ingest.sources import Encoding, Format

DATA = Path(__file__).parent / "data/encodings.toml"
FONTS = ("tcvn3", "vni")
UNREADABLE = "the text cannot be read in this encoding"
BROKEN = "the formatted text cannot be taken apart"
LETTERS = set("aăâeêioôơuưy") | set("AĂÂEÊIOÔƠUƯY")
MARKS = {"°": "\u0300", "±": "\u0309", "²": "\u0303", "³": "\u0301", "´": "\u0323"}
"""TCVN 5712's five marks that stand behind their letter."""
HTML = re.compile(
    r"<(?:!doctype\s+html|html|body)\b|</(?:p|div|span|b|i|u|em|strong|td|tr|table|ul|ol|li|h[1-6]|font|body|html)\s*>|<br\s*/?>",
    re.IGNORECASE,
)
BLOCKS = frozenset(
    [
        "p",
        "div",
        "br",
        "tr",
        "table",
        "ul",
        "ol",
        "li",
        "h1",
        "h2",
        "h3",
        "h4",
        "h5",
        "h6",
        "hr",
        "pre",
        "section",
        "article",
        "header",
        "footer",
        "dl",
        "dt",
        "dd",
    ]
)


class Unreadable(Exception):
    """Why a text cannot be read; holds nothing of it."""


def read(value: object, encoding: Encoding, lang: str, format: Format) -> tuple[str, Edits | None]:
    """A column's value as text, and how offsets of the stored text move; None where it was taken
    apart (RTF, HTML).

    Raises ``Unreadable``: nothing is guessed.
    """
    if value is None:
        return "", Edits(source_length=0)
    if isinstance(value, datetime | date):
        value = value.isoformat()
    if isinstance(value, bytes | bytearray | memoryview):
        text = decode_bytes(bytes(value), encoding, lang)
    else:
        text = str(value)
    edits = Edits(source_length=len(text))
    if encoding in FONTS:
        text, edits = by_font(text, encoding)
    kind = format_of(text) if format == "auto" else format
    if kind == "plain":
        return text, edits
    return (of_rtf(text) if kind == "rtf" else of_html(text)), None


def decode_bytes(data: bytes, encoding: Encoding, lang: str = "") -> str:
    """Bytes as text, strictly; raises ``Unreadable``."""
    if encoding in FONTS:
        # Each byte is the sign that a Western system shows; or the bytes are these signs in UTF-8,
        # which texts in these fonts never look like.
        tried = ["utf-8-sig", "cp1252", "latin-1"]
    elif encoding != "auto":
        tried = [{"utf-8": "utf-8-sig"}.get(encoding, encoding)]
    elif data.startswith((b"\xff\xfe", b"\xfe\xff")):
        tried = ["utf-16"]
    else:
        tried = ["utf-8-sig", "gb18030"] if lang == "zh" else ["utf-8-sig"]
    for name in tried:
        with suppress(UnicodeDecodeError):
            return data.decode(name)
    raise Unreadable(UNREADABLE)


# Vietnamese by font


@cache
def tcvn3() -> dict[str, str]:
    """Stored sign -> letter."""
    found: dict[str, str] = tomllib.loads(DATA.read_text("utf-8"))["tcvn3"]
    return found


@cache
def vni() -> dict[str, str]:
    """Stored sign, or letter and sign -> letter; capitals too, also where only the letter is
    one."""
    data = tomllib.loads(DATA.read_text("utf-8"))["vni"]
    small = dict(data["single"])
    for sign, pairs in data["pair"].items():
        small |= {pair[0] + sign: pair[1] for pair in pairs.split()}
    capital = {key.upper(): letter.upper() for key, letter in small.items()}
    mixed = {key[0].upper() + key[1:]: letter.upper() for key, letter in small.items()}
    return small | mixed | capital


def by_font(stored: str, encoding: Encoding) -> tuple[str, Edits]:
    """Text whose Vietnamese letters were drawn by a font, as Unicode; raises ``Unreadable`` for a
    sign that no letter bears."""
    from unicodedata import normalize

    table = tcvn3() if encoding == "tcvn3" else vni()
    pieces: list[tuple[int, int, str]] = []
    position = 0
    while position < len(stored):
        sign, pair = stored[position], stored[position : position + 2]
        letter = table.get(sign, sign)
        if encoding == "vni":
            both = table.get(pair, "") if len(pair) == 2 else ""
        else:
            marked = len(pair) == 2 and pair[1] in MARKS and letter in LETTERS
            both = normalize("NFC", letter + MARKS[pair[1]]) if marked else ""
        if both:
            pieces.append((position, position + 2, both))
            position += 2
            continue
        stray = encoding == "tcvn3" and sign in MARKS
        if stray or (sign not in table and _foreign(sign)):
            raise Unreadable(UNREADABLE)
        if letter != sign:
            pieces.append((position, position + 1, letter))
        position += 1
    edits = Edits.of(stored, pieces)
    return edits.apply(stored), edits


def _foreign(sign: str) -> bool:
    """Whether a sign is no plain Latin one and no punctuation of a Western system."""
    return not (sign.isascii() or (sign in "\xa0–—‘’“”•…°±²³µ·½¼¾«»€" and not sign.isalpha()))


# Formatted text


def format_of(text: str) -> Format:
    """What a text is, by how it begins and by its tags."""
    if text.lstrip()[:5] == "{\\rtf":
        return "rtf"
    return "html" if "<" in text and HTML.search(text) else "plain"


def of_rtf(text: str) -> str:
    """The words of an RTF text; raises ``Unreadable``."""
    from striprtf.striprtf import rtf_to_text

    if text.lstrip()[:5] != "{\\rtf":
        raise Unreadable(BROKEN)
    try:
        return str(rtf_to_text(text, errors="strict")).strip("\n")
    except (UnicodeError, LookupError, ValueError, IndexError, TypeError):
        raise Unreadable(BROKEN) from None


def of_html(text: str) -> str:
    """The words of an HTML text, a line for each block and row, cells parted by tabs; raises
    ``Unreadable``."""
    from lxml import etree, html

    if not text.strip():
        return ""
    parser = html.HTMLParser(
        encoding="utf-8", no_network=True, remove_comments=True, remove_pis=True
    )
    try:
        tree = html.document_fromstring(text.encode("utf-8", "replace"), parser=parser)
    except (etree.LxmlError, ValueError):
        raise Unreadable(BROKEN) from None
    out: list[str] = []
    _words(tree, out)
    return tidy("".join(out))


def _words(node: Any, out: list[str]) -> None:
    """Append the words of an element, in order, without those of scripts and styles."""
    tag = node.tag
    if not isinstance(tag, str) or tag in ("script", "style", "head", "title"):
        return
    around = "\n" if tag in BLOCKS else ""
    out += (around, _blanks(node.text, tag))
    for child in node:
        _words(child, out)
        out.append(_blanks(child.tail, tag))
    out.append("\t" if tag in ("td", "th") else around)


def _blanks(text: str | None, tag: str) -> str:
    """A text with single blanks, save in preformatted text."""
    return (text or "") if tag == "pre" else re.sub(r"[ \t\r\n\f]+", " ", text or "")


def tidy(text: str) -> str:
    """Lines without blanks at their ends, none of them empty twice in a row."""
    single = re.sub(r" *\t *", "\t", re.sub(r" {2,}", " ", text))
    return "\n".join(line for line in map(str.strip, single.split("\n")) if line)
