"""Whether an answer says the opposite of the text that it stands on: another direction, a negation
more or less, a change between two figures the other way round.

Each sentence of the answer is set beside the sentences of the text that are most like it; where
none of them says it the same way, it is not taken. That costs some good answers, and is meant to.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

from residency.core.types import Value

SENTENCE = re.compile(r"(?<=[.!?;])\s+|(?<=[。！？；])|\n+")
WORD = re.compile(r"[\u4e00-\u9fff]|[^\W\d_\u4e00-\u9fff]{4,}")
NUMBER = r"(\d+(?:[.,]\d+)*)"
UP = re.compile(
    r"\b(?:rais\w+|rose|rises?|rising|increas\w+|higher|highest|greater|elevat\w+|improv\w+|grew|"
    r"gain\w*|more)\b|\btăng\b|\bcao hơn\b|\bnhiều hơn\b|升高|上升|增加|增高|提高|高于|增多",
    re.I,
)
DOWN = re.compile(
    r"\b(?:lower\w*|lowest|fell|falls?|decreas\w+|reduc\w+|declin\w+|drop\w*|diminish\w+|worse\w*|"
    r"fewer|less|impair\w+)\b|\bgiảm\b|\bthấp hơn\b|\bít hơn\b|降低|下降|减少|减低|低于",
    re.I,
)
NOT = re.compile(
    r"\b(?:no|not|nor|neither|never|none|without|cannot|lack\w*|fail\w*|unlikely|ineffective)\b|"
    r"n't\b|\b(?:không|chưa|chẳng|chả)\b|[不无未没非]",
    re.I,
)
CHANGE = re.compile(
    rf"(?:\bfrom|\btừ|从|由)\s*{NUMBER}[^\d.;]{{0,24}}?(?:\bto|\bđến|\bxuống|\blên|"
    rf"到|至|降至|升至)\s*{NUMBER}",
    re.I,
)
LIKE = 0.8
"""Share of the best likeness from which on a sentence of the text counts as what is spoken of."""


class Said(Value, frozen=True):
    """How a sentence says what it says."""

    up: bool
    down: bool
    negated: bool
    changes: frozenset[tuple[str, str]]

    def fits(self, other: Said) -> bool:
        """Whether a sentence of the text says the same way what this one does."""
        turned = any(
            (b, a) in other.changes and (a, b) not in other.changes for a, b in self.changes
        )
        directed = self.up != self.down and other.up != other.down
        return (
            self.negated == other.negated and not turned and not (directed and self.up != other.up)
        )


def said(sentence: str) -> Said:
    """How a sentence says it."""
    return Said(
        up=bool(UP.search(sentence)),
        down=bool(DOWN.search(sentence)),
        negated=bool(NOT.search(sentence)),
        changes=frozenset((one[1], one[2]) for one in CHANGE.finditer(sentence)),
    )


def opposite(answer: str, text: str) -> bool:
    """Whether some sentence of an answer says another thing than all that the text says of the
    same."""
    sentences = _sentences(text)
    return any(_contradicted(one, sentences) for one in _sentences(answer))


def _contradicted(sentence: str, sentences: Sequence[str]) -> bool:
    own = said(sentence)
    if any(
        (own.up and not own.down and _value(a) > _value(b))
        or (own.down and not own.up and _value(a) < _value(b))
        for a, b in own.changes
    ):
        return True
    words = _words(sentence)
    likeness = [len(words & _words(one)) for one in sentences]
    best = max(likeness, default=0)
    if not best:
        return False
    about = [one for one, like in zip(sentences, likeness, strict=True) if like >= LIKE * best]
    return not any(own.fits(said(one)) for one in about)


def _words(sentence: str) -> set[str]:
    """Longer words (characters of Chinese) and figures."""
    return {*WORD.findall(sentence), *re.findall(NUMBER, sentence)}


def _value(number: str) -> float:
    return float(number.replace(",", ".")) if number.count(",") + number.count(".") < 2 else 0.0


def _sentences(text: str) -> list[str]:
    return [one for one in map(str.strip, SENTENCE.split(text.casefold())) if one]
