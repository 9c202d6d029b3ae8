"""Answers that stand on quotes: what a model says counts as said by a source only where it is.

A claim stands if it names a passage that was offered to the model and accepted by a clinician as it
is, its quote is found there word for word, and it says nothing that the quoted sentences do not:
every number with its unit, every word that is not of grammar, as many negations.
"""

from __future__ import annotations

import json
import re
import unicodedata
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from functools import cache
from typing import Any, Literal

import msgspec

from residency.core.types import Value
from residency.core.units import HAN
from residency.knowledge.orders import DATA, gives_orders
from residency.knowledge.passages import Passage
from residency.locale.tokenise import detect, sentences, tokens

State = Literal["verified", "no source", "withheld"]
LEAST = 8
"""Letters of a quote, a Chinese character counting as two."""
SHARE = 0.75
"""Of the words of the sentences that are quoted, those that a claim takes up at least: a claim that
leaves out its conditions, or who is said to say it, is another one."""
BENT = re.compile(r"(?<=[a-z]{3})(?:ing|ed|en|es|s|e|n)$")
MARKS = " \"'“”«»‹›「」"
"""What models put around a quote."""
NUMBER = re.compile(
    r"(?P<sign>(?:[<>≤≥±~]|(?<![\w.,])[-−+](?=\d))\s*)?(?P<value>\d+(?:[.,]\d+)*)\s*"
    r"(?P<unit>%|‰|°\s?[cf]?|(?:[a-zµμ]+(?:/[a-zµμ\d.²]+)*))?",
    re.I,
)


class Claim(Value, frozen=True):
    """A sentence of an answer, with the quote that it stands on."""

    text: str
    passage: str | int = ""
    """Its id, or the number under which it was offered."""
    quote: str = ""


class Sentence(Value, frozen=True):
    """A sentence of an answer, and whether it may be shown as its source's."""

    text: str
    state: State
    why: str = ""
    """What is wrong; empty where it stands."""
    source: Passage | None = None
    quote: str = ""


def check(claim: Claim, offered: Mapping[str, Passage]) -> Sentence:
    """A claim against the passages that were offered for its question.

    *no source*: it names none, or none that may be quoted, or its quote is not there. *withheld*:
    its source does not say what it says, which is worse than none.
    """
    one = offered.get(str(claim.passage))
    if one is None or not claim.text.strip():
        return Sentence(text=claim.text, state="no source", why="names no passage")
    if not one.may_be_quoted():
        return Sentence(text=claim.text, state="no source", why="its passage may not be quoted")
    if gives_orders(one.text):
        return Sentence(text=claim.text, state="no source", why="its passage speaks to a model")
    place = find(claim.quote, one.text)
    if place is None:
        return Sentence(text=claim.text, state="no source", why="its quote is not in the passage")
    said = _around(one.text, *place, one.lang)
    quote = one.text[slice(*place)]
    if why := fault(claim.text, quote, said, f"{one.heading}\n{one.text}"):
        return Sentence(text=claim.text, state="withheld", why=why, source=one, quote=quote)
    return Sentence(text=claim.text, state="verified", source=one, quote=quote)


def find(quote: str, text: str) -> tuple[int, int] | None:
    """Where a quote stands in a text, letter by letter but for white space and the form of
    composed letters; nothing where it does not, or is too short to say anything."""
    words = [
        re.escape(unicodedata.normalize("NFC", one))
        for one in quote.strip(" \"'“”«»‹›「」").split()
    ]
    weight = sum(2 if re.match(f"[{HAN}]", one) else one.isalnum() for one in quote)
    if weight < LEAST:
        return None
    composed, places = _composed(text)
    found = re.search(r"\s+".join(words), composed)
    return (places[found.start()], places[found.end()]) if found else None


def _composed(text: str) -> tuple[str, list[int]]:
    """A text in NFC, and where each of its characters, and its end, stands in the text."""
    if unicodedata.is_normalized("NFC", text):
        return text, list(range(len(text) + 1))
    out, places = [], []
    for match in re.finditer(r"(?s).[\u0300-\u036f]*", text):
        piece = unicodedata.normalize("NFC", match[0])
        out.append(piece)
        places += [match.start()] * len(piece)
    return "".join(out), [*places, len(text)]


def _around(text: str, start: int, end: int, lang: str) -> str:
    """The whole sentences that a quote touches."""
    touched = [
        (first, last) for first, last in sentences(text, lang) if first < end and last > start
    ]
    return text[min(touched)[0] : max(touched)[1]] if touched else text[start:end]


def fault(claim: str, quote: str, said: str, passage: str = "") -> str:
    """What a claim says that its quote, or the sentences ``said`` around it, do not; empty where it
    says nothing more. One that leaves nothing out of them may take up words of its passage (what
    they speak of stands there): where a word is left out, such a word could be in its place."""
    if strange := numbers(claim) - numbers(quote):
        return f"{len(strange)} of its numbers or units are not in the quote"
    if _denials(claim) != _denials(said):
        return "denies more or less than its source"
    claimed, source, near = ({*_words(one)} - _grammar() for one in (claim, said, passage))
    if claimed - source and (source - claimed or claimed - source - near):
        return "says what its source does not"
    if len(source & claimed) < SHARE * len(source):
        return "leaves out what its source says around it"
    return ""


def numbers(text: str) -> Counter[tuple[str, str]]:
    """Numbers with what stands before them (``<``) and their units: 1,5 and 1.5 are one."""
    plain = unicodedata.normalize("NFKC", text).lower().replace("−", "-")
    return Counter(
        (_sign(one["sign"]) + one["value"].replace(",", "."), re.sub(r"\s", "", one["unit"] or ""))
        for one in NUMBER.finditer(plain)
    )


def _sign(sign: str | None) -> str:
    return (sign or "").strip()


def _denials(text: str) -> int:
    """How often a text denies."""
    return len(_denying().findall(unicodedata.normalize("NFC", text).lower()))


def _words(text: str) -> Iterator[str]:
    """The words of a text without its numbers, English ones without the ends by which they are
    bent."""
    for one in tokens(text, detect(text)):
        if not one[0].isdigit():
            yield BENT.sub("", one) if one.isascii() else one


@cache
def _known() -> dict[str, Any]:
    import yaml

    known: dict[str, Any] = yaml.safe_load((DATA / "grammar.yaml").read_text("utf-8"))
    return known


@cache
def _grammar() -> frozenset[str]:
    """Words that a sentence may have without saying more."""
    return frozenset(one for words in _known()["joins"].values() for one in _words(words))


@cache
def _denying() -> re.Pattern[str]:
    return re.compile("|".join(_known()["denies"]))


def claims(answer: str) -> list[Claim]:
    """The claims of an answer, as a JSON list of ``{"text", "passage", "quote"}``, alone or inside
    of other words; an answer that has no such list is one claim without a source."""
    for start in (match.start() for match in re.finditer(r"\[", answer)):
        try:
            value, _ = json.JSONDecoder().raw_decode(answer, start)
            found = msgspec.convert(value, list[Claim])
        except (ValueError, RecursionError):
            continue
        if found:
            return found
    said = answer.strip()
    return [Claim(text=said)] if said not in ("", "[]") else []


def counted(answer: Sequence[Sentence]) -> dict[str, int]:
    """How many sentences are of each state."""
    return dict(Counter(one.state for one in answer))
