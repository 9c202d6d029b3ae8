"""Units of a text, the smallest stretches that no span or token may cut, and the scripts that are
written without spaces; offsets in code points."""

from __future__ import annotations

import re
import unicodedata
from functools import cache

# Scripts that are written without spaces and whose characters stand for themselves.
HAN = (
    "\u3005-\u3007\u3021-\u3029\u3038-\u303b\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff"
    "\U00020000-\U0003fffd"
)
CJK = (
    f"{HAN}"
    # kana
    "\u3041-\u3096\u309d-\u309f\u30a1-\u30fa\u30fc-\u30ff\u31f0-\u31ff\uff66-\uff9f"
    "\U0001aff0-\U0001b16f"
    "\uac00-\ud7a3"  # Hangul syllables
)
JAMO = "\u1100-\u11ff\ua960-\ua97c\ud7b0-\ud7fb"
# A Hangul syllable taken apart (NFD): leading consonants, vowels, trailing consonants.
SYLLABLE = "[\u1100-\u115f\ua960-\ua97c]+[\u1160-\u11a7\ud7b0-\ud7c6]*[\u11a8-\u11ff\ud7cb-\ud7fb]*"
MAYBE_MARK = "[\u0300-\u302f\u3099\u309a\ua66f-\uabff\ufb1e-\ufe2f\U00010000-\U0001ffff\U000e0100-\U000e01ef]"  # noqa: E501


def units(text: str) -> list[tuple[int, int]]:
    """The smallest stretches of a text that no span or token may cut, in order, without overlap.

    A run of letters, a run of digits, one CJK character (Han, kana, Hangul syllable), or any other
    character that is not white space; each with the combining marks that follow it, so NFD text is
    cut where NFC text is. Together they cover every character that is not white space.
    """
    return [match.span() for match in _unit().finditer(text)]


@cache
def _unit() -> re.Pattern[str]:
    letter = rf"[^\W\d_{CJK}{JAMO}{_ranges('No', 'Nl')}]"
    # The look-ahead is cheap and fails on nearly every character; the exact class is long.
    marks = f"(?={MAYBE_MARK})[{_ranges('Mn', 'Mc', 'Me')}]+"
    return re.compile(rf"{letter}+(?:{marks}{letter}*)*|(?:\d+|{SYLLABLE}|\S)(?:{marks})?")


def _ranges(*categories: str) -> str:
    """General categories as the inside of a character class; numbers only of the basic plane, for
    speed."""
    planes = (range(0x10000), range(0x10000, 0x20000), range(0xE0100, 0xE01F0))
    wanted = planes if "Mn" in categories else planes[:1]
    codes = [
        code for plane in wanted for code in plane if unicodedata.category(chr(code)) in categories
    ]
    known = set(codes)
    starts = (code for code in codes if code - 1 not in known)
    ends = (code for code in codes if code + 1 not in known)
    return "".join(f"\\U{start:08x}-\\U{end:08x}" for start, end in zip(starts, ends, strict=True))


LINE_BREAKS = r"\n\r\v\f\x1c-\x1e\x85\u2028\u2029"
OPENERS = "([{（［【「『《“‘"
CLOSERS = "'\"”’»)]}）］】」』》"
