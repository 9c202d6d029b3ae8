"""What a language brings: a packaged ``<code>.toml`` each. Adding a language is adding its file."""

from __future__ import annotations

import re
import tomllib
from functools import cache
from pathlib import Path
from typing import Literal

import msgspec

from residency.core.types import Value

FOLDER = Path(__file__).parent


class Locale(Value, frozen=True, forbid_unknown_fields=True):
    """A language's own habits of writing."""

    code: str
    """ISO 639-1, e.g. ``vi``"""
    name: str
    native_name: str
    unit: Literal["word", "character"] = "word"
    """What its readers count, and what text overlap is measured in."""
    sentence_ends: str = ".!?…。！？"
    """The characters that may end a sentence."""
    abbreviations: tuple[str, ...] = ()
    """Written with a full stop that ends no sentence, case as written."""
    spellings: dict[str, str] = {}
    """Ends of words in one of two accepted spellings -> in the other, so that both compare
    equal."""
    segmenter: str = ""
    """What joins the syllables of its words (see ``residency.locale.segment``); empty where spaces
    part words."""


@cache
def load(code: str) -> Locale:
    """The locale of a language tag (``vi``, ``zh-CN``).

    A language without a file gets a generic locale (words between spaces, no abbreviations) under
    its own code: an unknown language is never an error.
    """
    found = re.match(r"[a-z]{2,3}(?![a-z])", code.lower())
    file = FOLDER / f"{found[0]}.toml" if found else None
    if file is None or not file.is_file():
        return Locale(code=code, name=code, native_name=code)
    return msgspec.convert(tomllib.loads(file.read_text("utf-8")), Locale)


def packaged() -> list[str]:
    """Codes of the languages in the package."""
    return sorted(path.stem for path in FOLDER.glob("*.toml"))
