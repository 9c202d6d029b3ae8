"""The language of a report: texts by their English wording, in one file for each other language."""

from __future__ import annotations

import re
from functools import cache
from pathlib import Path

import msgspec
import yaml
from pydantic import field_validator

from residency.core.errors import UserError, allowed
from residency.core.part import Part
from residency.core.types import Value

FOLDER = Path(__file__).parent / "data/report"
HOLE = re.compile(r"\{(\w+)\}")


class Words(Value, frozen=True, forbid_unknown_fields=True):
    """Texts of a language; English, which the program is written in, has none."""

    code: str = "en"
    words: dict[str, str] = {}
    """English text -> text, both with the same ``{names}``."""
    sentences: dict[str, str] = {}
    """The same for what a run keeps in English: caveats, reasons, how parts came about."""

    def __call__(self, text: str, /, **values: object) -> str:
        """A text in this language, its ``{names}`` filled in; as it is where it is not known."""
        found = self.words.get(text, text)
        return found.format(**values) if values else found

    def said(self, sentence: str) -> str:
        """What a run keeps in English, in this language: recognised by its wording, the values in
        it put into the other's places; as it is where it is not known."""
        if sentence in self.words or not self.sentences:
            return self(sentence)
        for pattern, other in _patterns(tuple(self.sentences.items())):
            if found := pattern.fullmatch(sentence):
                return other.format(**{k: self.said(v) for k, v in found.groupdict().items()})
        head, parted, rest = sentence.partition("; ")
        return f"{self.said(head)}; {self.said(rest)}" if parted else sentence


ENGLISH = Words()


@cache
def words_of(code: str, folder: Path = FOLDER) -> Words:
    """The texts of a language, of reports or of another folder's; raises ``UserError`` for one that
    reports are not written in."""
    if code == ENGLISH.code:
        return ENGLISH
    if code not in languages():
        raise UserError(f"language: {code!r} is not known; {allowed(languages(), code)}.")
    texts = yaml.safe_load((folder / f"{code}.yaml").read_text("utf-8"))
    return msgspec.convert({"code": code, **texts}, Words)


def languages() -> list[str]:
    """Codes of the languages that reports are written in."""
    return sorted([ENGLISH.code, *(path.stem for path in FOLDER.glob("*.yaml"))])


@cache
def _patterns(sentences: tuple[tuple[str, str], ...]) -> list[tuple[re.Pattern[str], str]]:
    """How sentences are recognised, with what they are in another language, the longest first: the
    most is said by it."""
    ordered = sorted(sentences, key=lambda pair: -len(HOLE.sub("", pair[0])))
    return [(_pattern(text), other) for text, other in ordered]


def _pattern(text: str) -> re.Pattern[str]:
    pieces = HOLE.split(text)
    taken = (f"(?P<{part}>.+?)" if at % 2 else re.escape(part) for at, part in enumerate(pieces))
    return re.compile("".join(taken), re.DOTALL)


class ReportSettings(Part):
    """How the report of a run is written."""

    language: str = "auto"
    """``en``, ``vi`` or ``zh``; ``auto``: the language of the data where reports are written in it,
    else English."""

    @field_validator("language")
    @classmethod
    def _is_known(cls, code: str) -> str:
        if code not in (known := ["auto", *languages()]):
            raise ValueError(f"{code!r} is not known; {allowed(known, code)}")
        return code

    def for_data(self, lang: str) -> str:
        """The language of a report on data whose languages are so (``vi``, ``en, zh``)."""
        if self.language != "auto":
            return self.language
        return lang if lang in languages() else ENGLISH.code
