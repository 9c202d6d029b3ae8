"""The forms of words of questions, and which part a fact and a form belong to."""

from __future__ import annotations

from functools import cache
from hashlib import blake2b
from typing import Any

from residency.core.errors import UserError, allowed
from residency.core.files import read_text
from residency.core.types import PARTS, PartName
from residency.knowledge.reading import DATA

SHARES: dict[PartName, float] = {"train": 0.8, "dev": 0.1, "test": 0.1}
Unit = tuple[str, str]
"""A subject and a relation."""


@cache
def words(lang: str) -> dict[str, Any]:
    """The forms of a language; ``UserError`` where there are none."""
    import yaml

    found = yaml.safe_load(read_text(DATA / "questions.yaml"))
    if lang not in found:
        raise UserError(f"--lang: {allowed(found, lang)}.")
    forms: dict[str, Any] = found[lang]
    return forms


def draw(*parts: object) -> int:
    """A whole number that these parts decide."""
    text = "\x1f".join(map(str, parts))
    return int.from_bytes(blake2b(text.encode(), digest_size=8).digest(), "big")


def part_of(unit: Unit, seed: int) -> PartName:
    """The part of all facts of a subject and a relation."""
    place, upto = draw(seed, "part", *unit) / 2**64, 0.0
    for part in PARTS:
        upto += SHARES[part]
        if place < upto:
            return part
    return PARTS[-1]


def forms_of(kind: str, part: PartName, lang: str) -> list[list[str]]:
    """The forms of words of a kind of question that belong to a part."""
    every: list[list[str]] = words(lang)["forms"][kind]
    return {"train": every[:-2], "dev": every[-2:-1], "test": every[-1:]}[part]


def sentence(text: str) -> str:
    """With a capital at its beginning."""
    return text[:1].upper() + text[1:]
