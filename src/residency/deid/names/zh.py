"""Chinese names."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from functools import cache
from itertools import chain
from typing import Any

from residency.deid.find import Finding
from residency.deid.names.lists import PEOPLE, any_of, name_data
from residency.deid.view import View
from residency.deid.words import GluedWords

HAN = "\u4e00-\u9fff"


@cache
def _acts() -> re.Pattern[str]:
    return re.compile(any_of(name_data("zh")["acts"]))


def before_act(text: str, start: int, end: int) -> int:
    """Where a name ends that was taken with the beginning of what its bearer does (``王强陪`` of
    ``王强陪同``)."""
    match = _acts().search(text, start + 2, end + 1)
    return match.start() if match and match.start() < end else end


LONGEST = 18
"""Signs between two marks from which they are no name."""


def _words(data: Mapping[str, Any]) -> GluedWords[tuple[str, ...]]:
    people = [(cue, kind) for kind in reversed(PEOPLE) for cue in data["cues"][kind]]
    kinds = (
        dict(people),  # of several kinds of people the first
        dict.fromkeys(data["roles"], "clinician"),
        dict.fromkeys(data["doing"], "relative") | dict.fromkeys(data["titles"], "clinician"),
    )
    return GluedWords(
        (word, tuple(one.get(word, "") for one in kinds)) for word in dict.fromkeys(chain(*kinds))
    )


class Chinese:
    """A family name and one or two signs behind a cue, before a title, before sex or age, or alone
    between marks; glued to the text around it."""

    def __init__(self, data: Mapping[str, Any]) -> None:
        family = f"(?:{any_of(data['compound'])}|[{data['families']}])"
        veto = f"(?!{any_of(data['vetoes'])})"
        act = rf"(?!{any_of(data['acts'])})"
        given = rf"(?:[{HAN}](?:{act}[{HAN}])?|\s[{HAN}](?:\s[{HAN}])?(?![{HAN}〇○]))"
        masked = f"{family}[某xX*]{{1,2}}"
        parts = f"(?:{any_of(data['elements'])})"
        sounds = f"[{data['sounds']}]{{2,8}}·[{data['sounds']}]{{2,8}}"
        sure = f"{veto}{family}[{data['given']}]{act}[{data['given']}]"
        name = (
            rf"{veto}(?P<v>{sounds}|{parts}{{1,3}}|{family}{given}(?:·[{HAN}]{{1,6}})?|{masked}"
            rf"|[{HAN}]{{2,7}}·[{HAN}]{{2,8}})"
        )
        asked = (
            rf"(?!{any_of(data['not_asked'])})(?P<v>[{HAN}]{{2}}(?:{act}[{HAN}]){{0,2}}|{masked}"
            rf"|[{HAN}]{{1,7}}(?:·[{HAN}]{{1,8}})+|[{HAN}](?:\s[{HAN}·]){{1,12}})"
        )
        end = rf"(?=[^{HAN}]|$|{any_of([*data['follows'], *data['acts']])})"
        link = r"(?:姓名)?(?:\s*(?:\([^)\n]{1,8}\))?\s*[:为是叫]\s*|\s*)[“\"(]?"
        self.behind = re.compile(f"{link}{name}{end}")
        self.field = re.compile(
            rf"(?:姓名)?\s*(?:\([^)\n]{{1,8}}\))?\s*:\s*{asked}(?:(?![{HAN}])|(?!{act}))"
        )
        self.sure = re.compile(f"{link}(?P<v>{sounds}|{parts}{{1,3}}|{sure})")
        self.between = re.compile(f"[{HAN}·]{{3,}}")
        # "有IDA史四年": a history, and for how long
        lasted = "(?!史[一二两三四五六七八九十数多半][年月周天日])"
        self.alone = re.compile(f"{sounds}|{parts}{{2,3}}|{lasted}{sure}")
        self.long = frozenset(data["sounds"]).union(word[0] for word in data["elements"])
        self.short = 2 + max(map(len, data["compound"]))
        self.more = re.compile(rf"\s*[/、,，和及与]\s*{name}(?=[^{HAN}]|$)")
        self.role = re.compile(
            rf"\s{{0,2}}:\s{{0,2}}(?P<v>{veto}{family}[小{data['given']}]{{1,2}})(?![{HAN}])"
        )
        self.words = _words(data)
        """Words with the kind of person whom they mean as a cue, as a role, as a title."""
        self.asking = frozenset(data["asking"])
        self.titled = re.compile(any_of(data["titles"]))
        self.prepositions = frozenset(data["prepositions"])
        self.not_title = re.compile("[科室台]")
        self.before = re.compile(
            rf"(?<![主责住值管]){veto}(?P<v>{family}[{HAN}]{{0,2}}|{parts}{{1,2}})\Z"
        )
        self.compound = frozenset(data["compound"])
        self.dotted = re.compile(f"{sounds}\\Z")
        self.cell = re.compile(
            rf"(?<=[|【\t]){veto}\s?(?P<v>{family}[{data['given']}])(?=\s?[|】\t])"
        )
        twice = "|".join(f"{sign}{sign}" for sign in data["not_pet"])
        self.pet = re.compile(
            rf"(?:{any_of(data['children'])})(?:[叫是名:“\"]|小名|乳名){{0,2}}"
            rf"(?!{twice})(?P<v>([{HAN}])\2)(?!\2)"
        )
        self.person = re.compile(
            rf"[，,、;；（(/|\s]\s*(?:性别)?:?\s*(?:男|女|\d{{1,3}}\s?岁|(?:{any_of(data['kin'])})[)）])"
        )
        self.leads = tuple(data["leads"])
        self.cue_words = tuple({word for kind in data["cues"].values() for word in kind})

    def search(self, view: View) -> Iterator[Finding]:
        text = view.shown
        words = list(self.words.find(text, view.codes))
        for number, way in enumerate((self._cued, self._role, self._title)):
            for start, end, (kinds,) in words:
                if kinds[number]:
                    yield from way(text, start, end, kinds[number])
        for match in self.between.finditer(text):
            start, stop = match.span()
            long = stop - start >= LONGEST or text[start] not in self.long
            if long and stop - start > self.short:
                continue
            if self.alone.fullmatch(text, start, stop):
                yield Finding(start, stop, "name", "rule:zh/name-alone")
        for match in self.cell.finditer(text):
            yield Finding(match.start("v"), match.end("v"), "name", "rule:zh/name-cell")
        for match in self.pet.finditer(text):
            yield Finding(match.start("v"), match.end("v"), "relative", "rule:zh/name-pet")
        for match in self.person.finditer(text):
            at = match.start()
            for length in (2, 3, 4):
                if at > length and "\u4e00" <= text[at - length - 1] <= "\u9fff":
                    continue
                name = at >= length and self.before.match(text, at - length, at)
                if name and not self.titled.search(text, at - 2, at):
                    yield Finding(at - length, at, "name", "rule:zh/name-list")

    def _cued(self, text: str, start: int, end: int, kind: str) -> Iterator[Finding]:
        """Names behind a cue."""
        match = (
            (self.field.match(text, end) if text[start:end] in self.asking else None)
            or self.behind.match(text, end)
            or self.sure.match(text, end)
        )
        while match:
            yield Finding(match.start("v"), match.end("v"), kind, "rule:zh/name-cue")
            match = self.more.match(text, match.end("v")) if kind != "name" else None

    def _role(self, text: str, start: int, end: int, kind: str) -> Iterator[Finding]:
        """A name behind a role."""
        if match := self.role.match(text, end):
            yield Finding(match.start("v"), match.end("v"), kind, "rule:zh/name-role")

    def _title(self, text: str, start: int, end: int, kind: str) -> Iterator[Finding]:
        """A name before a title, or before what people do."""
        if not self.not_title.match(text, end):
            yield from self._before(text, start, kind)

    def again(self, view: View, found: Iterable[Finding]) -> list[Finding]:
        """Parts of names are too short here to be looked for alone."""
        return []

    def _before(self, text: str, at: int, kind: str) -> Iterator[Finding]:
        """A name before a title, or before what people do."""
        near = "·" in text[max(0, at - 9) : at]
        if near and (dotted := self.dotted.search(text, max(0, at - 17), at)):
            yield Finding(dotted.start(), at, kind, "rule:zh/name-title")
        for length in (1, 2, 3, 4):
            if kind == "relative" and length == 1:
                continue
            found = self.before.match(text, at - length, at) if at >= length else None
            led = at > 1 and "\u4e00" <= text[at - 2] <= "\u9fff"
            if length == 1 and text[at - 1] in (self.prepositions if led else "向从和让"):
                continue
            whole = length == 1 or text[at - length : at] in self.compound
            found = found if before_act(text, at - length, at + 1) > at else None
            if found and (whole or self._stands_alone(text, at - length)):
                yield Finding(at - length, at, kind, "rule:zh/name-title")

    def _stands_alone(self, text: str, start: int) -> bool:
        """Whether a name of several signs begins here: behind a sign, or a word that leads to a
        name."""
        return (
            start == 0
            or text[start - 1] in self.leads
            or not text[start - 1].isalpha()
            or text[:start].endswith(self.cue_words)
        )
