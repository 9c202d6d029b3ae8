"""Marked patients, and the search for them in whatever form they may have been written down."""

from __future__ import annotations

import base64
import json
from collections.abc import Iterable, Iterator
from html import escape
from pathlib import Path
from unicodedata import normalize
from urllib.parse import quote, quote_plus

PATIENTS = {
    "vi": ("Đặng", "Zyxừnquý", "ZX9081726354"),
    "zh": ("欧阳锆锇", "ZH7766554433"),
    "en": ("Zyxquorb", "Wibblethorn", "ZE1122334455"),
}
"""Names and ids that stand nowhere else; each part alone must not be found."""


def said(lang: str, form: str) -> str:
    """A patient's name and ids in a normal form."""
    return normalize(form, " ".join(PATIENTS[lang]))


TEXTS = [said(lang, form) for lang in PATIENTS for form in ("NFC", "NFD")]


def _encoded(text: str) -> Iterator[bytes]:
    data = text.encode()
    yield data
    yield from (
        text.encode("utf-16-le"),
        text.encode("utf-16-be"),
        data.hex().encode(),
        data.decode("latin-1").encode(),
    )
    for way in (
        quote(text),
        quote_plus(text),
        repr(data)[2:-1],
        escape(text),
        json.dumps(text)[1:-1],
        ascii(text)[1:-1],
    ):
        yield from (way.encode(), way.lower().encode(), way.upper().encode())
    for shift in range(3):
        whole = base64.b64encode(b"\0" * shift + data).rstrip(b"=")
        kept = whole[-(-shift * 8 // 6) : len(whole) - bool((shift + len(data)) % 3)]
        yield from (kept, kept.replace(b"+", b"-").replace(b"/", b"_"))


def forms() -> set[bytes]:
    """Every form of every part."""
    found = set[bytes]()
    for part in (part for parts in PATIENTS.values() for part in parts):
        for text in (
            normalize(form, case)
            for form in ("NFC", "NFD")
            for case in (part, part.lower(), part.upper())
        ):
            found.update(_encoded(text))
    return {one for one in found if len(one) >= 5}


FORMS = forms()


def marked(data: bytes) -> list[bytes]:
    """The forms that stand in some bytes."""
    return [form for form in FORMS if form in data]


def leaks(folders: Iterable[Path]) -> list[str]:
    """Files that hold a mark, or are named after one."""
    files = (path for folder in folders for path in folder.rglob("*") if path.is_file())
    found = ((path.name, marked(str(path).encode() + b"\n" + path.read_bytes())) for path in files)
    return [f"{name}: {forms[:2]}" for name, forms in found if forms]
