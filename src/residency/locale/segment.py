"""Word segmentation as edits: for models that were trained on text whose words are joined
("bệnh_nhân")."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Callable, Iterator
from functools import cache
from itertools import pairwise

from residency.core.edits import Edits
from residency.core.errors import UserError, allowed
from residency.core.units import units
from residency.locale.tokenise import sentences


def segmenters() -> list[str]:
    """Names of the segmenters."""
    return sorted(_SEGMENTERS)


def segment(text: str, segmenter: str) -> Edits:
    """Edits from a text to its segmented form, as the word models of PhoBERT and ViHealthBERT
    expect it.

    The white space inside a word becomes ``_``, and a space goes between words that touch
    ("uống,"). Nothing else changes, whatever the library does to its copy of the text: a sentence
    whose words cannot be matched to it letter by letter is left as it is. Words never reach over a
    line break or the end of a sentence.

    Raises ``UserError`` for an unknown segmenter or a package that is not installed.
    """
    if segmenter not in _SEGMENTERS:
        raise UserError(
            f"segmenter: {segmenter!r} is not known; {allowed(segmenters(), segmenter)}."
        )
    split = _SEGMENTERS[segmenter]()
    return Edits.of(
        text,
        (edit for start, end in sentences(text, "vi") for edit in _joins(text, start, end, split)),
    )


def _underthesea() -> Callable[[str], list[str]]:
    try:
        from underthesea import word_tokenize
    except ImportError:
        raise UserError(
            'segmenter: the package underthesea is not installed; run pip install "residency[vi]", '
            "or choose a base model that takes unsegmented text."
        ) from None
    return lambda sentence: [str(word) for word in word_tokenize(sentence)]


def _syllables() -> Callable[[str], list[str]]:
    return lambda sentence: [sentence[start:end] for start, end in units(sentence)]


SYLLABLES = "syllables"
"""The segmenter that joins nothing: no word can reach over the border of a labelled span."""
_SEGMENTERS = {SYLLABLES: _syllables, "underthesea": _underthesea}


def _joins(
    text: str, start: int, end: int, split: Callable[[str], list[str]]
) -> Iterator[tuple[int, int, str]]:
    """The edits of one sentence, from the library's words matched to it letter by letter."""
    try:
        words = split(unicodedata.normalize("NFC", text[start:end]))
    except (
        Exception
    ):  # whatever a library raises over odd input, the sentence can still be used as it is
        return
    places = [place for place in range(start, end) if _letter(text[place])]
    begins, letters = _begins(words)
    if [_letter(text[place]) for place in places] != letters:
        return
    cuts = {start + cut for cut, _ in units(text[start:end])}
    for number, (left, right) in enumerate(pairwise(places), start=1):
        begin = begins.get(number)
        gap = re.search(r"\s+", text[left + 1 : right])
        if begin == "word" and not gap and right in cuts:
            yield right, right, " "
        elif begin == "syllable" and gap and text[left].isalpha() and text[right].isalpha():
            yield left + 1 + gap.start(), left + 1 + gap.end(), "_"


def _begins(words: list[str]) -> tuple[dict[int, str], list[str]]:
    """What begins at which of the words' letters (a word, or a further syllable of one), and these
    letters."""
    begins: dict[int, str] = {}
    letters: list[str] = []
    for word in words:
        kind = "word"
        for syllable in word.split():
            if found := [letter for character in syllable if (letter := _letter(character))]:
                begins[len(letters)] = kind
                letters += found
                kind = "syllable"
    return begins, letters


_ALIKE = str.maketrans("ðy", "đi")


@cache
def _letter(character: str) -> str:
    """A character to match by, empty for what may come or go (space, marks, what is invisible).

    Marks, case, i and y, ð and đ are told apart by no one here: the library corrects them in its
    copy ("hoà" to "hòa").
    """
    base = unicodedata.normalize("NFD", character)[0].lower()[0]
    return "" if base.isspace() or unicodedata.category(base)[0] in "MC" else base.translate(_ALIKE)
