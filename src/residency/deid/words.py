"""Many words looked for in a text all at once, each with what it means."""

from __future__ import annotations

from collections.abc import Iterable
from operator import itemgetter
from typing import Any, Generic, TypeVar

import numpy as np

from residency.deid.view import Codes, codes_of

Meaning = TypeVar("Meaning")
Found = Iterable[tuple[int, int, tuple[Meaning, ...]]]
"""(start, end, meanings) of every word, by their ends."""


def _meanings(words: Iterable[tuple[str, Meaning]]) -> dict[str, tuple[Meaning, ...]]:
    """Word -> its different meanings in their order."""
    found: dict[str, dict[Meaning, None]] = {}
    for word, meaning in words:
        found.setdefault(word, {})[meaning] = None
    return {word: tuple(meant) for word, meant in found.items()}


class SpacedWords(Generic[Meaning]):
    """Finds words in a text whose words stand between blanks (``View.low_words``), with an
    automaton."""

    def __init__(self, words: Iterable[tuple[str, Meaning]]) -> None:
        import ahocorasick

        bare = (
            ("".join(sign if sign.isalpha() else " " for sign in word).strip(), meaning)
            for word, meaning in words
        )
        self.automaton: Any = ahocorasick.Automaton()
        for word, meant in _meanings(bare).items():
            self.automaton.add_word(f" {word} ", (len(word) + 2, meant))
        self.automaton.make_automaton()

    def find(self, text: str) -> Found[Meaning]:
        """Every word, by offsets in the text without the blanks around it."""
        return (
            (last + 1 - size, last - 1, meant) for last, (size, meant) in self.automaton.iter(text)
        )


class GluedWords(Generic[Meaning]):
    """Finds words in a text that does not part them, as Chinese. Words of letters are found whole,
    save beside Chinese signs and digits.

    Places are found by the first two signs of a word, for thousands of places at once. (An
    automaton looks through all signs with which Chinese words begin, one after another, at every
    place.)
    """

    SINGLE = np.uint64(1 << 63)

    def __init__(self, words: Iterable[tuple[str, Meaning]]) -> None:
        bits: dict[str, np.uint64] = {}
        # only what is used of these is in memory
        self.first, self.second = np.zeros(0x110000, np.uint64), np.zeros(0x110000, np.uint64)
        self.by_start: dict[str, list[tuple[str, bool, tuple[Meaning, ...]]]] = {}
        for word, meant in _meanings(words).items():
            latin = word[0] < "\u2e80" or word[-1] < "\u2e80"
            self.by_start.setdefault(word[:2], []).append((word, latin, meant))
            if len(word) == 1:
                self.first[ord(word)] |= self.SINGLE
                continue
            bit = bits.setdefault(word[0], np.uint64(1 << len(bits) % 63))
            self.first[ord(word[0])] |= bit
            self.second[ord(word[1])] |= bit

    def find(self, text: str, codes: Codes | None = None) -> Found[Meaning]:
        """Every word; ``codes``: the text's code points where they are there already."""
        found: list[tuple[int, int, tuple[Meaning, ...]]] = []
        for start in self._places(codes_of(text) if codes is None else codes):
            for key in dict.fromkeys((text[start : start + 2], text[start])):
                for word, latin, meant in self.by_start.get(key, ()):
                    end = start + len(word)
                    if text.startswith(word, start) and not (latin and _is_cut(text, start, end)):
                        found.append((start, end, meant))
        found.sort(key=itemgetter(1, 0))
        return found

    def _places(self, codes: Codes) -> list[int]:
        """Places where a word may begin, in order; a few where none does may be among them."""
        marks = self.first[codes]
        marks[:-1] &= self.second[codes[1:]] | self.SINGLE
        marks[-1:] &= self.SINGLE
        found: list[int] = np.flatnonzero(marks).tolist()
        return found


def _is_cut(text: str, start: int, end: int) -> bool:
    """Whether a word of letters is part of a longer one."""
    return any(0 < at < len(text) and is_one_word(text[at - 1], text[at]) for at in (start, end))


def is_one_word(left: str, right: str) -> bool:
    """Whether two signs belong to one word of letters."""
    return left.isalpha() and right.isalpha() and left < "\u2e80" and right < "\u2e80"
