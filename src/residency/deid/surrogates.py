"""Replacements of the same kind, gender, length class and language; the same for one patient in all
notes.

Everything is derived from a random secret of the patient (keyed BLAKE2b, RFC 7693), never from the
patient's data alone: without the secret nobody can tell which surrogate belongs to whom.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from datetime import date, timedelta
from functools import cache, cached_property, lru_cache
from hashlib import blake2b
from pathlib import Path
from typing import Any, TypeVar

from residency.deid.names.lists import name_data
from residency.deid.view import narrow, plain

LEAST_WEEKS, MOST_WEEKS = 4, 520
"""Dates move back by so many weeks: at least a month, so that no day stays nearly where it was; at
most ten years, so that ages and treatments still fit their time. Back, so that no note is dated in
the future."""


@cache
def _data() -> Any:
    import yaml

    return yaml.safe_load((Path(__file__).parent / "data/surrogates.yaml").read_text("utf-8"))


@cache
def _genders(lang: str) -> tuple[frozenset[str], frozenset[str]]:
    """Plain given names of women, and of men."""
    data = name_data(lang)
    return frozenset(map(plain, data["female"])), frozenset(map(plain, data["male"]))


Item = TypeVar("Item")


ENOUGH = 1 << 96


class _Draw:
    """Choices that a secret and a text decide: the same in every process, and nothing without the
    secret."""

    def __init__(self, secret: bytes, what: str) -> None:
        self.secret, self.what, self.block, self.left = secret, what.encode(), 0, 0

    def below(self, limit: int) -> int:
        """A whole number from 0, less than ``limit``: the digits of a random number of 512 bits,
        drawn anew before it runs out."""
        if self.left < ENOUGH:
            block = blake2b(self.what + b"/%d" % self.block, key=self.secret, digest_size=64)
            self.left, self.block = int.from_bytes(block.digest(), "big"), self.block + 1
        self.left, number = divmod(self.left, limit)
        return number

    def choice(self, items: Sequence[Item]) -> Item:
        """One of several."""
        return items[self.below(len(items))]


@lru_cache(maxsize=64)  # the notes of a patient follow each other
def surrogates(secret: bytes, lang: str, taken: frozenset[str]) -> Surrogates:
    """The surrogates of a patient."""
    return Surrogates(secret, lang, taken)


class Surrogates:
    """Draws the surrogates of one patient; ``taken`` are the ways to write the patient's own
    identifiers (plain, without separators), which no surrogate may hold."""

    def __init__(self, secret: bytes, lang: str, taken: frozenset[str] = frozenset()) -> None:
        self.secret, self.lang = secret, lang if lang in ("vi", "zh", "en") else "en"
        self.taken, self.drawn = taken, dict[tuple[str, str], str]()

    @cached_property
    def weeks(self) -> int:
        """By how many weeks the patient's dates move back."""
        return LEAST_WEEKS + self._number("shift") % (MOST_WEEKS - LEAST_WEEKS + 1)

    def shift(self, day: date) -> date:
        """A date moved by the patient's own number of weeks: intervals and weekdays stay."""
        return day - timedelta(weeks=self.weeks)

    def of(self, kind: str, value: str) -> str:
        """The surrogate of a value: the same for the same value however it is written."""
        if (made := self.drawn.get((kind, value))) is None:
            made = self.drawn[kind, value] = self._first_free(kind, value)
        return made

    def _first_free(self, kind: str, value: str) -> str:
        key = JOINTS.sub("", folded := plain(value))
        for attempt in range(50):
            made = self._drawn(kind, value, _Draw(self.secret, f"{kind}/{key}/{attempt}"))
            if plain(made) != folded and self.taken.isdisjoint(_words(made)):
                return made
        return f"[{kind}]"

    def _number(self, what: str) -> int:
        drawn = blake2b(what.encode(), key=self.secret, digest_size=8)
        return int.from_bytes(drawn.digest(), "big")

    def _drawn(self, kind: str, value: str, rng: _Draw) -> str:
        if kind in ("name", "relative", "clinician"):
            return self._name(value, rng)
        if kind == "organisation":
            return self._organisation(value, rng)
        if kind == "address":
            return self._address(value, rng)
        if kind == "email":
            login = "".join(rng.choice("abcdefghijkmnpqrstuvwxyz") for _ in range(7))
            return f"{login}{10 + rng.below(90)}@example.org"
        if kind == "url":
            return f"https://example.org/{rng.below(16**6):06x}"
        return _like(value, rng, kind)

    # Names

    def _name(self, value: str, rng: _Draw) -> str:
        if any(sign >= "\u4e00" for sign in value):
            return self._chinese(value, rng)
        data, parts = name_data("vi" if self.lang == "vi" else "en"), value.split()
        short = len(parts) == 1 and "." in value.strip(".")
        if short or all(len(part.strip(".,")) <= 1 for part in parts):  # initials
            return "".join(
                rng.choice("ABCDGHKLMNPQSTV") if sign.isalpha() else sign for sign in value
            )
        female = self._female(value, parts, data)
        write = _vietnamese if self.lang == "vi" else _english
        text = " ".join(write(parts, female, data, rng))
        if self.lang == "vi" and plain(value) == value.lower():
            text = _unmarked(text)
        if value.isupper() and len(value) > 1:
            return text.upper()
        return text.lower() if value.islower() else text

    def _female(self, value: str, parts: Sequence[str], data: Any) -> bool:
        words = {plain(part.strip(".,")) for part in parts}
        if "thi" in words:
            return True
        female, male = _genders("vi" if self.lang == "vi" else "en")
        last = plain(parts[-1].strip(".,")) if self.lang == "vi" else plain(parts[0].strip(".,"))
        if (last in female) != (last in male):
            return last in female
        return bool(self._number("gender/" + "".join(sorted(words))) % 2)

    def _chinese(self, value: str, rng: _Draw) -> str:
        data = name_data("zh")
        bare = "".join(value.split())
        family: str = rng.choice(data["families"][:60])
        if len(bare) == 1:
            return family
        sex = "female" if self._number("gender/" + bare) % 2 else "male"
        length = min(len(bare) - 1, 2)
        return family + str(rng.choice([name for name in data[sex] if len(name) == length]))

    # Places

    def _organisation(self, value: str, rng: _Draw) -> str:
        data, folded = _data()[self.lang], plain(value)
        ends = next((word for word in data["endings"] if folded.endswith(plain(word))), "")
        ending = value[len(value) - len(ends) :] if ends else ""
        blank = " " if self.lang == "en" and ends else ""
        return f"{rng.choice(data['organisations'])}{blank}{ending}"

    def _address(self, value: str, rng: _Draw) -> str:
        data, number = _data()[self.lang], 1 + rng.below(299)
        street, place = rng.choice(data["streets"]), rng.choice(data["places"])
        long = len(value) > (12 if self.lang == "zh" else 30)
        if not any(sign.isdigit() for sign in value):
            return str(place)
        if self.lang == "zh":
            return f"{place if long else ''}{street}{number}号"
        return f"{number} {street}, {place}" if long else f"{number} {street}"


def _vietnamese(parts: Sequence[str], female: bool, data: Any, rng: _Draw) -> list[str]:
    """A name of as many words: family, middle names, given name."""
    given = rng.choice(data["female" if female else "male"])
    if len(parts) == 1:
        return [given]
    thi = female and len(parts) == 3 and plain(parts[1]) == "thi"
    middle = "Thị" if thi else rng.choice(data["middles"])
    family = rng.choice(data["families"][:30])
    middles = [middle, *(rng.choice(data["middles"]) for _ in parts[3:])]
    return [family, *(middles if len(parts) > 2 else []), given]


def _english(parts: Sequence[str], female: bool, data: Any, rng: _Draw) -> list[str]:
    """A name of the same form: given first or family first, initials as such."""
    given, family = rng.choice(data["female" if female else "male"]), rng.choice(data["families"])
    if len(parts) == 1:
        return [family if parts[0].strip(",.").title() in data["families"] else given]
    if parts[0].endswith(","):
        return [f"{family},", given, *(f"{rng.choice('ABCDEJKLMR')}." for _ in parts[2:])]
    middles = (
        f"{rng.choice('ABCDEJKLMR')}." if len(part.strip(".")) == 1 else rng.choice(data["male"])
        for part in parts[1:-1]
    )
    return [given, *middles, family]


PARTS = frozenset(" -./()+_")
"""Signs that stay, the most frequent ones."""


def _like(value: str, rng: _Draw, kind: str) -> str:
    """Digits for digits and letters for letters; what tells the kind (leading 0 or +, the mark of a
    phone) stays."""
    shown = narrow(value)
    kept = 2 if kind == "phone" and shown.lstrip("(+ ").startswith(("0", "1", "8")) else 0
    count = sum(map(str.isdigit, shown))
    digits = iter(f"{rng.below(10**count):0{count}d}" if count else "")
    made = []
    for sign, plainly in zip(value, shown, strict=True):
        new = sign
        if plainly in PARTS:
            pass
        elif plainly.isdigit():
            digit, kept = next(digits), kept - 1
            if kept < 0:
                new = digit if sign.isascii() else chr(ord(digit) + 0xFEE0)
        elif sign.isalpha() and plainly.isascii():
            letter = "ABCDEFGHJKLMNPRSTUVWXYZ"[rng.below(23)]
            new = letter if sign.isupper() else letter.lower()
        made.append(new)
    return "".join(made)


JOINTS = re.compile(r"[\W_]+")


def _words(value: str) -> list[str]:
    """Every run of words of a surrogate, joined; of one in Chinese, every run of signs."""
    parts = [part for part in JOINTS.split(plain(value)) if part]
    if any("\u3400" <= sign < "\ua000" for sign in value):
        parts = [*"".join(parts)]
    if len(parts) == 1:
        return parts
    return ["".join(parts[i:j]) for i in range(len(parts)) for j in range(i + 1, len(parts) + 1)]


def _unmarked(text: str) -> str:
    """Without Vietnamese marks, case kept."""
    pairs = zip(text, plain(text), strict=True)
    return "".join(low.upper() if sign.isupper() else low for sign, low in pairs)
