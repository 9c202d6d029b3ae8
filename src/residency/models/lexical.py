"""What a CRF sees of a text: words, shapes, affixes and their neighbours, as strings.

A feature is ``name=value``, or ``name[-1]=value`` of the slot before; equal texts give equal lists.
Words are compared in NFC and lower case.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable, Mapping, Sequence
from functools import lru_cache
from itertools import chain
from typing import Literal, get_args

from residency.core.units import CLOSERS, HAN, LINE_BREAKS, units

Group = Literal[
    "words", "shapes", "affixes", "characters", "neighbours", "phrases", "place", "dictionary"
]
GROUPS: tuple[Group, ...] = get_args(Group)
Slots = Sequence[tuple[int, int]]

REMEMBERED = 1 << 16
"""Words whose features are kept, since texts repeat them."""
LONGEST_AFFIX = 4
NGRAMS = (3, 4)
"""Characters of a word that are looked at together."""
_HAN = re.compile(f"[{HAN}]")
_BREAK = re.compile(f"[{LINE_BREAKS}]")
_END = re.compile(rf"[.!?。！？；;][{re.escape(CLOSERS)}]*$")


class Terms:
    """Terms with their labels, found in a text by the longest match from left to right.

    ``entries``: a term (its slots in ``word`` form, joined by spaces) -> label -> in how many
    groups of examples it stands so.
    """

    def __init__(self, entries: Mapping[str, Mapping[str, int]]) -> None:
        self.entries = entries
        self.longest: dict[str, int] = {}
        for term in entries:
            words = term.split(" ")
            self.longest[words[0]] = max(self.longest.get(words[0], 0), len(words))

    def find(
        self, words: Sequence[str], own: Iterable[tuple[str, str]] = ()
    ) -> list[tuple[int, int, str]]:
        """(first slot, slot behind, commonest label) of each match. ``own``: (term, label) pairs of
        the group that the text is of, which are not counted: what is only known from the text
        itself is not known."""
        not_counted, found, at = frozenset(own), [], 0
        while at < len(words):
            end = at + 1
            for count in range(min(self.longest.get(words[at], 0), len(words) - at), 0, -1):
                label = self._label(" ".join(words[at : at + count]), not_counted)
                if label:
                    end = at + count
                    found.append((at, end, label))
                    break
            at = end
        return found

    def _label(self, term: str, not_counted: frozenset[tuple[str, str]]) -> str:
        counts = {
            label: count - ((term, label) in not_counted)
            for label, count in self.entries.get(term, {}).items()
        }
        best = max(counts, key=lambda label: (counts[label], label), default="")
        return best if best and counts[best] > 0 else ""


@lru_cache(REMEMBERED)
def word(raw: str) -> str:
    """A word as it is compared."""
    clean = raw.encode("utf-8", "replace").decode()  # half a surrogate pair is no text
    return unicodedata.normalize("NFC", unicodedata.normalize("NFC", clean).lower())


def of_slots(
    text: str,
    slots: Slots,
    groups: Iterable[Group] = GROUPS,
    window: int = 2,
    terms: Sequence[tuple[str, Terms]] = (),
    own: Iterable[tuple[str, str]] = (),
) -> list[list[str]]:
    """The features of each slot of a text.

    ``terms``: (name, terms) of the dictionary of the training part and of lists that were given;
    ``own``: what the first of them does not count, as for ``Terms.find``.
    """
    chosen = frozenset(groups)
    raw = [text[start:end] for start, end in slots]
    words = [word(one) for one in raw]
    known: list[list[str]] = [[] for _ in slots]
    for number, (name, one) in enumerate(terms):
        for first, behind, label in one.find(words, () if number else own):
            _mark(known, first, behind, f"{name}={label}")
    alone = [(*_of_word(each, chosen), *marks) for each, marks in zip(raw, known, strict=True)]
    places = _places(text, slots) if "place" in chosen else [()] * len(slots)
    return [
        [
            *alone[at],
            *places[at],
            *(_of_neighbours(at, words, raw, known, chosen, window)),
            *(_phrases(at, words) if "phrases" in chosen else ()),
        ]
        for at in range(len(slots))
    ]


def of_text(text: str, slots: Slots, groups: Iterable[Group] = GROUPS) -> list[str]:
    """The features of a whole text, each once: its words, pairs of words, and their characters."""
    chosen = frozenset(groups)
    raw = [text[start:end] for start, end in slots]
    words = [word(one) for one in raw]
    found: dict[str, None] = {}
    for at, one in enumerate(raw):
        found.update(dict.fromkeys(_of_word(one, chosen - {"shapes", "affixes"})))
        if "phrases" in chosen and at:
            found[f"w[-1,0]={words[at - 1]}|{words[at]}"] = None
        if "phrases" in chosen and at > 1 and _HAN.match(words[at]):
            found[f"w[-2,0]={''.join(words[at - 2 : at + 1])}"] = None
    return list(found)


def names(text: str, groups: Iterable[Group] = GROUPS, window: int = 2) -> set[str]:
    """Every feature that a text gives rise to by its own words, as slots and as a whole."""
    slots, chosen = units(text), tuple(groups)
    of_each = chain.from_iterable(of_slots(text, slots, chosen, window))
    return {*of_each, *of_text(text, slots, chosen)}


def _mark(known: list[list[str]], first: int, behind: int, name: str) -> None:
    """Say at each slot of a match which part of it that is."""
    for at in range(first, behind):
        place = "single" if behind - first == 1 else "inside"
        place = "begin" if at == first and behind - first > 1 else place
        place = "end" if at == behind - 1 and behind - first > 1 else place
        known[at] += [name, f"{name},{place}"]


@lru_cache(REMEMBERED)
def _of_word(raw: str, chosen: frozenset[Group]) -> tuple[str, ...]:
    """The features of a slot alone."""
    low, found = word(raw), list[str]()
    han = _HAN.match(low) is not None
    if "words" in chosen:
        found.append(f"w={low}")
        if not low.isascii() and not han:
            found.append(f"base={base_letters(low)}")
    if "shapes" in chosen:
        found += [f"shape={shape(raw)}", f"class={_class(raw)}", f"length={min(len(low), 8)}"]
    if "affixes" in chosen and not han:
        for count in range(1, min(LONGEST_AFFIX, len(low) - 1) + 1):
            found += [f"prefix={low[:count]}", f"suffix={low[-count:]}"]
    if "characters" in chosen and not han:
        closed = f"^{low}$"
        for count in NGRAMS:
            found += [f"ngram={closed[at : at + count]}" for at in range(len(closed) - count + 1)]
    return tuple(dict.fromkeys(found))


def base_letters(low: str) -> str:
    """A word without its tone and vowel marks: ``phổi`` is ``phoi``."""
    apart = unicodedata.normalize("NFD", low.replace("đ", "d"))
    return "".join(one for one in apart if unicodedata.category(one) != "Mn")


@lru_cache(REMEMBERED)
def shape(raw: str) -> str:
    """Upper case as X, lower case as x, digits as 9, Han as H; of runs the first two."""
    kinds = "".join(_kind(one) for one in word(raw) and unicodedata.normalize("NFC", raw))
    return re.sub(r"(.)\1{2,}", r"\1\1", kinds).encode("utf-8", "replace").decode()


def _kind(character: str) -> str:
    if _HAN.match(character):
        return "H"
    if character.isdigit():
        return "9"
    if character.isalpha():
        return "X" if character.isupper() else "x"
    return character


def _class(raw: str) -> str:
    """What kind of word it is, in one of few words."""
    if raw.isdigit():
        return "digits"
    if not any(one.isalnum() for one in raw):
        return "punctuation"
    if _HAN.match(raw):
        return "han"
    if raw.isupper():
        return "capital" if len(raw) == 1 else "capitals"
    return "title" if raw[:1].isupper() else "mixed" if raw.lower() != raw else "small"


def _of_neighbours(
    at: int,
    words: Sequence[str],
    raw: Sequence[str],
    known: Sequence[Sequence[str]],
    chosen: frozenset[Group],
    window: int,
) -> list[str]:
    """What stands around a slot, and what is known of it."""
    found: list[str] = []
    if "neighbours" not in chosen:
        return found
    for step in (*range(-window, 0), *range(1, window + 1)):
        there = at + step
        found.append(f"w[{step}]={_at(words, there)}")
        if not 0 <= there < len(words):
            continue
        if "shapes" in chosen:
            found.append(f"shape[{step}]={shape(raw[there])}")
        if abs(step) == 1:
            found += [f"{one}[{step}]" for one in known[there]]
            if "affixes" in chosen and len(words[there]) > 3:
                found += [
                    f"prefix[{step}]={words[there][:3]}",
                    f"suffix[{step}]={words[there][-3:]}",
                ]
    return found


def _phrases(at: int, words: Sequence[str]) -> list[str]:
    """Words together: pairs around a slot, and of Chinese, whose slots are characters, threes."""
    two, one, here = _at(words, at - 2), _at(words, at - 1), words[at]
    next_one, next_two = _at(words, at + 1), _at(words, at + 2)
    found = [
        f"w[-1,0]={one}|{here}",
        f"w[0,1]={here}|{next_one}",
        f"w[-1,1]={one}|{next_one}",
        f"w[-2,-1]={two}|{one}",
        f"w[1,2]={next_one}|{next_two}",
    ]
    if _HAN.match(here):
        found += [
            f"w[-2,0]={two}{one}{here}",
            f"w[-1,+1]={one}{here}{next_one}",
            f"w[0,2]={here}{next_one}{next_two}",
        ]
    return found


def _at(words: Sequence[str], at: int) -> str:
    """The word at a place, or which end of the text it is beyond."""
    return words[at] if 0 <= at < len(words) else "<" if at < 0 else ">"


def _places(text: str, slots: Slots) -> list[tuple[str, ...]]:
    """Where slots are: at the ends of a line or sentence, in an early line, early in their line."""
    found: list[tuple[str, ...]] = []
    line = column = 0
    first = True
    for number, (start, end) in enumerate(slots):
        before = slots[number - 1][1] if number else 0
        if _BREAK.search(text, before, start):
            line, column, first = line + 1, 0, True
        last = number == len(slots) - 1 or _BREAK.search(text, end, slots[number + 1][0])
        here = [f"line={min(line, 4)}"]
        here += ["line begins"] if not column else [f"column={min(column, 8)}"] if line else []
        here += ["sentence begins"] if first else []
        here += ["line ends"] if last else []
        found.append(tuple(here))
        column += 1
        first = bool(_END.search(text[start:end]))
    return found
