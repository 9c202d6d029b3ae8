"""Words of Word documents and PDFs that stand inside of other documents.

Word's are taken apart here: python-docx passes over inserted text and content controls, and gives
deleted and hidden text no name. PDFs are read by pypdf (``residency[pdf]``).
"""

from __future__ import annotations

import logging
from collections import Counter
from io import BytesIO
from typing import Any
from zipfile import BadZipFile, ZipFile

from residency.ingest.decode import (
    ASIDE,
    DOWN,
    HIDDEN,
    PICTURE,
    STRUCK,
    UP,
    Unreadable,
    count_left,
    tidy,
    with_powers,
)
from residency.ingest.safe_xml import root_of

W = "{http://schemas.openxmlformats.org/wordprocessingml/2006/main}"
LARGEST = 200_000_000
"""Bytes of a part of a Word document that are unpacked at most."""
SYMBOL = "signs of a font of symbols left out"
SCANNED = "pages of a PDF without words left out"
PLAIN = {"tab": "\t", "br": "\n", "cr": "\n", "noBreakHyphen": "-"}
OFF = ("0", "false", "off", "none")


def of_docx(data: bytes, left: Counter[str]) -> str:
    """The words of a Word document, a line for each paragraph and row; what is deleted, struck out,
    hidden or stands aside is counted in ``left``. Raises ``Unreadable`` with what it is instead."""
    try:
        with ZipFile(BytesIO(data)) as archive:
            names = archive.namelist()
            if "word/document.xml" not in names:
                raise Unreadable(", or another ZIP")
            parts = ("footnotes", "endnotes", "comments", "header", "footer")
            aside = [name for name in names if name.startswith(tuple(f"word/{x}" for x in parts))]
            body, *others = (_part(archive, name) for name in ("word/document.xml", *aside))
    except (BadZipFile, NotImplementedError, RuntimeError, OSError, EOFError):
        raise Unreadable(", or another ZIP") from None
    for part in others:
        words = "".join(one.text or "" for one in part.iter(f"{W}t"))
        if count := len("".join(words.split())):
            left[ASIDE] += count
    out: list[str] = []
    _words(body, out, left)
    return with_powers(tidy("".join(out)))


def _part(archive: ZipFile, name: str) -> Any:
    if archive.getinfo(name).file_size > LARGEST:
        raise Unreadable(" that is too large")
    try:
        return root_of(archive.read(name), "")
    except Unreadable:
        raise Unreadable(" that cannot be read") from None


def _words(node: Any, out: list[str], left: Counter[str]) -> None:
    """Append the words of an element of a Word document, in order."""
    tag = node.tag.rpartition("}")[2]
    if tag in ("del", "moveFrom"):
        count_left(node, STRUCK, left)
        return
    if tag == "r" and (why := _why_unseen(node)):
        count_left(node, why, left)
        return
    if tag == "t":
        out.append(node.text or "")
    left.update({PICTURE: 1} if tag in ("drawing", "pict", "object") else {})
    left.update({SYMBOL: 1} if tag == "sym" else {})
    out.append(PLAIN.get(tag, ""))
    properties = node.find(f"{W}rPr") if tag == "r" else None
    raised = properties is not None and _on(properties, "vertAlign") == "superscript"
    out.append(UP if raised else "")
    for child in node:
        # What stands for a drawing in older programs repeats its words.
        if child.tag.rpartition("}")[2] != "Fallback" or len(node) == 1:
            _words(child, out, left)
    out.append(DOWN if raised else {"p": "\n", "tr": "\n", "tc": "\t"}.get(tag, ""))
    if tag == "p" and any(one.tag == f"{W}tc" for one in node.iterancestors()):
        out[-1] = "\n" if node.getnext() is not None else ""


def _on(properties: Any, name: str) -> str:
    """A property of a run; the empty string where it is off."""
    found = properties.find(f"{W}{name}")
    value = "" if found is None else str(found.get(f"{W}val", "on"))
    return "" if value.lower() in OFF else value


def _why_unseen(run: Any) -> str:
    """Why a run is no part of the text; the empty string where it is."""
    properties = run.find(f"{W}rPr")
    if properties is None:
        return ""
    if _on(properties, "strike") or _on(properties, "dstrike"):
        return STRUCK
    return HIDDEN if _on(properties, "vanish") else ""


def of_pdf(data: bytes, left: Counter[str]) -> str:
    """The words of a PDF, page by page; pages without any are counted in ``left``. Raises
    ``Unreadable`` for what it cannot read, and where pypdf is not installed."""
    try:
        from pypdf import PdfReader
        from pypdf.errors import PyPdfError
    except ModuleNotFoundError:
        raise Unreadable(" (pip install 'residency[pdf]' reads them)") from None
    logging.getLogger("pypdf").setLevel(logging.CRITICAL)  # it tells what it meets in the text
    try:
        reader = PdfReader(BytesIO(data))
        if reader.is_encrypted and not reader.decrypt(""):
            raise Unreadable(" with a password")
        pages = [page.extract_text().strip() for page in reader.pages]
    except (
        *(PyPdfError, ValueError, LookupError, TypeError, AttributeError, ArithmeticError),
        *(RecursionError, NotImplementedError),
    ):
        raise Unreadable(" that cannot be read") from None
    words = "\n".join(filter(None, pages))
    if not words:
        raise Unreadable(" without words, such as a scan")
    left.update({SCANNED: pages.count("")} if "" in pages else {})
    return words
