"""What passages are found by: the words of a text, and what is left of them without marks.

A full-text engine's own tokenisers do not know where a Chinese word ends, nor that a Vietnamese
one is often typed without its tones.
"""

from __future__ import annotations

import re
import unicodedata
from itertools import pairwise

from residency.core.units import HAN
from residency.locale.tokenise import tokens

BARE = "_"
"""Stands before a word whose marks were taken off, so that it meets only such words."""


def terms(text: str, lang: str = "") -> list[str]:
    """The terms of a text: pairs of neighbouring Chinese characters (one that stands alone by
    itself), other words in lower case and, with ``BARE`` before them, without their marks.

    ``lang``: settles two spellings of one word, where a language has them.
    """
    found: list[str] = []
    run: list[str] = []
    for word in [*tokens(text, lang), ""]:
        if re.match(f"[{HAN}]", word):
            run.append(word)
            continue
        found += ["".join(pair) for pair in pairwise(run)] or run
        run = []
        if word:
            found += [word, BARE + _bare(word)]
    return found


def _bare(word: str) -> str:
    """A word without marks; the Vietnamese letter đ is a d."""
    apart = unicodedata.normalize("NFD", word.replace("đ", "d"))
    return "".join(one for one in apart if not unicodedata.combining(one))
