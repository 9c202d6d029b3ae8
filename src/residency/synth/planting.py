"""Templates filled with identifiers and clinical words, the place of each kept.

In a template ``{slot}`` is an identifier or a plain text, ``{slot:form}`` the same in a form (see
``IdentifierSlots``), and ``[[drug:metformin 500 mg]]`` words with a label of
``clinical_notes.LABELS``. In a value, what stands before ``^`` is written and is no part of the
identifier: "ngày ^12/3/2024".
"""

from __future__ import annotations

import random
import re
from collections.abc import Callable, Mapping, Sequence
from datetime import date, timedelta
from itertools import pairwise
from typing import Any
from unicodedata import normalize

import msgspec

from residency.core.types import Span, Value
from residency.synth.people import Person, address, masked, national_id, parts, person_name, phone

PIECES = re.compile(r"(\[\[\w+:|\]\]|\{[^{}]+\})")
PEOPLE = dict.fromkeys(("doctor", "colleague", "nurse"), "clinician") | {"other": "relative"}
KINDS = {
    "relative_phone": "phone",
    "outside_phone": "phone",
    "other_national_id": "national_id",
    "other_address": "address",
    "old": "age",
    "age": "",
    "sex": "",
}
"""Slot -> kind of identifier where the two differ; empty for a plain text."""
KNOWN = ("phone", "relative_phone", "national_id", "insurance", "record", "address")
"""Slots of what the row holds of the patient."""
CUTS = {15: (2, 3, 5), 12: (3, 6, 9), 10: (3, 6), 18: (6, 14)}
"""Length of a number -> where people part it with blanks."""


class PlantedIdentifier(Value, frozen=True):
    """``text[start:end]`` identifies somebody; ``known``: the row's identifiers hold it."""

    start: int
    end: int
    kind: str
    known: bool


def bare(text: str) -> str:
    """Vietnamese as it is typed without its marks; of the same length where the text is in NFC."""
    letters = "".join(sign for sign in normalize("NFD", text) if not 0x300 <= ord(sign) < 0x370)
    return letters.replace("đ", "d").replace("Đ", "D")


def wide(text: str) -> str:
    """ASCII letters and digits in full width, as a Chinese keyboard types them."""
    return "".join(
        chr(ord(sign) + 0xFEE0) if sign.isascii() and sign.isalnum() else sign for sign in text
    )


STYLES: dict[str, Callable[[str], str]] = {"upper": str.upper, "lower": str.lower}
STYLES |= {"bare": bare, "wide": wide}
"""Ways to type a whole line; each keeps its length."""


class IdentifiedText:
    """Text that grows with the marks and labelled spans in it."""

    def __init__(self) -> None:
        self.parts: list[str] = []
        self.length = 0
        self.marks: list[PlantedIdentifier] = []
        self.spans: list[Span] = []

    def add(self, text: str) -> None:
        """Plain text."""
        self.parts.append(text)
        self.length += len(text)

    def mark(self, text: str, kind: str, known: bool) -> None:
        """An identifier."""
        self.marks.append(PlantedIdentifier(self.length, self.length + len(text), kind, known))
        self.add(text)

    def clinical(self, text: str, spans: Sequence[Span], offset: int) -> None:
        """A line of a record, with those of its spans that lie in it."""
        by = self.length - offset
        for span in spans:
            if offset <= span.start and span.end <= offset + len(text):
                moved = {"start": span.start + by, "end": span.end + by}
                self.spans.append(msgspec.structs.replace(span, **moved))
        self.add(text)

    def end_line(self) -> None:
        """Begin a new line, unless one has just begun."""
        if self.parts and not self.parts[-1].endswith("\n"):
            self.add("\n")

    def fill_line(self, template: str, slots: IdentifierSlots) -> None:
        """A template on a line of its own."""
        self.fill(template, slots)
        self.add("\n")

    def fill(self, template: str, slots: IdentifierSlots) -> None:
        """A template, typed in one of the world's styles."""
        style = slots.style()
        opened: tuple[int, str] | None = None
        for piece in PIECES.split(template):
            if piece.startswith("[["):
                opened = (self.length, piece[2:-1])
            elif piece == "]]" and opened:
                self.spans.append(Span(start=opened[0], end=self.length, label=opened[1]))
                opened = None
            elif not (piece.startswith("{") and piece.endswith("}")):
                self.add(style(piece))
            elif isinstance(found := slots.value(piece[1:-1]), str):
                self.add(style(found))
            else:
                before, _, text = found[0].rpartition("^")
                self.add(style(before))
                self.mark(style(text), *found[1:])


class IdentifierSlots:
    """What the slots of templates say, in the many forms in which people write it.

    Slots of a world's own stand under its key ``slots``: ``kind`` (empty: no identifier) and
    ``values``, masks as ``masked`` has them. Forms: of people ``given``, ``family``, ``comma``,
    ``initial``, of others ``male``, ``female``; of dates the world's list ``dates_FORM``; of any
    text ``upper``, ``lower``, ``bare``, ``wide``, ``broken`` (over two lines) and ``spaced``.
    ``{n:5-90}`` is a whole number, ``{f:5-90}`` one with a decimal.
    """

    def __init__(
        self, data: Mapping[str, Any], lang: str, rng: random.Random, person: Person, when: date
    ) -> None:
        self.data, self.lang, self.rng, self.person, self.when = data, lang, rng, person, when
        self.doctor = person_name(data, lang, rng, rng.choice(("male", "female")))

    def style(self) -> Callable[[str], str]:
        """How a line is typed: mostly as it stands."""
        styles = self.data.get("styles", {})
        chance = self.rng.random() if styles else 1.0
        for name, share in styles.items():
            chance -= share
            if chance < 0:
                return STYLES[name]
        return str

    def value(self, slot: str) -> tuple[str, str, bool] | str:
        """(text, kind, known) of an identifier, or a plain text. Raises ``KeyError`` for an unknown
        slot."""
        slot, _, form = slot.partition(":")
        if slot in ("n", "f"):
            low, high = map(int, form.split("-"))
            whole = self.rng.randint(low, high)
            return str(whole) if slot == "n" else f"{whole}.{self.rng.randint(0, 9)}"
        if slot in ("birth", "date", "today"):
            day = self.person.born if slot == "birth" else self.when
            if slot == "date":
                day -= timedelta(days=self.rng.randint(0, 400))
            kind = "birth_date" if slot == "birth" else "date"
            return self.date(day, form), kind, slot == "birth"
        if slot in PEOPLE or slot in ("name", "relative", "given"):
            return self._person(slot, form)
        if own := self.data.get("slots", {}).get(slot):
            text, kind = masked(self.rng.choice(own["values"]), self.rng), own["kind"]
        else:
            text, kind = self._text(slot), KINDS.get(slot, slot)
        return (self._formed(text, form), kind, slot in KNOWN) if kind else text

    def _person(self, slot: str, form: str) -> tuple[str, str, bool]:
        values, lang = self.person.values, self.lang
        if slot == "given":
            name = values["name"] if lang == "zh" else parts(values["name"], lang)[1]
            return name, "name", True
        if slot == "name":
            text = self._called(values["name"], form) if form else self._written(values["name"])
            return text, "name", True
        if slot == "relative":
            return self._called(values["relative_name"], form), "relative", True
        if slot == "doctor":
            return self._called(self.doctor, form), "clinician", False
        sex = form if form in ("male", "female") else self.rng.choice(("male", "female"))
        name = person_name(self.data, lang, self.rng, sex)
        return self._called(name, "" if form == sex else form), PEOPLE[slot], False

    def _text(self, slot: str) -> str:
        """What a slot that is no person and no date says."""
        rng, person, data = self.rng, self.person, self.data
        match slot:
            case "phone" | "relative_phone":
                return self._parted(person.values[slot])
            case "outside_phone":
                return self._parted(phone(self.lang, rng))
            case "national_id" | "insurance" | "record" | "address":
                return person.values[slot]
            case "other_national_id":
                born = person.born - timedelta(days=rng.randint(-9000, 9000))
                return national_id(self.lang, rng, rng.choice(("male", "female")), born)
            case "other_address":
                return address(data, rng)
            case "admission":
                return f"{rng.choice(data['admissions'])}{rng.randint(10_000, 999_999)}"
            case "organisation":
                return str(rng.choice(data["organisations"]))
            case "email":
                domains = data.get("domains", ("example.com", "example.net"))
                return f"{rng.choice(data['logins'])}{rng.randint(1, 99)}@{rng.choice(domains)}"
            case "old":
                return str(rng.randint(90, 104))
            case "age":
                return str((self.when - person.born).days // 365)
            case "sex":
                return str(data["sexes"][person.sex])
        raise KeyError(slot)

    def _called(self, name: str, form: str) -> str:
        family, given = parts(name, self.lang)
        if form == "family":
            return family
        if form == "given":
            return given
        if form == "comma":
            return f"{family}, {name.removesuffix(family).strip()}"
        if form == "initial":
            return f"{given[0]}. {family}"
        return self._formed(name, form)

    def _formed(self, text: str, form: str) -> str:
        if form in STYLES:
            return STYLES[form](text)
        if form == "broken":
            blank = text.find(" ", len(text) // 3)
            cut = blank if blank > 0 else max(1, len(text) // 3)
            return f"{text[:cut]}\n{text[cut:].lstrip()}"
        if form == "spaced" and any(sign.isdigit() for sign in text):
            cuts = (0, *CUTS.get(len(text), range(4, len(text), 4)), len(text))
            return " ".join(text[a:b] for a, b in pairwise(cuts))
        if form == "spaced":
            return " ".join(text)
        if form:
            raise KeyError(form)
        return text

    def _written(self, name: str) -> str:
        chance = self.rng.random()
        if self.lang == "zh":
            return name
        if chance < 0.25:
            return name.upper()
        if chance < 0.3 and self.lang == "en":
            first, _, last = name.rpartition(" ")
            return f"{last}, {first}"
        return name

    def _parted(self, number: str) -> str:
        if masks := self.data.get("phone_masks"):
            digits = iter("".join(filter(str.isdigit, number))[1 if self.lang == "vi" else 0 :])
            return "".join(next(digits) if sign == "#" else sign for sign in self.rng.choice(masks))
        if self.lang == "en" or self.rng.random() < 0.5:
            return number
        sign = self.rng.choice(" .-" if self.lang == "vi" else " -")
        cuts = (4, 7) if self.lang == "vi" else (3, 7)
        return sign.join((number[: cuts[0]], number[cuts[0] : cuts[1]], number[cuts[1] :]))

    def date(self, day: date, form: str = "") -> str:
        """A date in one of the world's forms."""
        months = self.data.get("months", [""] * 12)
        ordinals = {} if day.day in (11, 12, 13) else {1: "st", 2: "nd", 3: "rd"}
        return str(self.rng.choice(self.data[f"dates_{form}" if form else "dates"])).format(
            d=day.day,
            m=day.month,
            y=day.year,
            yy=day.year % 100,
            M=months[day.month - 1],
            Mon=months[day.month - 1][:3],
            cy="".join("〇一二三四五六七八九"[int(s)] for s in str(day.year)),
            cm=_in_chinese(day.month),
            cd=_in_chinese(day.day),
            th=ordinals.get(day.day % 10, "th"),
        )


def _in_chinese(number: int) -> str:
    tens, ones = (" 一二三四五六七八九"[int(digit)].strip() for digit in f"{number:02d}")
    return f"{tens if number > 19 else ''}{'十' if number > 9 else ''}{ones}"
