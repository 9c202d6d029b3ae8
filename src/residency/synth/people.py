"""Invented people of an invented hospital: names, numbers and addresses as a hospital's database
holds them."""

from __future__ import annotations

import random
from collections.abc import Mapping
from datetime import date, timedelta
from typing import Any

from residency.core.types import Value

NOW = date(2024, 6, 30)
COMPOUND = ("欧阳", "上官", "司马", "诸葛", "皇甫", "尉迟", "慕容", "夏侯")
"""Chinese family names of two signs."""
OWN = ("name", "national_id", "insurance", "phone", "address", "record")
COLUMNS = {kind: kind for kind in OWN} | {"relative_name": "relative", "relative_phone": "phone"}
"""Column of a patient's row -> kind of identifier."""


class Person(Value, frozen=True):
    """An invented patient as the database holds one."""

    id: str
    sex: str
    born: date
    values: dict[str, str]
    """Slot -> value: name, national_id, insurance, phone, address, record, relative, relative_phone
    ..."""

    @property
    def identifiers(self) -> tuple[tuple[str, str], ...]:
        """(kind, value) of the columns."""
        found = [(kind, self.values[column]) for column, kind in COLUMNS.items()]
        return (*found, ("birth_date", self.born.isoformat()))


def draw(data: Mapping[str, Any], lang: str, rng: random.Random, id: str) -> Person:
    """An invented patient."""
    sex = rng.choice(("male", "female"))
    born = NOW - timedelta(days=rng.randint(20 * 365, 88 * 365))
    values = {
        "name": person_name(data, lang, rng, sex),
        "relative_name": person_name(data, lang, rng, rng.choice(("male", "female"))),
        "phone": phone(lang, rng),
        "relative_phone": phone(lang, rng),
        "national_id": national_id(lang, rng, sex, born),
    }
    masks = data.get("insurances")
    values["insurance"] = masked(rng.choice(masks), rng) if masks else insurance(lang, rng)
    record = rng.choice(data["records"])
    values["record"] = record.format(n=rng.randint(100_000, 9_999_999), y=rng.randint(15, 24))
    values["address"] = address(data, rng)
    return Person(id=id, sex=sex, born=born, values=values)


def person_name(data: Mapping[str, Any], lang: str, rng: random.Random, sex: str) -> str:
    """A name of the world's lists: family and given names put together, now and then one that is
    listed whole."""
    if "full_names" in data and rng.random() < 0.06:
        return str(rng.choice(data["full_names"][sex]))
    family, given = rng.choice(data["families"]), rng.choice(data[sex])
    if lang == "zh":
        return f"{family}{given}"
    if lang == "en":
        middle = f" {rng.choice('ABCDEJKLMR')}." if rng.random() < 0.2 else ""
        return f"{given}{middle} {family}"
    if sex == "female" and "female_middles" in data:
        return f"{family} {rng.choice(data['female_middles'])} {given}"
    thi = sex == "female" and rng.random() < 0.5
    return f"{family} {'Thị' if thi else rng.choice(data['middles'])} {given}"


def parts(name: str, lang: str) -> tuple[str, str]:
    """(family, given) of a name; for Vietnamese the given name is the last word and the family name
    the first."""
    if lang == "zh":
        cut = 2 if len(name) == 4 or name.startswith(COMPOUND) else 1
        cut = name.find("·") if "·" in name else cut
        return name[:cut], name[cut:].lstrip("·")
    words = name.split()
    return (words[0], words[-1]) if lang == "vi" else (words[-1], words[0])


def phone(lang: str, rng: random.Random) -> str:
    """A number of the country's plan, written plainly."""
    if lang == "vi":
        return rng.choice(("09", "03", "07", "08")) + f"{rng.randint(10_000_000, 99_999_999)}"
    if lang == "zh":
        return f"1{rng.choice('3578')}{rng.randint(100_000_000, 999_999_999)}"
    return f"({rng.randint(201, 989)}) 555-{rng.randint(100, 9999):04d}"


def national_id(lang: str, rng: random.Random, sex: str, born: date) -> str:
    """CCCD, Chinese identity number with its checksum, or SSN."""
    if lang == "vi":
        century = {19: 0, 20: 2}[born.year // 100] + (sex == "female")
        return (
            f"{rng.randint(1, 96):03d}{century}{born.year % 100:02d}{rng.randint(0, 999_999):06d}"
        )
    if lang == "zh":
        place = f"{rng.randint(11, 65)}{rng.randint(1, 20):02d}{rng.randint(1, 30):02d}"
        body = f"{place}{born:%Y%m%d}{rng.randint(0, 999):03d}"
        weights = (7, 9, 10, 5, 8, 4, 2, 1, 6, 3, 7, 9, 10, 5, 8, 4, 2)
        total = sum(int(digit) * weight for digit, weight in zip(body, weights, strict=True))
        return body + "10X98765432"[total % 11]
    return f"{rng.randint(1, 665):03d}-{rng.randint(1, 99):02d}-{rng.randint(1, 9999):04d}"


def insurance(lang: str, rng: random.Random) -> str:
    """BHYT of 15 signs or its bare ten digits, or a member number."""
    if lang == "vi":
        bare = f"{rng.randint(10**9, 10**10 - 1)}"
        if rng.random() < 0.3:
            return bare
        group = rng.choice(("DN", "GD", "HT", "TE", "CH"))
        return f"{group}{rng.randint(1, 5)}{rng.randint(1, 96):02d}{bare}"
    insurer = rng.choice(("YB", "SB")) if lang == "zh" else rng.choice(("XJH", "MBR", "QTA"))
    return f"{insurer}{rng.randint(10**8, 10**9 - 1)}"


def address(data: Mapping[str, Any], rng: random.Random) -> str:
    """An address of the world's streets and places."""
    return str(rng.choice(data["address_forms"])).format(
        n=rng.randint(1, 250),
        m=rng.randint(1, 40),
        street=rng.choice(data["streets"]),
        ward=rng.choice(data["wards"]),
        place=rng.choice(data["places"]),
    )


def masked(mask: str, rng: random.Random) -> str:
    """A mask with a digit for every ``#`` and a capital letter for every ``@``."""
    drawn = {"#": "0123456789", "@": "ABCDEFGHKLMNPRSTUVXY"}
    return "".join(rng.choice(drawn[sign]) if sign in drawn else sign for sign in mask)
