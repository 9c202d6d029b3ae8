"""Replacements of the same kind, gender, length class and language; the same for one patient in all
notes.

Everything is derived from a random secret of the patient (keyed BLAKE2b, RFC 7693), never from the
patient's data alone: without the secret nobody can tell which surrogate belongs to whom.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from datetime import date, timedelta
from functools import cache, cached_property, lru_cache
from hashlib import blake2b
from pathlib import Path
from typing import Any

from residency.core.types import Value
from residency.deid.addresses import address
from residency.deid.dates import DIGITS, DateMention, find_dates
from residency.deid.draws import Draw, by_persons
from residency.deid.find import Finding
from residency.deid.names.lists import PEOPLE, name_data
from residency.deid.persons import TITLE, Names, Told, sex_beside, tell
from residency.deid.view import View, narrow, plain

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


Row = tuple[tuple[str, str], ...]
"""(kind, value) of what the patient's row holds; kind ``sex`` too."""
SEX_FIELDS = frozenset({"sex", "gender", "gioi", "gioi tinh", "gioi_tinh", "性别"})


class Reading(Value, frozen=True):
    """What a note tells that its surrogates have to agree with."""

    names: Told = {}
    days: tuple[date, ...] = ()
    unmarked: bool = False
    """Written without Vietnamese marks."""


def row_of(identifiers: Row, fields: Mapping[str, str]) -> Row:
    """What a note's row tells of the patient: identifiers, and the sex where a column holds it."""
    return (*identifiers, *(("sex", v) for key, v in fields.items() if plain(key) in SEX_FIELDS))


@lru_cache(maxsize=64)  # the notes of a patient follow each other
def surrogates(secret: bytes, lang: str, taken: frozenset[str], row: Row = ()) -> Surrogates:
    """The surrogates of a patient."""
    return Surrogates(secret, lang, taken, row)


class Surrogates:
    """Draws the surrogates of one patient; ``taken`` are the ways to write the patient's own
    identifiers (plain, without separators), which no surrogate may hold."""

    def __init__(
        self, secret: bytes, lang: str, taken: frozenset[str] = frozenset(), row: Row = ()
    ) -> None:
        self.secret, self.lang = secret, lang if lang in ("vi", "zh", "en") else "en"
        self.taken, self.drawn, self.row = taken, dict[tuple[str, str], str](), row
        self.by_persons = by_persons(secret)

    @cached_property
    def names(self) -> Names:
        """The persons of the patient's notes."""
        said = next((_sex_of(value) for kind, value in self.row if kind == "sex"), "")
        ids = (id_sex(value) for kind, value in self.row if kind == "national_id")
        sex = said or next(filter(None, ids), "")
        row = [(v, sex if kind == "name" else "") for kind, v in self.row if kind in PEOPLE]
        return Names(self.secret, self.lang, self.taken, row)

    @cached_property
    def born(self) -> tuple[date, ...]:
        """The patient's birth, as the row has it."""
        found: list[date] = []
        for kind, value in self.row:
            if (
                kind == "birth_date"
                and ISO.match(value)
                and (day := _day(value[:10].replace("-", "")))
            ):
                found.append(day)
            elif kind == "birth_date":
                mentions = find_dates(value, self.lang)
                found += [one.value for one in mentions if one.value and one.precision == "day"]
        return tuple(found)

    def read(
        self, view: View, dates: Iterable[DateMention], findings: Iterable[Finding]
    ) -> Reading:
        """What a note and the row tell together."""
        if not self.by_persons:
            return Reading()
        text = view.shown
        names = [
            (text[one.start : one.end], sex_beside(text, one.start, one.end, self.lang))
            for one in findings
            if one.kind in PEOPLE
        ]
        told = tell(names, self.lang, self.names.told) if names else self.names.told
        days = tuple(one.value for one in dates if one.value and one.precision == "day")
        return Reading(told, self.born or days, self.lang == "vi" and view.unmarked)

    def at(self, view: View, finding: Finding, reading: Reading) -> str:
        """The surrogate of what was found in a note."""
        value = view.text[finding.start : finding.end]
        if not self.by_persons:
            return self.of(finding.kind, value)
        if finding.kind in PEOPLE:
            before = view.shown[max(0, finding.start - 12) : finding.start]
            titled = finding.kind == "clinician" or TITLE.search(before) is not None
            return self._person(value, reading, titled)
        if finding.kind == "national_id":  # agrees with the note's dates
            return self._first_free(finding.kind, value, reading)
        if (made := self.drawn.get((finding.kind, value))) is None:
            made = self._first_free(finding.kind, value, reading)
            self.drawn[finding.kind, value] = made
        return made

    def _person(self, value: str, reading: Reading, titled: bool) -> str:
        names = self.names
        for attempt in range(1, 20):
            made = names.of(value, reading.names, titled, reading.unmarked)
            if plain(made) != plain(value) and self.taken.isdisjoint(_words(made)):
                return made
            other = self.secret + bytes([attempt])
            names = Names(other, self.lang, self.taken, self.names.row)
        return self._first_free("other", value) if any(map(str.isalpha, value)) else value

    @cached_property
    def weeks(self) -> int:
        """By how many weeks the patient's dates move back."""
        return LEAST_WEEKS + self._number("shift") % (MOST_WEEKS - LEAST_WEEKS + 1)

    def shift(self, day: date) -> date:
        """A date moved by the patient's own number of weeks: intervals and weekdays stay."""
        return day - timedelta(weeks=self.weeks)

    def of(self, kind: str, value: str) -> str:
        """The surrogate of a value by itself, as patients of earlier vaults have it: the same for
        the same value however it is written."""
        if (made := self.drawn.get((kind, value))) is None:
            made = self.drawn[kind, value] = self._first_free(kind, value)
        return made

    def _first_free(self, kind: str, value: str, reading: Reading | None = None) -> str:
        key = JOINTS.sub("", folded := plain(value))
        for attempt in range(50 if reading is None else 8):
            if reading is None:
                made = self._drawn(kind, value, Draw(self.secret, f"{kind}/{key}/{attempt}"))
            else:
                made = self._agreeing(kind, value, reading, f"{key}/{attempt}")
            if plain(made) != folded and self.taken.isdisjoint(_words(made)):
                return made
        return f"[{kind}]"

    def _number(self, what: str) -> int:
        drawn = blake2b(what.encode(), key=self.secret, digest_size=8)
        return int.from_bytes(drawn.digest(), "big")

    def _drawn(self, kind: str, value: str, rng: Draw) -> str:
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

    def _agreeing(self, kind: str, value: str, reading: Reading, key: str) -> str:
        """A surrogate that agrees with the patient's others, whatever kind the note takes it
        for."""
        attempt = key.rpartition("/")[2]
        if kind == "address":
            return address(value, self.lang, self.secret, attempt)
        if kind == "phone":
            return self._phone(value, attempt)
        if kind == "national_id" and (made := self._identity(value, reading, attempt)):
            return made
        if kind in CODES:
            return self._code(value, key)
        return self._drawn(kind, value, Draw(self.secret, f"{kind}/{key}"))

    def _code(self, value: str, key: str) -> str:
        digits = _digits(value)
        if len(digits) == len(key.rpartition("/")[0]) < 7:  # the last ones of a longer one
            for kind, other in self.row:
                whole = _digits(other)
                if kind in CODES and len(whole) > len(digits) and whole.endswith(digits):
                    made = self._agreeing(kind, other, Reading(days=self.born), _key(other) + "/0")
                    return _filled(value, _digits(made)[-len(digits) :])
        return _like(value, Draw(self.secret, f"code/{key}"), "")

    def _phone(self, value: str, attempt: str) -> str:
        """Other digits for a subscriber's; country code and trunk prefix stay, and what tells a
        mobile phone."""
        if sum(map(str.isdecimal, value)) > sum(map(str.isalpha, value)):
            value = value.translate(MISREAD)
        head = EXTENSION.split(narrow(value), maxsplit=1)[0]
        digits = _digits(head)
        code = re.match(r"00(?:84|86|1|\d\d)|(?:84|86)(?=\d{9,11}$)", digits)
        if code is None and self.lang == "en":
            code = re.match(r"1(?=[2-9]\d{9}$)", digits)
        if code is None and head.lstrip(" (").startswith("+"):
            code = re.match("84|86|1|\\d\\d", digits)
        own = digits[code.end() if code else 0 :].lstrip("0")
        rng = Draw(self.secret, f"phone/{own}/{attempt}")
        kept = 2 if re.fullmatch(r"1[3-9]\d{9}", own) else 1 if self.lang == "vi" else 0
        drawn = own[:1] if kept else str(2 + rng.below(8)) if own else ""
        if kept == 2:
            drawn += str(3 + rng.below(7))
        drawn += "".join(str(rng.below(10)) for _ in own[len(drawn) :])
        if self.lang == "en" and len(own) == 10:
            drawn = f"{drawn[:3]}{2 + int(drawn[3]) % 8}{drawn[4:]}"
        more = _digits(narrow(value)[len(head) :])
        tail = "".join(str(rng.below(10)) for _ in more)
        return _filled(value, digits[: len(digits) - len(own)] + drawn[: len(own)] + tail)

    def _identity(self, value: str, reading: Reading, attempt: str) -> str:
        """A Chinese or Vietnamese identity number whose birth date is the shifted one and whose sex
        is that of the original; its place is none that is assigned. Nothing for another number."""
        signs = JOINTS.sub("", narrow(value)).upper()
        rng = Draw(self.secret, f"identity/{signs}/{attempt}")
        if re.fullmatch(r"[1-9]\d{16}[\dX]", signs) and (born := _day(signs[6:14])):
            new = self.shift(born)
            serial = rng.below(500) * 2 + int(signs[16]) % 2
            body = f"{11 + rng.below(5)}99{10 + rng.below(90)}{new:%Y%m%d}{serial:03d}"
            weighed = sum(int(digit) * (1 << 17 - at) for at, digit in enumerate(body))
            return _filled(value, body + "0123456789X"[(12 - weighed) % 11])  # ISO 7064, mod 11-2
        if re.fullmatch(r"[1-9]\d{14}", signs) and (born := _day("19" + signs[6:12])):
            serial = rng.below(500) * 2 + int(signs[14]) % 2
            body = f"{11 + rng.below(5)}99{10 + rng.below(90)}{self.shift(born):%y%m%d}{serial:03d}"
            return _filled(value, body)
        if re.fullmatch(r"0\d\d[0-3]\d{8}", signs):
            century, male = int(signs[3]) // 2, int(signs[3]) % 2 == 0
            year = 1900 + 100 * century + int(signs[4:6])
            near = [day for day in reading.days if day.year == year]
            new = self.shift(min(near, default=date(year, 7, 1)))
            sex = 2 * (new.year // 100 - 19) + (not male)
            return _filled(value, f"0{97 + rng.below(3)}{sex}{new:%y}{rng.below(10**6):06d}")
        return ""

    # Names

    def _name(self, value: str, rng: Draw) -> str:
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

    def _chinese(self, value: str, rng: Draw) -> str:
        data = name_data("zh")
        bare = "".join(value.split())
        family: str = rng.choice(data["families"][:60])
        if len(bare) == 1:
            return family
        sex = "female" if self._number("gender/" + bare) % 2 else "male"
        length = min(len(bare) - 1, 2)
        return family + str(rng.choice([name for name in data[sex] if len(name) == length]))

    # Places

    def _organisation(self, value: str, rng: Draw) -> str:
        data, folded = _data()[self.lang], plain(value)
        ends = next((word for word in data["endings"] if folded.endswith(plain(word))), "")
        ending = value[len(value) - len(ends) :] if ends else ""
        blank = " " if self.lang == "en" and ends else ""
        return f"{rng.choice(data['organisations'])}{blank}{ending}"

    def _address(self, value: str, rng: Draw) -> str:
        data, number = _data()[self.lang], 1 + rng.below(299)
        street, place = rng.choice(data["streets"]), rng.choice(data["places"])
        long = len(value) > (12 if self.lang == "zh" else 30)
        if not any(sign.isdigit() for sign in value):
            return str(place)
        if self.lang == "zh":
            return f"{place if long else ''}{street}{number}号"
        return f"{number} {street}, {place}" if long else f"{number} {street}"


def _vietnamese(parts: Sequence[str], female: bool, data: Any, rng: Draw) -> list[str]:
    """A name of as many words: family, middle names, given name."""
    given = rng.choice(data["female" if female else "male"])
    if len(parts) == 1:
        return [given]
    thi = female and len(parts) == 3 and plain(parts[1]) == "thi"
    middle = "Thị" if thi else rng.choice(data["middles"])
    family = rng.choice(data["families"][:30])
    middles = [middle, *(rng.choice(data["middles"]) for _ in parts[3:])]
    return [family, *(middles if len(parts) > 2 else []), given]


def _english(parts: Sequence[str], female: bool, data: Any, rng: Draw) -> list[str]:
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


CODES = frozenset(
    {"record", "admission", "national_id", "insurance", "phone", "account", "plate", "other"}
)
ISO = re.compile(r"\d{4}-\d\d-\d\d")
MISREAD = str.maketrans("OoIl", "0011")
"""Letters that were read in the place of digits."""
EXTENSION = re.compile(r"\s*(?:x|ext\.?|转|máy lẻ|nội bộ)\s*(?=\d)", re.I)


def _key(value: str) -> str:
    return JOINTS.sub("", plain(value))


def _digits(value: str) -> str:
    return "".join(filter(str.isdecimal, narrow(value)))


def _filled(value: str, new: str) -> str:
    """A value with other digits (and X, the check sign) in the places of its own, in their
    width."""
    drawn, made = iter(new), ""
    for sign, plainly in zip(value, narrow(value), strict=True):
        digit = plainly.isdecimal() or (plainly in "xX" and len(new) == 18)
        one = next(drawn, plainly) if digit else sign
        made += one if sign.isascii() or one == sign else chr(ord(one) + 0xFEE0)
    return made


def _day(digits: str) -> date | None:
    try:
        return date(int(digits[:4]), int(digits[4:6]), int(digits[6:]))
    except ValueError:
        return None


def _sex_of(value: str) -> str:
    """The sex that a column says."""
    first = plain(value.strip())
    if first in ("1", "2"):  # GB/T 2261.1, ISO/IEC 5218
        return "male" if first == "1" else "female"
    if first.startswith(("f", "w", "nu", "女")):
        return "female"
    return "male" if first.startswith(("m", "nam", "男")) else ""


def id_sex(value: str) -> str:
    """The sex that a Chinese or Vietnamese identity number tells; nothing of another."""
    signs = JOINTS.sub("", narrow(value)).upper()
    if re.fullmatch(r"[1-9]\d{16}[\dX]", signs):
        return "male" if int(signs[16]) % 2 else "female"
    if re.fullmatch(r"0\d\d[0-3]\d{8}", signs):
        return "female" if int(signs[3]) % 2 else "male"
    return ""


PARTS = frozenset(" -./()+_")
"""Signs that stay, the most frequent ones."""


def _like(value: str, rng: Draw, kind: str) -> str:
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
        elif sign in DIGITS:
            new = DIGITS[rng.below(10)]
        elif sign.isalpha() and plainly.isascii():
            letter = "ABCDEFGHJKLMNPRSTUVWXYZ"[rng.below(23)]
            new = letter if sign.isupper() else letter.lower()
        made.append(new)
    return "".join(made)


JOINTS, PIECES = re.compile(r"[\W_]+"), re.compile(r"[^\W\d_]+|\d+")


def _words(value: str) -> list[str]:
    """Every run of words and numbers of a surrogate, joined (``LE7457`` holds ``le``); of one in
    Chinese, every run of signs."""
    parts = PIECES.findall(plain(value))
    if any("\u3400" <= sign < "\ua000" for sign in value):
        parts = [*"".join(parts)]
    if len(parts) == 1:
        return parts
    return ["".join(parts[i:j]) for i in range(len(parts)) for j in range(i + 1, len(parts) + 1)]


def _unmarked(text: str) -> str:
    """Without Vietnamese marks, case kept."""
    pairs = zip(text, plain(text), strict=True)
    return "".join(low.upper() if sign.isupper() else low for sign, low in pairs)
