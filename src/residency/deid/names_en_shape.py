"""English names by their shape: capitalised words that are no words of the language or of medicine, and known names in any case."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any

from residency.deid.find import Finding, View
from residency.deid.namedata import LETTER, LOWER, UPPER, any_of

LIKE = rf"(?:[{UPPER}]['’][{UPPER}][{LETTER}]+|[{UPPER}][{LOWER}]+(?:[{UPPER}][{LOWER}]+)?|[{UPPER}]{{2,}})"
WORD = rf"{LIKE}(?:[\-’']{LIKE})*"
"""A capitalised word: Smith, O'Rourke, McAllister, Smith-Jones, SMITH."""
PARTICLE = r"(?:van|von|de|der|den|da|del|di|la|le|las|los|bin|ibn|al|el|ter|dos|do|du|y)"
INITIAL = rf"[{UPPER}]\.?(?![{LETTER}\d])"
PART = rf"(?:{WORD}|{INITIAL}|{PARTICLE}(?=[ ]))"
PARTICLES = frozenset(PARTICLE[3:-1].split("|"))
KNOWN, GIVEN, FAMILY, BOTH, OTHER, SMALL = range(6)
"""A word: of the language; a given name; a family name; a name and a word; none of these; an initial or ``van``."""


class Shapes:
    """Runs of capitalised words, and known names in small letters."""

    def __init__(self, data: Mapping[str, Any]) -> None:
        self.given = {name.lower() for key in ("male", "female", "more_given") for name in data[key]}
        self.families = {name.lower() for key in ("families", "more_families") for name in data[key]}
        words = {word.lower() for key in ("words", "stops", "vetoes") for word in data[key]}
        self.kinds = dict.fromkeys(words, KNOWN)
        for names, kind in ((self.families, FAMILY), (self.given, GIVEN)):
            for name in names:
                both = name in words or name in data["ambiguous"]
                self.kinds[name] = BOTH if both else kind
        self.endings = tuple(data["endings"])
        self.run = re.compile(
            rf"(?<![{LETTER}\d@/.])(?:{WORD}|[{UPPER}]\.)(?:,?[ ]{PART}){{1,4}}(?![{LETTER}\d])|(?<=[/\-]){WORD}(?:[ ]{PART}){{1,3}}(?![{LETTER}\d])"
        )
        name = rf"(?P<v>{WORD}(?:[ ]{PART}){{0,3}})"
        self.doing = re.compile(
            rf"(?:(?<=[.\n\"“:\]][ \n])|(?<=[\n\"“])|(?<=that )|(?<=and )|\A)(?P<v>{WORD})[ ](?i:{any_of(data['verbs'])})(?![{LETTER}])"
        )
        self.after = re.compile(
            rf"(?<![{LETTER}])(?i:{any_of(data['before'])})[.:,]?[ \t]+(?:(?i:is|was|the|mr|mrs|ms|dr)\.?[ ])?{name}(?:[ ]and[ ](?P<w>{WORD}))?(?![{LETTER}\d])"
        )
        self.pair = re.compile(r"(?<![^\W_])[a-z][a-z'’\-]+(?=[ ](?:[a-z]\.?[ ])?([a-z][a-z'’\-]+))")

    def kind_of(self, word: str) -> int:
        """What a word is."""
        key = word.lower().strip(".,'’").removesuffix("'s").removesuffix("’s")
        if len(key) < 2 or (word in PARTICLES):
            return SMALL
        kind = self.kinds.get(key)
        if kind is None:
            if "-" in key:
                kinds = {self.kind_of(one) for one in key.split("-") if len(one) > 1} - {SMALL}
                return KNOWN if not kinds or KNOWN in kinds else max(kinds, key=(OTHER, BOTH, FAMILY, GIVEN).index)
            kind = KNOWN if key.endswith(self.endings) or (key.endswith("s") and self.kinds.get(key[:-1]) == KNOWN) else OTHER
            if word.isupper() and len(key) < 4:
                kind = KNOWN  # an abbreviation
        return kind

    def search(self, view: View) -> Iterator[Finding]:
        """Names, whoever they are of."""
        text = view.shown
        for match in self.run.finditer(text):
            yield from self._run(match.group(), match.start())
        for match in self.doing.finditer(text):
            if self.kind_of(match["v"]) not in (KNOWN, SMALL) and not match["v"].isupper():
                yield Finding(*match.span("v"), "name", "rule:en/name-doing")
        for match in self.after.finditer(text):
            yield from self._first(match["v"], match.start("v"))
            if match["w"] and self.kind_of(match["w"]) not in (KNOWN, SMALL):
                yield Finding(*match.span("w"), "relative", "rule:en/name-behind")
        yield from self._small(view)

    def _first(self, found: str, at: int) -> Iterator[Finding]:
        """The words of a name behind a word that leads to names, up to the first word of the language."""
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

    def _run(self, found: str, at: int) -> Iterator[Finding]:
        """Names within a run of capitalised words: between words of the language."""
        words: list[tuple[str, int, int]] = []
        position = at
        for word in [*found.split(" "), ""]:
            kind = self.kind_of(word) if word else KNOWN
            if kind == KNOWN or (kind == SMALL and not words and word in PARTICLES):
                yield from self._name(words)
                words = []
            else:
                words.append((word, kind, position))
            position += len(word) + 1

    def _name(self, words: list[tuple[str, int, int]]) -> Iterator[Finding]:
        """The finding that these words are, if they are a name."""
        while words and words[-1][0] in PARTICLES:
            words.pop()
        full = [(word, kind) for word, kind, _ in words if kind != SMALL]
        kinds = {kind for _, kind in full}
        if not full or (len(words) == 1) or not self._enough(words, full, kinds):
            return
        last = words[-1]
        yield Finding(words[0][2], last[2] + len(last[0].rstrip(",")), "name", "rule:en/name-shape")

    def _enough(self, words: list[tuple[str, int, int]], full: list[tuple[str, int]], kinds: set[int]) -> bool:
        listed = bool(kinds & {GIVEN, FAMILY})
        upper = all(word.isupper() for word, _ in full)
        commas = any(word.endswith(",") for word, _, _ in words[:-1])
        if len(full) == 1:
            first = words[0][0]
            return (len(first) == 2 and first[1] == "." and (listed or (OTHER in kinds and not upper))) or (listed and not commas and words[0][1] != SMALL)
        if commas or upper:
            return listed
        return listed or (full[0][1] == OTHER and OTHER in {full[-1][1]})

    def _small(self, view: View) -> Iterator[Finding]:
        """A known given name and a known family name in small letters."""
        for match in self.pair.finditer(view.shown):
            if match.group() not in self.given:
                continue
            kinds = self.kinds[match.group()], self.kind_of(match[1])
            if kinds[0] == GIVEN and kinds[1] in (FAMILY, OTHER) or (kinds[0] == BOTH and kinds[1] == FAMILY):
                if kinds[1] == OTHER and match[1] not in self.families:
                    continue
                yield Finding(match.start(), match.end(1), "name", "rule:en/name-small")
