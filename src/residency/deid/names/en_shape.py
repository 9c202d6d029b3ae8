"""English names by their shape: capitalised words that are no words of the language or of medicine,
and known names in any case."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from functools import cache
from typing import Any

from residency.deid.find import Finding
from residency.deid.names.lists import LETTER, LOWER, UPPER, name_data
from residency.deid.view import View
from residency.deid.words import SpacedWords

LIKE = (
    rf"(?:[{UPPER}]['’][{UPPER}][{LETTER}]+|[{UPPER}][{LOWER}]+(?:[{UPPER}][{LOWER}]+)?"
    rf"|[{UPPER}]{{2,}})"
)
WORD = rf"{LIKE}(?:[\-’']{LIKE})*"
"""A capitalised word: Smith, O'Rourke, McAllister, Smith-Jones, SMITH."""
PARTICLE = (
    r"(?:van|von|de|der|den|da|del|della|di|la|le|las|los|bin|ibn|bint|al|el|ter|ten|dos|das|do|du|y"
    r"|zu|zur|'t)"
)
INITIAL = rf"[{UPPER}]\.?(?![{LETTER}\d])"
PART = rf"(?:{WORD}|{INITIAL}|{PARTICLE}(?=[ ]))"
PARTICLES = frozenset(PARTICLE[3:-1].split("|"))
Word = tuple[str, int, int]
"""A word, what it is, and where it begins."""
SMALL_WORD = re.compile(r"(?<![^\W_])[a-z'’\-]{5,}(?![^\W_])")
FOLLOWED = r"(?=[ ](?:[a-z]\.?[ ])?([a-z][a-z'’\-]+))"
VOWELS = frozenset("aeiouy")
KNOWN, GIVEN, FAMILY, BOTH, OTHER, SMALL = range(6)
"""A word: of the language; a given name; a family name; a name and a word; none of these; an
initial or ``van``."""
NAMING = (GIVEN, FAMILY, OTHER)
"""Words that may be of a name by themselves."""


@cache
def _eponyms() -> re.Pattern[str]:
    return re.compile(rf"['’]?s?[ ](?:{'|'.join(name_data('en')['eponyms'])})(?![a-z])")


def is_eponym(text: str, end: int) -> bool:
    """Whether what ends here is what a disease, a sign or a thing is called by: ``Grave's
    disease``."""
    return _eponyms().match(text, end) is not None


def _full(words: list[Word]) -> int:
    return sum(kind != SMALL for _, kind, _ in words)


class Shapes:
    """Runs of capitalised words, and known names in small letters."""

    def __init__(self, data: Mapping[str, Any]) -> None:
        self.given = {
            name.lower() for key in ("male", "female", "more_given") for name in data[key]
        }
        self.families = {
            name.lower() for key in ("families", "more_families") for name in data[key]
        }
        words = {
            word.lower() for key in ("words", "clinical", "stops", "vetoes") for word in data[key]
        }
        self.kinds = dict.fromkeys(words, KNOWN)
        for names, kind in ((self.families, FAMILY), (self.given, GIVEN)):
            for name in names:
                both = name in words or name in data["ambiguous"]
                self.kinds[name] = BOTH if both else kind
        self.endings, self.leads = tuple(data["endings"]), tuple(data["leads"])
        self.titles = frozenset(data["titled"])
        self.lettered = tuple(f"{word} " for word in data["lettered"])
        self.run = re.compile(
            rf"(?<![{LETTER}\d@/.])(?:{WORD}|[{UPPER}]\.)(?:,?[ ]{PART}){{1,4}}(?![{LETTER}\d])"
            rf"|(?<=[/\-]){WORD}(?:[ ]{PART}){{1,3}}(?![{LETTER}\d])"
        )
        name = rf"(?P<v>{WORD}(?:[ ]{PART}){{0,3}})"
        self.words = SpacedWords(
            (word, meant) for meant in ("verbs", "before", "towns") for word in data[meant]
        )
        self.behind = re.compile(
            rf"[.:,]{{0,2}}[ \t]+(?:(?i:is|was|the|mr|mrs|ms|dr|drs)\.?[ ])?{name}"
            rf"(?:[ ](?:and|AND)[ ](?P<w>{WORD}))?(?![{LETTER}\d])"
        )
        self.town = re.compile(rf"[ ](?P<v>{WORD}(?:[ ]{WORD})?)(?=[.,;)\n]|\Z)")
        self.one = re.compile(
            rf"(?:\A|[.:;\]][ ]|[\n\"“]|[ ](?:that|and|THAT|AND)[ ])(?P<v>{WORD})[ ]\Z"
        )
        self.titled = re.compile(
            r"(?<![^\W_])(?:drs?|mr|mrs|ms)\b\.?[ ](?P<v>[a-z'’\-]{3,}"
            r"(?:[ ](?:[a-z]\.[ ])?[a-z'’\-]{3,})?)(?:[ ]and[ ](?P<w>[a-z'’\-]{3,}))?"
        )
        self.degree = re.compile(
            r"(?<![^\W_])(?P<v>[a-z'’\-]{3,}[ ](?:[a-z]\.[ ]|[a-z'’\-]{3,}[ ])?[a-z'’\-]{3,})"
            r"(?=,?[ ](?:m\.d|md|rn|np|pa-c|d\.o|do|msw|lpn|phd|crna)(?![\w])[.,\n;)]?)"
        )
        self.left = re.compile(rf"(?<![{LETTER}\d])(?P<v>{WORD})[ ](?:[{UPPER}]\.?[ ])?\Z")
        self.right = re.compile(rf",?[ ](?:[{UPPER}]\.?[ ])?(?P<v>{WORD})(?![{LETTER}\d])")
        self.small = frozenset(name for name in self.given if self.kinds[name] in (GIVEN, BOTH))
        self.pairs = cache(lambda name: re.compile(rf"(?<![^\W_]){re.escape(name)}{FOLLOWED}"))

    def kind_of(self, word: str) -> int:
        """What a word is."""
        key = word.lower().strip(".,'’").removesuffix("'s").removesuffix("’s")
        if len(key) < 2 or (word in PARTICLES):
            return SMALL
        kind = self.kinds.get(key)
        if kind is None:
            if "-" in key:
                kinds = {self.kind_of(one) for one in key.split("-") if len(one) > 1} - {SMALL}
                if not kinds or KNOWN in kinds:
                    return KNOWN
                return max(kinds, key=(OTHER, BOTH, FAMILY, GIVEN).index)
            plural = key.endswith("s") and self.kinds.get(key[:-1]) == KNOWN
            short = word.isupper() and (len(key) < 4 or VOWELS.isdisjoint(key))  # an abbreviation
            return KNOWN if plural or short or key.endswith(self.endings) else OTHER
        return kind

    def search(self, view: View) -> Iterator[Finding]:
        """Names, whoever they are of."""
        text = view.shown
        for match in self.run.finditer(text):
            yield from self._run(text, match.group(), match.start())
        for start, end, meant in self.words.find(view.low_words):
            for one in meant:
                yield from self._beside(text, start, end, one)
        yield from self._small(view)

    def _beside(self, text: str, start: int, end: int, meant: str) -> Iterator[Finding]:
        """One capitalised word beside a word that people do, that leads to people, or to towns."""
        if meant == "verbs":
            match = self.one.search(text, max(0, start - 24), start)
            if match and self._alone(match["v"]):
                yield Finding(*match.span("v"), "name", "rule:en/name-doing")
        elif meant == "before":
            if match := self.behind.match(text, end):
                yield from self._first(match["v"], match.start("v"))
                if match["w"] and self._alone(match["w"]):
                    yield Finding(*match.span("w"), "relative", "rule:en/name-behind")
        elif match := self.town.match(text, end):
            words = match["v"].split(" ")
            if not any(self.kind_of(word) in (KNOWN, SMALL) or word.isupper() for word in words):
                yield Finding(*match.span("v"), "address", "rule:en/name-town")

    def _alone(self, word: str) -> bool:
        """Whether a word can be a name by itself; one in capitals must be in a list."""
        return self.kind_of(word) in (
            (GIVEN, FAMILY) if word.isupper() else (GIVEN, FAMILY, BOTH, OTHER)
        )

    def _first(self, found: str, at: int) -> Iterator[Finding]:
        """The words of a name behind a word that leads to names, up to the first word of the
        language."""
        end = position = 0
        for word in found.split(" "):
            kind = self.kind_of(word)
            if kind == KNOWN or (not end and kind == SMALL):
                break
            position += len(word) + 1
            if kind != SMALL or word.isupper():
                end = position - 1
        if end:
            yield Finding(at, at + end, "relative", "rule:en/name-behind")

    def _run(self, text: str, found: str, at: int) -> Iterator[Finding]:
        """Names within a run of capitalised words: between words of the language."""
        words: list[Word] = []
        position = at
        if found[1:2] == "." and text[max(0, at - 16) : at].lower().endswith(self.lettered):
            position, found = at + 3, found[3:]  # its letter, and the end of a sentence
        for word in [*found.split(" "), ""]:
            kind = self.kind_of(word) if word else KNOWN
            if kind == KNOWN or (kind == SMALL and not words and word in PARTICLES):
                yield from self._names(text, words)
                words = []
            else:
                words.append((word, kind, position))
            position += len(word) + 1

    def _names(self, text: str, words: list[Word]) -> Iterator[Finding]:
        """The names that these words are: one, one with the family name first, or several between
        commas."""
        parts: list[list[Word]] = [[]]
        for word in words:
            parts[-1].append(word)
            if word[0].endswith(","):
                parts.append([])
        parts = [part for part in parts if part]
        if len(parts) > 1 and any(_full(part) < 2 for part in parts):
            before = text[max(0, words[0][2] - 3) : words[0][2]]
            swapped = len(parts) == 2 and _full(parts[0]) == 1 and _full(parts[1]) > 0
            if self._listed(words) or (swapped and before.endswith(self.leads)):
                yield self._finding(words, "name-shape")
            return
        for part in parts:
            while part and part[-1][0] in PARTICLES:
                part.pop()
            if len(part) > 1 and (by := self._is_name(part)):
                one = self._finding(part, by)
                if by != "name-pair" or not is_eponym(text, one.end):
                    yield one

    def _finding(self, words: list[Word], by: str) -> Finding:
        last = words[-1]
        return Finding(words[0][2], last[2] + len(last[0].rstrip(",")), "name", f"rule:en/{by}")

    def _listed(self, words: list[Word]) -> bool:
        return any(kind in (GIVEN, FAMILY) for _, kind, _ in words)

    def _is_name(self, words: list[Word]) -> str:
        """By which rule words without a comma are a name."""
        full = [word for word in words if word[1] != SMALL]
        if not full:
            return ""
        listed, upper = self._listed(words), all(word.isupper() for word, _, _ in full)
        if len(full) == 1:
            initial = words[0][1] == SMALL and words[0][0].endswith(".")
            return "name-shape" if listed or (initial and full[0][1] == OTHER and not upper) else ""
        if listed:
            return "name-shape"
        first, last = full[0], full[-1]
        if first[1] == BOTH and first[0].lower() in self.given and last[0].lower() in self.families:
            return "name-shape"
        if OTHER not in (first[1], last[1]) or any(word.isupper() for word, _, _ in full):
            return ""
        return "name-pair" if first[1] == OTHER or first[0].lower() in self.given else ""

    def is_clinical(self, found: str, text: str, end: int) -> bool:
        """Whether words behind a relative, up to ``text[end]``, are what the relative has: none can
        be a name, or a disease is called by them."""
        kinds = {self.kind_of(word) for word in found.split(" ")} - {SMALL}
        return kinds == {KNOWN} or is_eponym(text, end)

    def shouted(self, found: str) -> bool:
        """Whether words in capitals before an age are a name: none is of the language, and one is
        no abbreviation."""
        words = [word for word in found.replace(",", "").split(" ") if len(word.strip(".")) > 1]
        listed = [self.kinds.get(word.lower()) == KNOWN for word in words]
        return not any(listed) and any(self.kind_of(word) != KNOWN for word in words)

    def cased(self, found: str) -> bool:
        """Whether words in capitals behind a cue are a name: none is of the language."""
        kinds = [self.kind_of(word) for word in found.split(" ")]
        full = [kind for kind in kinds if kind != SMALL]
        return bool(full) and KNOWN not in full and not (len(full) == 1 and full[0] == BOTH)

    def lowered(self, found: str) -> bool:
        """Whether words in small letters behind a cue are a name: one is in a list, none is of the
        language."""
        kinds = [self.kind_of(word) for word in found.split(" ")]
        return KNOWN not in kinds and (GIVEN in kinds or FAMILY in kinds)

    def grown(self, text: str, start: int, end: int) -> tuple[int, int]:
        """A known part of a name with the capitalised words beside it that are no words of the
        language."""
        left = self.left.search(text, max(0, start - 40), start)
        right = self.right.match(text, end)
        if left and self.kind_of(left["v"]) in NAMING:
            start = left.start()
        if right and self.kind_of(right["v"]) in NAMING:
            end = right.end()
        return start, end

    def _small(self, view: View) -> Iterator[Finding]:
        """A known given name and a known family name in small letters."""
        text = view.shown
        at = 0
        for line in text.split("\n"):
            if line.islower():
                for match in SMALL_WORD.finditer(line):
                    if self.is_listed(match.group()):
                        start, end = match.span()
                        yield Finding(at + start, at + end, "name", "rule:en/name-small")
            at += len(line) + 1
        words = set(text.split())
        for given in words & self.small:
            for match in self.pairs(given).finditer(text):
                kind, next_ = self.kinds[given], self.kinds.get(match[1])
                if (kind == GIVEN and next_ != KNOWN) or next_ == FAMILY:
                    yield Finding(match.start(), match.end(1), "name", "rule:en/name-small")
        if words.isdisjoint(self.titles):
            return
        for match in self.titled.finditer(text):
            yield from self._first(match["v"], match.start("v"))
            if match["w"] and self.kind_of(match["w"]) != KNOWN:
                yield Finding(*match.span("w"), "clinician", "rule:en/name-small")
        for match in self.degree.finditer(text):
            parts = match["v"].split(" ")
            while parts and self.kind_of(parts[0]) == KNOWN:
                parts.pop(0)
            if len(parts) > 1 and all(self.kind_of(word) != KNOWN for word in parts):
                end = match.end("v")
                start = end - len(" ".join(parts))
                yield Finding(start, end, "clinician", "rule:en/name-small")

    def is_listed(self, word: str) -> bool:
        """Whether a word is a name of the lists, and no other word."""
        return self.kinds.get(word) in (GIVEN, FAMILY)

    def parts(self, name: str) -> Iterator[str]:
        """The words of a name that may stand for it elsewhere."""
        for word in name.replace(",", "").split():
            if len(word) > 2 and self.kind_of(word) in NAMING:
                yield word
