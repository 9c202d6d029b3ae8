"""English names."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from itertools import pairwise
from typing import Any

from residency.deid.find import Finding
from residency.deid.names.en_shape import KNOWN, PARTICLE, WORD, Shapes
from residency.deid.names.lists import LETTER, LOWER, PEOPLE, UPPER, ordinary, runs_of
from residency.deid.view import View
from residency.deid.words import SpacedWords


def _bare(word: str) -> str:
    """A word in small letters, without what its end may carry (``Crohn's,`` -> ``crohn``)."""
    return word.lower().strip(".,").removesuffix("'s").removesuffix("’s").rstrip("'’")


def _small_line(text: str, at: int, listed: bool) -> bool:
    """Whether a name may be written in small letters here: one of a list anywhere, another in a
    line without capitals."""
    if listed:
        return True
    end = text.find("\n", at)
    return text[text.rfind("\n", 0, at) + 1 : end if end >= 0 else len(text)].islower()


COMMA = re.compile(rf",[ ](?=[{UPPER}])")
"""Where a name may be written with the family name first."""


class English:
    """Capitalised words behind a cue, before a degree, or that begin with a given name."""

    def __init__(self, data: Mapping[str, Any]) -> None:
        self.shapes = Shapes(data)
        self.given, self.families = self.shapes.given, self.shapes.families
        self.ambiguous, self.strong = set(data["ambiguous"]), frozenset(data["strong"])
        self.stops, self.vetoes = set(data["stops"]), set(data["vetoes"])
        self.called = frozenset(data["called"])
        self.abbreviations = frozenset(data["abbreviations"])
        up, low, any_ = UPPER, LOWER, LETTER
        word = WORD
        initials = r"(?:[A-Z]|Th|Ph|Chr|Ch|Fr|Jh|Kh|Ma|Mohd|Md|Wm|Geo|Chas|Jos|St)\."
        lead = rf"(?:(?:{initials}[\- ]?){{1,3}}(?=[\w' ])[ ]?)?(?:{PARTICLE}[ ]){{0,3}}(?:[ae]l-)?"
        part = rf"(?:{word}|[{up}]\.?(?![{any_}\d])|{PARTICLE}(?=[ ]))"
        names = (
            rf"{word},[ ]?{part}(?:[ ]{part}){{0,2}}"
            rf"|{lead}(?:{word}|[{up}]\.?(?![{any_}\d]))(?:[ ]{part}){{0,3}}"
        )
        title = r"(?:(?i:mr|mrs|ms|miss|dr|prof)\b\.?[ \t]*)?"
        linked = (
            r"(?:[ \t]*\([^)\n]{1,30}\))?(?:[ \t]+(?i:is|was|named|called|name|by|md|rn)(?!\w))?"
        )
        self.behind = re.compile(
            rf"{linked}[\"'>]?[ \t]*[.:,#\-]?[ \t]*(?:(?<=:)[ \t]*\n[ \t]*)?[\"'“]?{title}"
            rf"(?P<v>{names})(?![{low}\d])"
        )
        self.small = re.compile(
            r"(?:'s)?[ \t]*[.:,#\-]?[ \t]*(?P<v>[a-z'’\-]{3,},?(?:[ ](?:[a-z]\.[ "
            r"]?)?[a-z'’\-]{2,}){1,2}(?:[ ][a-z]\.)?)(?![\w])"
        )
        self.words = SpacedWords((cue, kind) for kind in PEOPLE for cue in data["cues"][kind])
        self.degrees = SpacedWords((word.lower(), word) for word in data["suffixes"])
        self.before = re.compile(rf"(?<![{any_}])(?P<v>{part}(?:[ ]{part}){{0,3}}),?[ ]\Z")
        self.run = re.compile(
            rf"(?<![{any_}\d]){word}(?:[ ](?:[{up}]\.?[ ])?{word}){{1,2}}(?![{any_}])"
        )
        self.swapped = re.compile(
            rf"(?<![{any_}\d])(?P<v>{word},[ ]{word}(?:[ ][{up}]\.?)?)(?![{any_}])"
        )

        shout = rf"[{up}][{up}'’\-]+"
        self.shouted = re.compile(
            r"(?m)^[ \t]*(?:[-*•#][ ]*|\d{1,2}[.)][ ]*|(?i:bed|rm|room|bay|pt|patient|name|cubicle"
            r"|slot)"
            rf"[ ]?[:#]?[ ]?[A-Z]?\d{{0,3}}[A-Z]?[ ]*[:.,\-–]?[ ]*)?(?P<v>{shout}(?:,?[ ](?:"
            rf"[{up}]\.?(?![{any_}])|{shout})){{1,3}})[,;:]?[ ]*[(\-–]?[ ]?\d{{1,3}}[ \-]?"
            r"(?i:f|m|yo|y/o|y\.o|yr|yrs|year|male|female)(?![A-Za-z])"
        )

    def search(self, view: View) -> Iterator[Finding]:
        text, low = view.shown, view.low
        for line in self.shouted.finditer(text):
            if self.shapes.shouted(line["v"]):
                yield Finding(*line.span("v"), "name", "rule:en/name-line")
        for start, end, kinds in self.words.find(view.low_words):
            if (match := self.behind.match(text, end)) and (found := self._cued(match.group("v"))):
                at, cue = match.start("v"), low[start:end]
                if self._apart(cue, text[end:at], text, at + found):
                    continue
                apart = not match["v"].isupper() or text[end:at].strip(" .:\t")
                if text[start:end].isupper() and end - start < 3 and apart:
                    continue  # MS is multiple sclerosis or mitral stenosis, PT physiotherapy
                kin = kinds[0] == "relative" and cue not in self.called
                if kin and self.shapes.is_clinical(match["v"][:found], text, at + found):
                    continue  # what a relative has: "Father Asthma", "Sister Grave's disease"
                quoted = cue == "name" and '"' in text[end:at]  # anything may have a name there
                if self._is_name(match["v"][:found], "" if quoted else cue, kinds[0]):
                    yield Finding(at, at + found, kinds[0], "rule:en/name-cue")
            elif (match := self.small.match(text, end)) and self.shapes.lowered(match["v"]):
                yield Finding(*match.span("v"), kinds[0], "rule:en/name-cue")
        for start, end, degrees in self.degrees.find(view.low_words):
            if text[start:end] in degrees or text[start : end + 1] in degrees:
                yield from self._degreed(text, start)
        yield from self.shapes.search(view)
        for run, at in runs_of(self.run, text):
            yield from self._listed(run, at)
        for comma in COMMA.finditer(text):
            if match := self.swapped.search(text, max(0, comma.start() - 24)):
                family, given = match["v"].split(",", 1)
                if match.start("v") > comma.start() or given.split()[0].lower() not in self.given:
                    continue
                word = self.shapes.kind_of(family) == KNOWN
                if not word and family.lower() not in self.stops | self.vetoes:
                    yield Finding(match.start("v"), match.end("v"), "name", "rule:en/name-list")

    def again(self, view: View, found: Iterable[Finding]) -> list[Finding]:
        """Given and family names of people who were found, elsewhere in the text, in any case."""
        text, low = view.shown, view.low
        words = {
            word.lower(): one.kind
            for one in found
            if one.by not in ("rule:en/name-pair", "rule:en/name-town")
            for word in self.shapes.parts(text[one.start : one.end])
        }
        more: list[Finding] = []
        for word, kind in words.items():
            at = low.find(word)
            while at >= 0:
                end = at + len(word)
                within = low[at - 1 : at].isalpha() or low[end : end + 1].isalpha()
                small = len(word) > 4 and word not in ordinary("en")
                small = small and _small_line(text, at, self.shapes.is_listed(word))
                if not within and (small or text[at].isupper()):
                    place = self.shapes.grown(text, at, end)
                    more.append(Finding(*place, kind, "rule:en/name-again"))
                at = low.find(word, end)
        return more

    def _apart(self, cue: str, between: str, text: str, end: int) -> bool:
        """Whether a cue and the capitalised word behind it belong to different sentences."""
        if "." in between and cue not in self.abbreviations:
            return True
        if cue == "name" and not between.strip(" \t"):
            return True
        rest = text[end : end + 2].lstrip(" ,'’")
        return ":" in between and rest[:1].islower() and cue not in self.strong

    def _degreed(self, text: str, start: int) -> Iterator[Finding]:
        """The name before a degree."""
        match = self.before.search(text, max(0, start - 60), start)
        if match is None:
            return
        kept: list[str] = []
        for word in reversed(match.group("v").split(" ")):
            if self._plain(word):
                break
            kept.append(word)
        if any(len(word.strip(".")) > 1 for word in kept):
            end = match.end("v")
            yield Finding(end - len(" ".join(kept)), end, "clinician", "rule:en/name-degree")

    def _is_name(self, found: str, cue: str, kind: str) -> bool:
        """Whether words behind a cue are a name: behind a weak one (``patient``, ``per``) one must
        be known, or they are several."""
        if cue in self.strong:
            return True
        keys = [_bare(word) for word in found.split()]
        if any(key in self.given or key in self.families for key in keys):
            return True
        if found.isupper():
            return self.shapes.cased(found)
        if any(key in self.vetoes for key in keys):
            return False
        return len(keys) > 1 or (kind != "name" and len(found) > 2)

    def _plain(self, word: str) -> bool:
        return word.lower().strip(".,'’") in self.stops and not (
            len(word) == 2 and word[0].isupper() and word[1] == "."
        )

    def _cued(self, found: str) -> int:
        """Length of the words up to the first that ends a name; 0 where there is none."""
        end = position = taken = 0
        for word in found.replace("\t", " ").split(" "):
            if self._plain(word) or (taken == 0 and _bare(word) in self.vetoes):
                break
            if word:
                end, taken = position + len(word.rstrip(",")), taken + 1
            position += len(word) + 1
        return 0 if taken == 1 and len(found[:end].strip(". ")) < 2 else end

    def _listed(self, found: str, start: int) -> Iterator[Finding]:
        """A known given name with what follows it."""
        words = found.split()
        last = words[-1].lower()
        if self._plain(words[-1]):
            return
        for word, behind in pairwise(words):
            key = word.lower()
            ambiguous = key in self.ambiguous and last not in self.families
            veto = last in self.vetoes and (last not in self.families or key in self.ambiguous)
            if key in self.given and not (ambiguous or veto or self._plain(behind)):
                at = start + found.index(word)
                yield Finding(at, start + len(found), "name", "rule:en/name-list")
                return
