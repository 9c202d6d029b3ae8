"""Text as hospitals store it: bytes in old encodings, Vietnamese by font, RTF and HTML, each read
exactly or not at all."""

from __future__ import annotations

import re
import tomllib
from datetime import date, datetime
from functools import cache
from pathlib import Path

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
    stored = (
        decoded(bytes(value), encoding, lang)
        if isinstance(value, bytes | bytearray | memoryview)
        else str(value)
    )
    text, edits = (
        by_font(stored, encoding)
        if encoding in FONTS
        else (stored, Edits(source_length=len(stored)))
    )
    kind = told(text) if format == "auto" else format
    if kind == "plain":
        return text, edits
    return (of_rtf(text) if kind == "rtf" else of_html(text)), None


def decoded(data: bytes, encoding: Encoding, lang: str = "") -> str:
    """Bytes as text, strictly; raises ``Unreadable``."""
    if encoding in FONTS:
        return _single(data)
    if encoding == "auto":
        if data.startswith((b"\xff\xfe", b"\xfe\xff")):
            tried = ["utf-16"]
        else:
            tried = ["utf-8-sig", *(["gb18030"] if lang == "zh" else [])]
    else:
        tried = [{"utf-8": "utf-8-sig"}.get(encoding, encoding)]
    for name in tried:
        try:
            return data.decode(name)
        except UnicodeDecodeError:
            continue
    raise Unreadable(UNREADABLE)


def _single(data: bytes) -> str:
    """Each byte the sign that a Western system shows; or these signs themselves in UTF-8, which
    texts in these fonts never look like."""
    for name in ("utf-8-sig", "cp1252"):
        try:
            return data.decode(name)
        except UnicodeDecodeError:
            continue
    return data.decode("latin-1")


# Vietnamese by font


@cache
def tcvn3() -> dict[str, str]:
    """Stored sign -> letter."""
    found: dict[str, str] = tomllib.loads(DATA.read_text("utf-8"))["tcvn3"]
    return found


@cache
def vni() -> dict[str, str]:
    """Stored sign, or letter and sign -> letter; capitals too, also where only the letter is one."""
    data = tomllib.loads(DATA.read_text("utf-8"))["vni"]
    small = dict(data["single"])
    small |= {
        pair[0] + sign: pair[1] for sign, pairs in data["pair"].items() for pair in pairs.split()
    }
    capital = {key.upper(): letter.upper() for key, letter in small.items()}
    mixed = {
        key[0].upper() + key[1]: letter.upper() for key, letter in small.items() if len(key) == 2
    }
    return small | mixed | capital


def by_font(stored: str, encoding: Encoding) -> tuple[str, Edits]:
    """Text whose Vietnamese letters were drawn by a font, as Unicode; raises ``Unreadable`` for a
    sign that no letter bears."""
    from unicodedata import normalize

    table = tcvn3() if encoding == "tcvn3" else vni()
    pieces: list[tuple[int, int, str]] = []
    position = 0
    while position < len(stored):
        sign = stored[position]
        pair = stored[position : position + 2]
        if encoding == "tcvn3":
            letter = table.get(sign, sign)
            if len(pair) == 2 and pair[1] in MARKS and letter in LETTERS:
                pieces.append((position, position + 2, normalize("NFC", letter + MARKS[pair[1]])))
                position += 2
                continue
            if sign in MARKS or (sign not in table and _foreign(sign)):
                raise Unreadable(UNREADABLE)
        else:
            if len(pair) == 2 and pair in table:
                pieces.append((position, position + 2, table[pair]))
                position += 2
                continue
            letter = table.get(sign, sign)
            if sign not in table and _foreign(sign):
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


def told(text: str) -> Format:
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


def _words(node: object, out: list[str]) -> None:
    """Append the words of an element, in order, without those of scripts and styles."""
    tag = getattr(node, "tag", "")
    if not isinstance(tag, str) or tag in ("script", "style", "head", "title"):
        return
    keep = tag == "pre"
    if tag in BLOCKS:
        out.append("\n")
    text = getattr(node, "text", None) or ""
    out.append(text if keep else re.sub(r"[ \t\r\n\f]+", " ", text))
    for child in node:  # type: ignore[attr-defined]
        _words(child, out)
        tail = child.tail or ""
        out.append(tail if keep else re.sub(r"[ \t\r\n\f]+", " ", tail))
    if tag in BLOCKS:
        out.append("\n")
    elif tag in ("td", "th"):
        out.append("\t")


def tidy(text: str) -> str:
    """Lines without blanks at their ends, none of them empty twice in a row."""
    lines = [
        re.sub(r" *\t *", "\t", re.sub(r" {2,}", " ", line)).strip() for line in text.split("\n")
    ]
    return "\n".join(line for line in lines if line)
