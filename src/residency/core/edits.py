"""Edits: a piecewise map from a text to its edited version, so that spans follow the text wherever
it goes.

Whatever changes a text (normalisation, de-identification, word segmentation) returns its ``Edits``
instead of the new text alone. A span then either lands exactly where its text went, or is declared
destroyed; it never lands elsewhere.
"""

from __future__ import annotations

import re
import unicodedata
from bisect import bisect_left, bisect_right
from collections.abc import Iterable, Sequence
from functools import cache, cached_property, lru_cache
from itertools import accumulate
from operator import itemgetter
from typing import Literal, NamedTuple

import msgspec

from residency.core.types import Span, Value


class Edit(Value, frozen=True):
    """The source's ``[start, end)`` becomes ``text``: an insertion where it is empty, a deletion
    where ``text`` is."""

    start: int
    end: int
    text: str = ""


class Edits(Value, frozen=True, dict=True):
    """What was edited in a text of ``source_length`` code points: pieces in order, without overlap.

    How a span fares, forward (``project``) and back (``back``) alike:

    - untouched: it moves with its text;
    - it holds a whole edit, or is exactly what an edit replaces: it stretches or shrinks with it;
    - an insertion at its edge stays outside;
    - an edit cuts it, takes it in, or deletes its first or last character: it is destroyed
      (``None``).

    So ``back(*project(*span)) == span`` for every span that survives, and the reverse.
    """

    source_length: int
    pieces: tuple[Edit, ...] = ()

    @classmethod
    def of(cls, text: str, replacements: Iterable[tuple[int, int, str]]) -> Edits:
        """Edits of a text from (start, end, replacement) in any order; insertions at one place keep
        the order given.

        Replacements that change nothing are left out. Raises ``ValueError`` where they overlap or
        leave the text.
        """
        pieces, before = [], 0
        for start, end, new in sorted(replacements, key=itemgetter(0, 1)):
            if not before <= start <= end <= len(text):
                raise ValueError(
                    f"edit [{start}, {end}) overlaps another or leaves the text of {len(text)} "
                    "characters"
                )
            before = end
            if text[start:end] != new:
                pieces.append(Edit(start, end, new))
        return cls(source_length=len(text), pieces=tuple(pieces))

    @cached_property
    def _shifts(self) -> list[int]:
        """How far the text after the first n pieces has moved, for every n."""
        return [
            0,
            *accumulate(len(piece.text) - (piece.end - piece.start) for piece in self.pieces),
        ]

    @cached_property
    def _source(self) -> tuple[list[int], list[int]]:
        """Starts and ends of the pieces in the source."""
        return [piece.start for piece in self.pieces], [piece.end for piece in self.pieces]

    @cached_property
    def _target(self) -> tuple[list[int], list[int]]:
        """Starts and ends of the pieces in the target."""
        starts = [
            piece.start + shift for piece, shift in zip(self.pieces, self._shifts, strict=False)
        ]
        return starts, [
            start + len(piece.text) for start, piece in zip(starts, self.pieces, strict=True)
        ]

    @property
    def target_length(self) -> int:
        """Length of the edited text in code points."""
        return self.source_length + self._shifts[-1]

    def apply(self, text: str) -> str:
        """The edited text; raises ``ValueError`` for a text of another length than the source."""
        if len(text) != self.source_length:
            raise ValueError(
                f"edits of a text of {self.source_length} characters applied to one of {len(text)}"
            )
        parts: list[str] = []
        position = 0
        for piece in self.pieces:
            parts += (text[position : piece.start], piece.text)
            position = piece.end
        return "".join((*parts, text[position:]))

    def project(self, start: int, end: int) -> tuple[int, int] | None:
        """Where the source's ``[start, end)`` is in the target; ``None`` where it was destroyed.

        Raises ``ValueError`` for an empty span or one outside the source.
        """
        held = _held(start, end, self.source_length, self._source, self._target)
        return held and (start + self._shifts[held[0]], end + self._shifts[held[1]])

    def back(self, start: int, end: int) -> tuple[int, int] | None:
        """Where the target's ``[start, end)`` came from in the source, by the same rules; ``None``
        if from nowhere."""
        held = _held(start, end, self.target_length, self._target, self._source)
        return held and (start - self._shifts[held[0]], end - self._shifts[held[1]])

    def project_spans(
        self, text: str, spans: Sequence[Span]
    ) -> tuple[tuple[Span, ...], tuple[Span, ...]]:
        """Spans of the source ``text`` as (those that survive, with offsets and quotes of the
        edited text; the rest)."""
        edited, length, shifts, source, target = (
            self.apply(text),
            self.source_length,
            self._shifts,
            self._source,
            self._target,
        )
        kept, destroyed = [], []
        for span in spans:
            if held := _held(span.start, span.end, length, source, target):
                start, end = span.start + shifts[held[0]], span.end + shifts[held[1]]
                kept.append(
                    msgspec.structs.replace(span, start=start, end=end, quote=edited[start:end])
                )
            else:
                destroyed.append(span)
        return tuple(kept), tuple(destroyed)

    def then(self, other: Edits) -> Edits:
        """These edits followed by others of their target: ``a.then(b).apply(t) ==
        b.apply(a.apply(t))``.

        A span that survives both steps lands at the same place, unless edits of both overlap: they
        become one piece, and a span that only one of the two would have left whole may be
        destroyed.
        """
        if other.source_length != self.target_length:
            raise ValueError(
                f"edits of {other.source_length} characters cannot follow a text of "
                f"{self.target_length}"
            )
        first = [
            _Middle(start, end, piece.text, len(piece.text) - (piece.end - piece.start))
            for start, end, piece in zip(*self._target, self.pieces, strict=True)
        ]
        second = [_Middle(piece.start, piece.end, piece.text) for piece in other.pieces]
        pieces, shift = list[Edit](), 0
        ordered = sorted(first + second, key=itemgetter(0, 1))
        at = 0
        while at < len(ordered):
            last, reach = at + 1, ordered[at].end
            while last < len(ordered) and ordered[last].start < reach:
                reach = max(reach, ordered[last].end)
                last += 1
            if last == at + 1:  # nearly always
                start, end, text, moved = ordered[at]
                behind = shift + (moved or 0)
                piece = Edit(start - shift, end - behind, text)
                shift = behind
            else:
                piece, shift = _merged(ordered[at:last], shift)
            if piece.start < piece.end or piece.text:
                pieces.append(piece)
            at = last
        return Edits(source_length=self.source_length, pieces=tuple(pieces))


def _held(
    start: int,
    end: int,
    length: int,
    here: tuple[list[int], list[int]],
    there: tuple[list[int], list[int]],
) -> tuple[int, int] | None:
    """The range of pieces that a span holds whole; ``None`` where a piece destroys it."""
    if not 0 <= start < end <= length:
        raise ValueError(
            f"span [{start}, {end}) is empty or leaves the text of {length} characters"
        )
    starts, ends = here
    first, last = bisect_right(ends, start), bisect_left(starts, end)
    if first < last:
        if starts[first] < start or ends[last - 1] > end:
            return None
        gone = [piece for piece in (first, last - 1) if there[0][piece] == there[1][piece]]
        if any(starts[piece] == start or ends[piece] == end for piece in gone):
            return None
    return first, last


class _Middle(NamedTuple):
    """A piece of either of two steps, at its place in the text between them."""

    start: int
    end: int
    text: str
    shift: int | None = None
    """By how much it moved what follows it, for a piece of the first step."""


def _merged(group: list[_Middle], shift: int) -> tuple[Edit, int]:
    """Overlapping pieces of two steps as one, and the shift of the first step behind it.

    Every character between the steps is either known from a piece of the first or replaced by one
    of the second.
    """
    low, high = group[0].start, max(piece.end for piece in group)
    chunks: list[str] = []
    position, behind = low, shift
    for piece in group:
        if piece.shift is not None:
            chunks += (" " * (piece.start - position), piece.text)
            position = piece.end
            behind += piece.shift
    known, position = "".join(chunks), low
    parts: list[str] = []
    for piece in group:
        if piece.shift is None:
            parts += (known[position - low : piece.start - low], piece.text)
            position = piece.end
    return Edit(low - shift, high - behind, "".join((*parts, known[position - low :]))), behind


Form = Literal["NFC", "NFD", "NFKC"]


def normalise(text: str, form: Form) -> Edits:
    """Unicode normalisation as edits of whole combining sequences: ``apply`` gives
    ``unicodedata.normalize(form, text)``."""
    if unicodedata.is_normalized(form, text):
        return Edits(source_length=len(text))
    pieces = [
        Edit(match.start(), match.end(), new)
        for match in _sequences(form).finditer(text)
        if (new := _normalised(form, match[0])) != match[0]
    ]
    return Edits(source_length=len(text), pieces=tuple(pieces))


_normalised = lru_cache(maxsize=1 << 12)(
    unicodedata.normalize
)  # a text has few sequences, again and again


@cache
def _sequences(form: Form) -> re.Pattern[str]:
    """Stretches that normalisation may change, each safe to normalise by itself.

    A text may be cut before every character whose full decomposition begins with one that neither
    is reordered (combining class 0) nor composes with what precedes it (Unicode Standard Annex 15,
    9.1 "stable code points").
    """
    codes = [chr(code) for code in (*range(0xD800), *range(0xE000, 0x10000))]
    tails = {mark for code in codes for mark in unicodedata.normalize("NFD", code)[1:]}
    tails.update(code for code in codes if unicodedata.combining(code))
    followers = _class(code for code in codes if unicodedata.normalize("NFKD", code)[0] in tails)
    changing = _class(code for code in codes if not unicodedata.is_normalized(form, code))
    # Beyond the basic plane: the scripts taken as one range for speed (longer stretches are safe
    # too); emoji are not in it.
    return re.compile(
        f"[\\s\\S]?[{followers}\U00010000-\U0001efff]+|[{changing}\U0001f000-\U0002ffff]"
    )


def _class(characters: Iterable[str]) -> str:
    return "".join(map(re.escape, characters))


def newlines(text: str) -> Edits:
    """CRLF and CR become LF."""
    return Edits.of(
        text, ((match.start(), match.end(), "\n") for match in re.finditer(r"\r\n?", text))
    )
