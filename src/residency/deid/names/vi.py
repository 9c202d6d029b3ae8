"""Vietnamese names."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from residency.deid.find import Finding
from residency.deid.names.lists import LETTER, LOWER, PEOPLE, UPPER, any_of, runs_of
from residency.deid.view import View, plain
from residency.deid.words import SpacedWords

SYLLABLE = re.compile(
    r"(?:ngh|ch|gh|gi|kh|ng|nh|ph|qu|th|tr|[bcdghklmnpqrstvx])?[aeiouy]{1,3}(?:ch|ng|nh|[cmnpt])?"
)
"""A Vietnamese syllable, plain: what an abbreviation or the name of a drug hardly ever is."""


NEXT = re.compile(r"[ \t.:\-–]*([^\W\d]+)")
"""The word behind a cue."""


def _forms(words: Iterable[str]) -> tuple[set[str], set[str]]:
    """Words in small letters, and plain."""
    small = {word.lower() for word in words}
    return small, set(map(plain, small))


class Vietnamese:
    """Capitalised syllables behind a cue, or that begin with a family name; families, stops and
    vetoes are compared without marks."""

    def __init__(self, data: Mapping[str, Any]) -> None:
        families = [*data["families"], *data["more_families"]]
        middles = [*data["middles"], *data["more_middles"]]
        given = [*data["male"], *data["female"], *data["middles"]]
        self.marked, self.families = _forms(families)
        self.calls, self.given = _forms(given)
        self.marked_middles, self.middles = _forms(middles)
        self.ends, self.stops = _forms(data["stops"])
        self.vetoes = {tuple(plain(words).split()) for words in data["vetoes"]}
        self.not_asked = frozenset(map(plain, data["not_asked"]))
        self.asking, self.addressing = frozenset(data["asking"]), frozenset(data["addressing"])
        word = f"[{UPPER}][{LETTER}]*"
        self.run = re.compile(rf"(?<![{LETTER}\d]){word}(?:[ ]{{1,2}}{word}){{1,7}}(?![{LETTER}])")
        between = (
            rf"(?:[ \t]*\([^)\n]{{1,40}}\)|[ \t]+(?:{any_of(data['between'])})(?![{LETTER}\d]))*"
        )
        title = rf"(?:(?:{any_of(data['titles'])})(?![{LETTER}\d])\.?[ \t]*)*"
        initial = rf"[{UPPER}]\.[ ]?"
        self.before = re.compile(
            rf"{between}[ \t]*[.:\-–]*[ \t]*(?:(?<=[:)])[ \t]*\n\s*)?[“\"']?{title}"
        )
        self.name = re.compile(
            rf"(?:(?:{initial}){{0,3}}{word}|(?:{initial}){{2,4}})(?:[ ]{{1,2}}"
            rf"(?:{word}|{initial})){{0,5}}(?![{LETTER}])"
        )
        self.words = SpacedWords((cue, kind) for kind in PEOPLE for cue in data["cues"][kind])
        self.skipped = frozenset(" ".join([*data["between"], *data["titles"]]).split())
        written = {form(name) for name in data["families"] for form in (str, str.lower, str.upper)}
        cell = rf"(?:{any_of(written | self.families)})(?:[ ][{LETTER}'’]+){{1,4}}"
        self.cell = re.compile(rf"(?:[|\t]|[ ][\-–])[ ]?(?P<v>{cell})(?=[ ]?(?:[|\t]|[\-–][ ]))")
        acts = rf"[ ](?:\d{{1,3}}[ ]?(?:t|tuổi)|{any_of(data['acts'])})(?![{LETTER}])"
        self.alone = re.compile(
            rf"(?!(?:{any_of(data['no_calls'])})[ ])(?P<v>[{UPPER}][{LOWER}]+)"
            rf"(?=[.,;)]|[ ]?\(|[ ]*(?:\n|\Z)|{acts})"
        )
        self.lower = re.compile(rf"[ \t]*[.:]?[ \t]*(?P<v>[{LOWER}]+(?:[ ][{LOWER}]+){{1,4}})")

    def search(self, view: View) -> Iterator[Finding]:
        text, low = view.shown, view.low
        for start, end, kinds in self.words.find(view.low_words):
            kind = kinds[0]
            next_ = NEXT.match(text, end)
            if next_ and next_[1][0].islower():
                behind = (self._behind(low, end), end)
                match = next(filter(None, (self.lower.match(text, at) for at in behind)), None)
                small = list(self._small(match["v"], match.start("v"), kind)) if match else []
                yield from small
                if small or (kind != "name" and next_[1].lower() not in self.skipped):
                    continue
            at = self._behind(low, end)
            if text[at : at + 1].isupper() and (match := self.name.match(text, at)):
                found = self._cued(match.group(), at, low[start:end], kind)
                if found and not self._begins(text, at, found[1], end):
                    yield Finding(found[0], found[1], kind, "rule:vi/name-cue")
                elif not found and kind != "name" and ":" not in text[end:at]:
                    one = self.alone.match(text, at)
                    if one and SYLLABLE.fullmatch(plain(one["v"])):
                        yield Finding(*one.span("v"), kind, "rule:vi/name-cue")
        for run, at in runs_of(self.run, text):
            yield from self._listed(run, at)
        for match in self.cell.finditer(text):
            words = match["v"].split()
            typed = words[0].islower() and any(self._small(match["v"], match.start("v"), "name"))
            large = all(word[0].isupper() for word in words)
            if typed or (large and tuple(map(plain, words[:2])) not in self.vetoes):
                yield Finding(*match.span("v"), "name", "rule:vi/name-cell")

    def _behind(self, low: str, end: int) -> int:
        """Where a name behind a cue may begin."""
        match = self.before.match(low, end)
        return match.end() if match else end

    def _begins(self, text: str, start: int, end: int, cue: int) -> bool:
        """Whether a capitalised word behind a cue only begins a sentence (``BS: Triệu chứng``)."""
        behind, between = NEXT.match(text, end), text[cue:start]
        if " " in text[start:end] or not behind:
            return False
        known = text[start:end].lower() in self.calls
        if "\n" in between or (":" in between and behind[1][0].islower() and not known):
            return True
        return (plain(text[start:end]), plain(behind[1])) in self.vetoes

    def _small(self, found: str, at: int, kind: str) -> Iterator[Finding]:
        """A name in small letters: family, middle and given name must all be known."""
        words = found.split(" ")
        folded = [plain(word) for word in words]
        unmarked = " ".join(words[:3]).isascii()
        exact = unmarked or (words[0] in self.marked and words[1] in self.marked_middles)
        if exact and folded[0] in self.families and folded[1] in self.middles and len(words) > 2:
            more = len(words) > 3 and (folded[2] in self.middles or folded[3] in self.given)
            count = 4 if more and (folded[2] in self.middles or folded[3] not in self.stops) else 3
            yield Finding(at, at + len(" ".join(words[:count])), kind, "rule:vi/name-small")

    def _is_stop(self, word: str) -> bool:
        """Whether a word cannot be of a name; one with marks must have the right ones (Lan is not
        lần)."""
        low = word.lower()
        return low in self.ends or (low.isascii() and low in self.stops and low not in self.calls)

    def _is_family(self, word: str) -> bool:
        """Whether a word is a family name; one with marks must have the right ones."""
        return word.lower() in self.marked or (word.isascii() and word.lower() in self.families)

    def _cued(self, found: str, start: int, cue: str, kind: str) -> tuple[int, int] | None:
        """The words up to the first that ends a name."""
        end = taken = 0
        folded: list[str] = []
        words = list(_words(found))
        bare = (word for word, _ in words[1:4] if not word.isupper())
        titled = sum(not self._is_stop(word.strip(".")) for word in bare)
        for word, at in words:
            key = plain(word).strip(".")
            asked = not taken and (cue in self.asking or titled > 1) and len(words) > 1
            if not asked or key in self.not_asked:  # else a name, whatever it means else
                given = taken and key in self.given and word[0].isupper() and not word.isupper()
                given = given or (taken == 2 and self._third(words, folded, word))
                given = given or (taken == 1 and self._second(words, key))
                ended = word.endswith(".")
                if self._is_stop(word.strip(".")) and not given and not ended:
                    break
                short = word.isupper() and len(word) > 1 and not ended
                cancer = word == "K" and taken > 2 and not ended
                if taken and (short or cancer) and not found[:end].isupper():
                    break  # an abbreviation behind a name
            folded.append(key)
            end, taken = at + len(word), taken + 1
            if taken == 5:
                break
        if not taken or not self.vetoes.isdisjoint((tuple(folded[:2]), (folded[0],))):
            return None
        name = self._is_name(found[:end].strip(), folded, cue, kind)
        return (start, start + end) if name else None

    def _second(self, words: list[tuple[str, int]], key: str) -> bool:
        """Whether a word may be the middle name behind a family name and before a given one."""
        return len(words) > 2 and key in self.middles and self._is_family(words[0][0])

    def _third(self, words: list[tuple[str, int]], folded: list[str], word: str) -> bool:
        """Whether a word may be the given name behind a family and a middle name, whatever it means
        else."""
        return (
            self._is_family(words[0][0])
            and folded[1] in self.middles
            and word[0].isupper()
            and word.isupper() == words[1][0].isupper()
        )

    def _is_name(self, found: str, folded: list[str], cue: str, kind: str) -> bool:
        """Whether words behind a cue are a name: known ones, or such as could be one."""
        words = found.split()
        pairs = zip(folded, words, strict=False)
        shaped = all(SYLLABLE.fullmatch(key) or "." in word for key, word in pairs)
        if cue in self.asking:
            return len(found) > 1
        if "." in found:
            return True
        if len(words) == 1:
            called = cue in self.addressing or kind == "clinician"
            if called and len(found) > 1 and not found.isupper() and shaped:
                return True
            bare = found.isascii() and folded[0] in self.given and not found.isupper()
            return found.lower() in self.calls or bare
        if self._is_family(words[0]) or any(word.lower() in self.calls for word in words):
            return True
        return shaped and not found.isupper()

    def _listed(self, found: str, start: int) -> Iterator[Finding]:
        """Family names with what follows them."""
        words = list(_words(found))
        folded = [plain(word) for word, _ in words]
        first = 0
        while first < len(words) - 1:
            last = self._last(words[first:], folded[first:]) + first
            if last > first:
                end = words[last - 1][1] + len(words[last - 1][0])
                yield Finding(start + words[first][1], start + end, "name", "rule:vi/name-list")
            first = max(last, first + 1)

    def _last(self, words: list[tuple[str, int]], folded: list[str]) -> int:
        """How many of these words are a name that begins with a family name."""
        if not self._is_family(words[0][0]) or tuple(folded[:2]) in self.vetoes:
            return 0
        taken = 1
        for (word, _), key in zip(words[1:5], folded[1:5], strict=True):
            fits = not self._is_stop(word) or key in self.given
            fits = fits or (taken == 1 and self._second(words, key))
            fits = fits or (taken == 2 and self._third(words, folded, word))
            if not fits or not SYLLABLE.fullmatch(key):
                break
            taken += 1
        shout = words[0][0].isupper() and len(words[0][0]) > 1
        if shout and self.given.isdisjoint(folded[1:taken]):
            return 0
        return taken if taken > 1 else 0

    def again(self, view: View, found: Iterable[Finding]) -> list[Finding]:
        """Given names of people who were found, alone elsewhere: capitalised within a sentence."""
        text, more = view.shown, list[Finding]()
        whole = ((text[one.start : one.end], one.kind) for one in found)
        names = {name.rpartition(" ")[2]: kind for name, kind in whole if " " in name}
        for name, kind in names.items():
            if len(name) < 2 or not name[0].isalpha():
                continue
            for form in {name, name.title()}:
                if not form[0].isupper():
                    continue
                at = text.find(form)
                while at >= 0:
                    end = at + len(form)
                    before = text[max(0, at - 2) : at]
                    within = before[:1].islower() or before[:1] in ",("
                    within = within and before[-1:] in (" ", "(")
                    if within and not text[end : end + 1].isalnum():
                        more.append(Finding(at, end, kind, "rule:vi/name-again"))
                    at = text.find(form, end)
        return more


def _words(found: str) -> Iterator[tuple[str, int]]:
    position = 0
    for word in found.split(" "):
        if word:
            yield word.strip("\t"), position
        position += len(word) + 1
