"""The page that a note is written on: text and spans grow together, so offsets are right by
construction."""

from __future__ import annotations

import random
import re

import msgspec

from residency.core.types import Span

_UNIT_SPACE = re.compile(
    r"(?<=\d) (?=(?:mg|g|mcg|ml|IU|U|mmol|G/L|g/L|mm|cm|viên|đơn vị|ngày|lần|°C)\b)"
)
_NEW_TONES = ("hóa", "hòa", "thủy", "thùy", "ủy", "òe")
_OLD_TONES = ("hoá", "hoà", "thuỷ", "thuỳ", "uỷ", "oè")
_HALF_WIDTH = str.maketrans("，。：；（）？“”", ',.:;()?""')


class NoteText:
    """Text with its spans, typed with the habits of one writer (letter case, spaces, punctuation,
    tone marks)."""

    def __init__(self, rng: random.Random, lang: str) -> None:
        self.rng, self.lang = rng, lang
        self.spans: list[Span] = []
        self._parts: list[str] = []
        self._length = 0
        self._sentence_starts = False
        self.lower = lang != "zh" and rng.random() < 0.06
        self.tight = rng.random() < (0.5 if lang == "zh" else 0.25)
        self.careless = rng.random() < 0.12
        self.half_width = lang == "zh" and rng.random() < 0.15
        self.old_tones = lang == "vi" and rng.random() < 0.3
        self.decimal_comma = lang == "vi" and rng.random() < 0.5

    @property
    def content(self) -> str:
        """The text so far."""
        return "".join(self._parts)

    @property
    def last(self) -> str:
        """The last character, or nothing."""
        return self._parts[-1][-1:] if self._parts else ""

    def start_sentence(self) -> None:
        """The next letter is a capital."""
        self._sentence_starts = True

    def raw(self, piece: str) -> None:
        """Append layout (line breaks, blanks) as it is."""
        self._parts.append(piece)
        self._length += len(piece)

    def text(self, piece: str) -> None:
        """Append words without a label."""
        self.raw(self._capital(self._typeset(piece)))
        if piece.endswith((". ", "? ")):
            self._sentence_starts = True

    def span(
        self, piece: str, label: str, attributes: tuple[str, ...] = (), code: str | None = None
    ) -> None:
        """Append words with a label."""
        piece = self._capital(self._typeset(piece))
        start = self._length
        self.raw(piece)
        span = Span(start=start, end=self._length, label=label, quote=piece, by="records")
        self.spans.append(msgspec.structs.replace(span, attributes=attributes, code=code))

    def _capital(self, piece: str) -> str:
        if not self._sentence_starts or not piece:
            return piece
        self._sentence_starts = False
        return piece if self.lower else piece[0].upper() + piece[1:]

    def _typeset(self, piece: str) -> str:
        if self.tight:
            piece = _UNIT_SPACE.sub("", piece)
        if self.old_tones:
            for new, old in zip(_NEW_TONES, _OLD_TONES, strict=True):
                piece = piece.replace(new, old)
        if self.careless and self.rng.random() < 0.3:
            piece = piece.replace("，" if self.lang == "zh" else ", ", ",", 1)
        if self.half_width:
            piece = piece.translate(_HALF_WIDTH)
        return piece.lower() if self.lower else piece
