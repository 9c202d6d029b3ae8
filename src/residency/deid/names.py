"""Names of people, by the words around them and by lists of names."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from functools import cache
from pathlib import Path
from typing import Any

from residency.deid.find import Finding, View, Words, plain

PEOPLE = ("name", "relative", "clinician")


@cache
def name_data(lang: str) -> Mapping[str, Any]:
    """Names, cues, stop words and vetoes of a language."""
    import yaml

    found: Mapping[str, Any] = yaml.safe_load((Path(__file__).parent / f"names/{lang}.yaml").read_text("utf-8"))
    return found


class Names:
    """Finds the names of one language."""

    def __init__(self, lang: str) -> None:
        self.lang = lang
        kinds: dict[str, type[_Vietnamese | _Chinese | _English]] = {"vi": _Vietnamese, "zh": _Chinese, "en": _English}
        self.own = kinds[lang](name_data(lang))

    def search(self, view: View) -> list[Finding]:
        """Findings of kinds name, relative and clinician; a name that was found once is found wherever it stands again."""
        if self.lang == "zh" and view.shown.isascii():
            return []
        found = list(self.own.search(view))
        return [*found, *_again(view.shown, found, self.lang)]


def _again(text: str, found: Iterable[Finding], lang: str) -> Iterator[Finding]:
    """The same names elsewhere in the text, where nothing says that they are names: written alike, as whole words."""
    seen = {text[one.start : one.end]: one.kind for one in found}
    places = {one.start for one in found}
    for name, kind in seen.items():
        if len(name) < (2 if lang == "zh" else 5) or text.count(name) < 2:
            continue
        at = text.find(name)
        while at >= 0:
            end = at + len(name)
            if at not in places and not (lang != "zh" and (text[at - 1 : at].isalpha() or text[end : end + 1].isalpha())):
                yield Finding(at, end, kind, f"rule:{lang}/name-again")
            at = text.find(name, end)


def _any(words: Iterable[str]) -> str:
    return "|".join(re.escape(word) for word in sorted(words, key=len, reverse=True))


def _classes() -> tuple[str, str, str]:
    """Latin letters for patterns of re, which is faster than regex: capital, small, any."""
    signs = [chr(code) for code in (*range(0x41, 0x250), *range(0x1E00, 0x1F00))]
    upper, lower = "".join(s for s in signs if s.isupper()), "".join(s for s in signs if s.islower())
    return upper, lower, f"{upper}{lower}\u0300-\u036f"


UPPER, LOWER, LETTER = _classes()


SYLLABLE = re.compile(r"(?:ngh|ch|gh|gi|kh|ng|nh|ph|qu|th|tr|[bcdghklmnpqrstvx])?[aeiouy]{1,3}(?:ch|ng|nh|[cmnpt])?")
"""A Vietnamese syllable, plain: what an abbreviation or the name of a drug hardly ever is."""


NEXT = re.compile(r"[ \t.:\-–]*([^\W\d]+)")
"""The word behind a cue."""


class _Vietnamese:
    """Capitalised syllables behind a cue, or that begin with a family name; families, stops and vetoes are compared without marks."""

    def __init__(self, data: Mapping[str, Any]) -> None:
        self.marked = {name.lower() for name in data["families"]}
        self.calls = {name.lower() for name in [*data["male"], *data["female"], *data["middles"]]}
        self.families = {plain(name) for name in data["families"]}
        self.given = {plain(name) for name in [*data["male"], *data["female"], *data["middles"]]}
        self.middles = {plain(name) for name in data["middles"]}
        self.ends = {word.lower() for word in data["stops"]}
        self.stops = {plain(word) for word in data["stops"]}
        self.vetoes = {tuple(plain(words).split()) for words in data["vetoes"]}
        self.not_asked = frozenset(map(plain, data["not_asked"]))
        self.asking, self.addressing = frozenset(data["asking"]), frozenset(data["addressing"])
        word = f"[{UPPER}][{LETTER}]*"
        self.run = re.compile(rf"(?<![{LETTER}\d]){word}(?:[ \t]{{1,2}}{word}){{1,7}}(?![{LETTER}])")
        between = rf"(?:[ \t]*\([^)\n]{{1,40}}\)|[ \t]+(?i:{_any(data['between'])})(?![{LETTER}\d]))*"
        title = rf"(?:(?i:{_any(data['titles'])})(?![{LETTER}\d])\.?[ \t]*)*"
        initial = rf"[{UPPER}]\.[ \t]?"
        name = rf"(?:(?:{initial}){{0,3}}{word}|(?:{initial}){{2,4}})(?:[ \t]{{1,2}}(?:{word}|{initial})){{0,5}}(?![{LETTER}])"
        self.behind = re.compile(
            rf"{between}[ \t]*[.:\-–]*[ \t]*(?:(?<=[:)])[ \t]*\n\s*)?[“\"']?{title}(?P<v>{name})"
        )
        self.words = Words([(cue, kind) for kind in PEOPLE for cue in data["cues"][kind]], between_blanks=True)
        self.skipped = frozenset(" ".join([*data["between"], *data["titles"]]).split())
        self.lower = re.compile(rf"[ \t]*[.:]?[ \t]*(?P<v>[{LOWER}]+(?:[ \t][{LOWER}]+){{1,4}})")

    def search(self, view: View) -> Iterator[Finding]:
        text, low = view.shown, view.low
        for start, end, kinds in self.words.find(view.low_words):
            kind = kinds[0]
            next_ = NEXT.match(text, end)
            if next_ and kind != "name" and next_[1][0].islower() and next_[1].lower() not in self.skipped:
                continue
            if match := self.behind.match(text, end):
                found = self._cued(match.group("v"), match.start("v"), low[start:end], kind)
                if found and not self._begins(text, match.start("v"), found[1], end):
                    yield Finding(found[0], found[1], kind, "rule:vi/name-cue")
            elif kind == "name" and (match := self.lower.match(text, end)):
                yield from self._small(match.group("v"), match.start("v"))
        for found, at in _runs(self.run, text):
            yield from self._listed(found, at)

    def _begins(self, text: str, start: int, end: int, cue: int) -> bool:
        """Whether one capitalised word behind a cue only begins a sentence (``BS: Triệu chứng``)."""
        if " " in text[start:end] or not (behind := NEXT.match(text, end)):
            return False
        known = text[start:end].lower() in self.calls
        if "\n" in text[cue:start] or (":" in text[cue:start] and behind[1][0].islower() and not known):
            return True
        return (plain(text[start:end]), plain(behind[1])) in self.vetoes

    def _small(self, found: str, at: int) -> Iterator[Finding]:
        """A name in small letters: family, middle and given name must all be known."""
        words = found.split(" ")
        folded = [plain(word) for word in words]
        if folded[0] in self.families and folded[1] in self.middles and len(words) > 2:
            count = 4 if len(words) > 3 and folded[3] in self.given and folded[3] not in self.stops else 3
            yield Finding(at, at + len(" ".join(words[:count])), "name", "rule:vi/name-small")

    def _is_stop(self, word: str) -> bool:
        """Whether a word cannot be of a name; one with marks must have the right ones (Lan is not lần)."""
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
        titled = [word for word, _ in words[1:4] if not word.isupper() and not self._is_stop(word.strip("."))]
        for word, at in words:
            key = plain(word).strip(".")
            if not taken and (cue in self.asking or len(titled) > 1) and key not in self.not_asked and len(words) > 1:
                folded.append(key)  # whatever it means else
                end, taken = at + len(word), 1
                continue
            given = taken and key in self.given and word[0].isupper() and not word.isupper()
            if self._is_stop(word.strip(".")) and not given and not word.endswith("."):
                break
            if taken and word.isupper() and len(word) > 1 and not found[:end].isupper() and not word.endswith("."):
                break  # an abbreviation behind a name
            folded.append(key)
            end, taken = at + len(word), taken + 1
            if taken == 5:
                break
        if not taken or tuple(folded[:2]) in self.vetoes or (folded[0],) in self.vetoes:
            return None
        return (start, start + end) if self._is_name(found[:end].strip(), folded, cue, kind) else None

    def _is_name(self, found: str, folded: list[str], cue: str, kind: str) -> bool:
        """Whether words behind a cue are a name: known ones, or such as could be one."""
        words = found.split()
        shaped = all(SYLLABLE.fullmatch(key) or "." in word for key, word in zip(folded, words, strict=False))
        if cue in self.asking:
            return len(found) > 1
        if "." in found:
            return True
        if len(words) == 1:
            if (cue in self.addressing or kind == "clinician") and len(found) > 1 and not found.isupper() and shaped:
                return True
            return found.lower() in self.calls or (found.isascii() and folded[0] in self.given and not found.isupper())
        if self._is_family(words[0]) or any(word.lower() in self.calls for word in words):
            return True
        return shaped and not found.isupper()

    def _listed(self, found: str, start: int) -> Iterator[Finding]:
        """Family names with what follows them."""
        words = list(_words(found))
        folded = [plain(word) for word, _ in words]
        position = 0
        while position < len(words) - 1:
            if self._is_family(words[position][0]) and tuple(folded[position : position + 2]) not in self.vetoes:
                last = position + 1
                while (
                    last < len(words)
                    and last - position < 5
                    and not (self._is_stop(words[last][0]) and folded[last] not in self.given)
                    and SYLLABLE.fullmatch(folded[last])
                ):
                    last += 1
                shout = words[position][0].isupper() and len(words[position][0]) > 1
                taken = last - position
                sure = not shout or any(word in self.given for word in folded[position + 1 : last])
                if taken >= 2 and sure and not (shout and taken == 2 and folded[position + 1] not in self.given):
                    end = words[last - 1][1] + len(words[last - 1][0])
                    yield Finding(start + words[position][1], start + end, "name", "rule:vi/name-list")
                    position = last
                    continue
            position += 1


def _runs(form: re.Pattern[str], text: str) -> Iterator[tuple[str, int]]:
    """Runs of capitalised words, without a first one that begins within a word (the form looks at nothing before it, to be quick)."""
    for match in form.finditer(text):
        found, at = match.group(), match.start()
        if at and text[at - 1].isalnum():
            first, _, found = found.partition(" ")
            at += len(first) + 1
        if " " in found:
            yield found, at


def _words(found: str) -> Iterator[tuple[str, int]]:
    position = 0
    for word in found.split(" "):
        if word:
            yield word.strip("\t"), position
        position += len(word) + 1


HAN = "\u4e00-\u9fff"


class _Chinese:
    """A family name and one or two signs behind a cue, before a title, or before sex or age; glued to the text around it."""

    def __init__(self, data: Mapping[str, Any]) -> None:
        family = f"(?:{_any(data['compound'])}|[{data['families']}])"
        veto = f"(?!{_any(data['vetoes'])})"
        given = rf"(?:[{HAN}]|\s(?=[{HAN}](?![{HAN}]))[{HAN}])"
        masked = f"{family}[某xX*]{{1,2}}"
        name = rf"{veto}(?P<v>{family}{given}{{1,2}}(?:·[{HAN}]{{1,6}})?|{masked}|[{HAN}]{{2,7}}·[{HAN}]{{2,8}})"
        asked = rf"(?!{_any(data['not_asked'])})(?P<v>[{HAN}]{{2,4}}|{masked}|[{HAN}]{{1,7}}(?:·[{HAN}]{{1,8}})+|[{HAN}]\s[{HAN}](?:\s[{HAN}])?)"
        end = rf"(?=[^{HAN}]|$|{_any(data['follows'])})"
        link = r"(?:姓名)?(?:\s*(?:\([^)\n]{1,8}\))?\s*[:为是叫]\s*|\s*)[“\"(]?"
        self.behind = re.compile(f"{link}{name}{end}")
        self.field = re.compile(rf"(?:姓名)?\s*(?:\([^)\n]{{1,8}}\))?\s*:\s*{asked}(?![{HAN}])")
        self.more = re.compile(rf"\s*[/、,，和及与]\s*{name}(?=[^{HAN}]|$)")
        self.cues = Words([(cue, (kind, cue in data["asking"])) for kind in PEOPLE for cue in data["cues"][kind]])
        self.titles = Words(
            [*((word, "clinician") for word in data["titles"]), *((word, "relative") for word in data["doing"])]
        )
        self.titled = re.compile(_any(data["titles"]))
        self.prepositions = frozenset(data["prepositions"])
        self.not_title = re.compile("[科室台]")
        self.before = re.compile(rf"(?<![主责住值管]){veto}(?P<v>{family}[{HAN}]{{0,2}})\Z")
        self.person = re.compile(
            rf"[，,、;；（(/|\s]\s*(?:性别)?:?\s*(?:男|女|\d{{1,3}}\s?岁|(?:{_any(data['kin'])})[)）])"
        )
        self.leads = tuple(data["leads"])
        self.cue_words = tuple({word for kind in data["cues"].values() for word in kind})

    def search(self, view: View) -> Iterator[Finding]:
        text = view.shown
        for _, end, kinds in self.cues.find(text):
            kind, asking = kinds[0]
            match = (self.field.match(text, end) if asking else None) or self.behind.match(text, end)
            while match:
                yield Finding(match.start("v"), match.end("v"), kind, "rule:zh/name-cue")
                match = self.more.match(text, match.end("v")) if kind != "name" else None
        for at, end, kinds in self.titles.find(text):
            if not self.not_title.match(text, end):
                yield from self._before(text, at, kinds[0])
        for match in self.person.finditer(text):
            at = match.start()
            for length in (2, 3, 4):
                if at > length and "\u4e00" <= text[at - length - 1] <= "\u9fff":
                    continue
                if at >= length and self.before.match(text, at - length, at) and not self.titled.search(text, at - 2, at):
                    yield Finding(at - length, at, "name", "rule:zh/name-list")

    def _before(self, text: str, at: int, kind: str) -> Iterator[Finding]:
        """A name before a title, or before what people do."""
        for length in (1, 2, 3, 4):
            if kind == "relative" and length == 1:
                continue
            found = self.before.match(text, at - length, at) if at >= length else None
            if length == 1 and text[at - 1] in self.prepositions and at > 1 and "\u4e00" <= text[at - 2] <= "\u9fff":
                continue
            if found and (length == 1 or self._stands_alone(text, at - length)):
                yield Finding(at - length, at, kind, "rule:zh/name-title")

    def _stands_alone(self, text: str, start: int) -> bool:
        """Whether a name of several signs begins here: behind a sign, or a word that leads to a name."""
        return (
            start == 0
            or text[start - 1] in self.leads
            or not text[start - 1].isalpha()
            or text[:start].endswith(self.cue_words)
        )


def _bare(word: str) -> str:
    """A word in small letters, without what its end may carry (``Parkinson's,`` -> ``parkinson``)."""
    return word.lower().strip(".,").removesuffix("'s").removesuffix("’s").rstrip("'’")


COMMA = re.compile(rf",[ ](?=[{UPPER}])")
"""Where a name may be written with the family name first."""


class _English:
    """Capitalised words behind a cue, before a degree, or that begin with a given name."""

    def __init__(self, data: Mapping[str, Any]) -> None:
        self.given = {name.lower() for name in [*data["male"], *data["female"]]}
        self.families = {name.lower() for name in data["families"]}
        self.ambiguous, self.strong = set(data["ambiguous"]), frozenset(data["strong"])
        self.stops, self.vetoes = set(data["stops"]), set(data["vetoes"])
        self.abbreviations = frozenset(data["abbreviations"])
        up, low, any_ = UPPER, LOWER, LETTER
        word = rf"(?:[{up}][{low}'’]+(?:[\-’'][{up}]?[{low}]+)*|[{up}]['’][{up}][{low}]+|Mc[{up}][{low}]+|Mac[{up}][{low}]+|[{up}]{{2,}}(?:[\-'’][{up}]{{2,}})?)"
        part = rf"(?:{word}|[{up}]\.?(?![{any_}\d])|(?:van|von|de|der|den|da|del|di|la|le|bin|ibn|al|el|ter|dos)(?=[ ]))"
        names = rf"{word},[ ]?{part}(?:[ \t]{part}){{0,2}}|(?:{word}|[{up}]\.?(?![{any_}\d]))(?:[ \t]{part}){{0,3}}"
        title = r"(?:(?i:mr|mrs|ms|miss|dr|prof)\b\.?[ \t]*)?"
        linked = r"(?:[ \t]*\([^)\n]{1,30}\))?(?:[ \t]+(?i:is|was|named|called|name|by|md|rn)(?!\w))?"
        self.behind = re.compile(
            rf"{linked}[ \t]*[.:,#\-]?[ \t]*(?:(?<=:)[ \t]*\n[ \t]*)?{title}(?P<v>{names})(?![{low}\d])"
        )
        self.words = Words([(cue, kind) for kind in PEOPLE for cue in data["cues"][kind]], between_blanks=True)
        self.degrees = Words([(word.lower(), word) for word in data["suffixes"]], between_blanks=True)
        self.before = re.compile(rf"(?<![{any_}])(?P<v>{part}(?:[ ]{part}){{0,3}}),?[ ]\Z")
        self.run = re.compile(rf"(?<![{any_}\d]){word}(?:[ ](?:[{up}]\.?[ ])?{word}){{1,2}}(?![{any_}])")
        self.swapped = re.compile(rf"(?<![{any_}\d])(?P<v>{word},[ ]{word}(?:[ ][{up}]\.?)?)(?![{any_}])")

    def search(self, view: View) -> Iterator[Finding]:
        text, low = view.shown, view.low
        for start, end, kinds in self.words.find(view.low_words):
            if (match := self.behind.match(text, end)) and (found := self._cued(match.group("v"))):
                if self._apart(low[start:end], text[end : match.start("v")], text, match.start("v") + found):
                    continue
                if text[start:end].isupper() and end - start < 3 and not match.group("v").isupper():
                    continue  # MS is multiple sclerosis, PT physiotherapy
                if self._is_name(match.group("v")[:found], low[start:end], kinds[0]):
                    at = match.start("v")
                    yield Finding(at, at + found, kinds[0], "rule:en/name-cue")
        for start, end, degrees in self.degrees.find(view.low_words):
            if text[start:end] in degrees or text[start : end + 1] in degrees:
                yield from self._degreed(text, start)
        for found, at in _runs(self.run, text):
            yield from self._listed(found, at)
        for comma in COMMA.finditer(text):
            if match := self.swapped.search(text, max(0, comma.start() - 24)):
                family, given = match.group("v").split(",", 1)
                if match.start("v") > comma.start() or given.split()[0].lower() not in self.given:
                    continue
                if family.lower() not in self.stops | self.vetoes:
                    yield Finding(match.start("v"), match.end("v"), "name", "rule:en/name-list")

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
        if kept and any(len(word.strip(".")) > 1 for word in kept):
            yield Finding(match.end("v") - len(" ".join(kept)), match.end("v"), "clinician", "rule:en/name-degree")

    def _is_name(self, found: str, cue: str, kind: str) -> bool:
        """Whether words behind a cue are a name: behind a weak one (``patient``, ``per``) one must be known, or they are several."""
        if cue in self.strong:
            return True
        keys = [_bare(word) for word in found.split()]
        if any(key in self.given or key in self.families for key in keys):
            return True
        if found.isupper() or any(key in self.vetoes for key in keys):
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
        for index, word in enumerate(words[:-1]):
            key, last = word.lower(), words[-1].lower()
            if (
                key in self.given
                and not self._plain(words[index + 1])
                and (last not in self.vetoes or (last in self.families and key not in self.ambiguous))
                and not self._plain(words[-1])
            ):
                if key in self.ambiguous and last not in self.families:
                    continue
                at = found.index(word)
                yield Finding(start + at, start + len(found), "name", "rule:en/name-list")
                return
