"""The words of CDA documents, and of documents inside of messages and documents: text, RTF, HTML,
CDA, Word and PDF are read, others are left out by their name."""

from __future__ import annotations

import codecs
import re
from base64 import b64decode
from binascii import Error, unhexlify
from collections import Counter
from functools import partial
from typing import Any

from residency.ingest import shared_documents
from residency.ingest.decode import (
    DOWN,
    PICTURE,
    STRUCK,
    UP,
    Unreadable,
    count_left,
    decode_bytes,
    read,
    tidy,
    with_powers,
)
from residency.ingest.office import of_docx, of_pdf
from residency.ingest.safe_xml import V3, root_of
from residency.ingest.sources import Format

LINES = frozenset(
    {"paragraph", "item", "tr", "br", "title", "caption", "list", "table", "text", "thead", "tbody"}
)
EMBEDDED = "embedded document of a kind that is not read"
ELSEWHERE = "embedded document left out: it stands in another file"
SIGNS: tuple[tuple[bytes, str], ...] = (
    (b"\xd0\xcf\x11\xe0", "DOC"),
    (b"\xff\xd8\xff", "JPEG"),
    (b"\x89PNG", "PNG"),
    (b"GIF8", "GIF"),
    (b"II*\x00", "TIFF"),
    (b"MM\x00*", "TIFF"),
)
"""What the files of a kind begin with."""


def words_of(
    value: str, coding: str, named: str, lang: str, left: Counter[str], charset: str = ""
) -> str:
    """The words of an embedded document. ``coding``: how it is written (base64, hex, or as it is);
    ``named``: its kind as the message says it, e.g. ``text/rtf``; ``charset``: the one that it
    names, if any.

    Raises ``Unreadable`` with the name of the kind where it is not read; never with a word of it.
    """
    coding = coding.strip().lower()
    try:
        if coding in ("base64", "b64"):
            data = b64decode("".join(value.split()), validate=True)
        elif coding == "hex":
            data = unhexlify("".join(value.split()))
        else:
            data = value.encode("utf-8", "surrogatepass")
    except (Error, ValueError):
        raise Unreadable(f"{EMBEDDED}: its {coding} cannot be read") from None
    begins = data.removeprefix(b"\xef\xbb\xbf").lstrip()
    for sign, known, words in ((b"%PDF", "PDF", of_pdf), (b"PK\x03\x04", "DOCX", of_docx)):
        if data.startswith(sign):
            try:
                return words(data, left)
            except Unreadable as error:
                raise Unreadable(f"{EMBEDDED}: {known}{error}") from None
    for sign, known in SIGNS:
        if data.startswith(sign):
            raise Unreadable(f"{EMBEDDED}: {known}")
    if data[128:132] == b"DICM":
        raise Unreadable(f"{EMBEDDED}: DICOM")
    if b"<ClinicalDocument" in begins[:4096]:
        return narrative(root_of(data), lang, left)
    named = named.lower()
    kind: Format = "rtf" if begins.startswith(b"{\\rtf") else "html" if "html" in named else "auto"
    text = decode_bytes(data, _codec(charset), lang)
    drawn = "".join(text.split())
    if "\0" in text or sum(map(str.isprintable, drawn)) * 2 < len(drawn):
        raise Unreadable(f"{EMBEDDED}: binary")
    return read(text, "utf-8", lang, kind, left)[0]


def _codec(charset: str) -> str:
    """Python's name of a character set; GB 2312 is read as what has grown of it."""
    if not charset:
        return "auto"
    try:
        name = codecs.lookup(charset).name
        b"".decode(name)
    except LookupError:
        raise Unreadable(f"{EMBEDDED}: its character set is not known") from None
    return "gb18030" if name in ("gb2312", "gbk") else name


def narrative(root: Any, lang: str = "", left: Counter[str] | None = None) -> str:
    """Titles and texts of all sections in order, a line for each paragraph, item and row; or the
    words of a body that is no XML. What is struck out, and what stands in another file, is counted
    in ``left``.

    Raises ``Unreadable`` for a body of a kind that is not read.
    """
    left = Counter() if left is None else left
    parts = []
    for body in root.iterfind(f"{V3}component/{V3}nonXMLBody/{V3}text"):
        if body.find(f"{V3}reference") is not None and not "".join(body.itertext()).strip():
            left[ELSEWHERE] += 1
        else:
            parts.append(_embedded(body, lang, left))
    shared = shared_documents.is_shared(root)
    for section in root.iter(f"{V3}section"):
        said = []
        for name in ("title", "text"):
            element = section.find(f"{V3}{name}")
            if element is not None:
                said.append(_narrative(element, left))
        if shared:
            named = shared_documents.heading(section)
            reader = partial(_of_entry, lang=lang, left=left)
            said += shared_documents.entries(section, named, "".join(said), reader, left)
            said[:0] = [named] if any(said) else []
        parts += said
    return "\n".join(part for part in parts if part)


def _narrative(element: Any, left: Counter[str]) -> str:
    out: list[str] = []
    _words(element, out, left)
    return with_powers(tidy("".join(out)))


def _embedded(element: Any, lang: str, left: Counter[str]) -> str:
    """The words of an element that holds a document; raises ``Unreadable``."""
    coding = "base64" if element.get("representation", "").upper() == "B64" else ""
    inside = "".join(element.itertext())
    return words_of(inside, coding, element.get("mediaType", ""), lang, left).strip()


def _of_entry(element: Any, lang: str, left: Counter[str]) -> str:
    """The words of a value: a text with its lines, a narrative, or an embedded document."""
    try:
        if element.get("representation") or element.get("mediaType"):
            return _embedded(element, lang, left)
        if not len(element):
            return read(element.text or "", "utf-8", lang, "auto", left)[0].strip()
    except Unreadable as error:
        left[str(error)] += 1
        return ""
    return _narrative(element, left)


def _words(node: Any, out: list[str], left: Counter[str]) -> None:
    tag = node.tag.rpartition("}")[2] if isinstance(node.tag, str) else ""
    if not tag:
        return
    style = node.get("styleCode", "").lower()
    if node.get("revised") == "delete" or "strike" in style or "linethrough" in style:
        count_left(node, STRUCK, left)
        return
    left.update({PICTURE: 1} if tag == "renderMultiMedia" else {})
    around = UP if tag == "sup" else "\n" if tag in LINES else ""
    out += (around, blank(node.text))
    for child in node:
        _words(child, out, left)
        out.append(blank(child.tail))
    out.append(DOWN if tag == "sup" else "\t" if tag in ("td", "th") else around)


def blank(text: str | None) -> str:
    """A text with single blanks."""
    return re.sub(r"\s+", " ", text or "")
