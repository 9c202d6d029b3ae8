"""Rule packs: the files of ``rules/``, each with macros, word lists and rules.

``common.yaml`` is for every language, ``vi.yaml`` and its like for one. Any other file beside them
adds to the language that its key ``language`` names, or that its name begins with (``vi_NAME``);
its patterns may use the macros of that language's own file.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any

import yaml

from residency.core.errors import UserError, allowed
from residency.deid.view import plain

FOLDER = Path(__file__).parent / "rules"
LANGUAGES = ("vi", "zh", "en")
COMMON = "common"


@cache
def read_pack(name: str) -> Mapping[str, Any]:
    """A file of ``rules/`` by its name without ``.yaml``."""
    found: Mapping[str, Any] = yaml.safe_load((FOLDER / f"{name}.yaml").read_text("utf-8"))
    return found


def language_of(name: str) -> str:
    """The language that a pack is for, or ``common``; raises ``UserError`` for another."""
    found = str(read_pack(name).get("language", name.partition("_")[0]))
    languages = (COMMON, *LANGUAGES)
    if found not in languages:
        raise UserError(f"{FOLDER / name}.yaml: language: {found!r}; {allowed(languages, found)}.")
    return found


@cache
def pack_names(language: str) -> tuple[str, ...]:
    """The packs of a language: its own file, then those that add to it, by name."""
    names = sorted(path.stem for path in FOLDER.glob("*.yaml"))
    more = (name for name in names if name != language and language_of(name) == language)
    return (language, *more)


def macros(name: str) -> dict[str, str]:
    """What ``<NAME>`` stands for in the patterns of a pack, in order: one may be made of those
    above it."""
    return {**read_pack(language_of(name)).get("macros", {}), **read_pack(name).get("macros", {})}


@cache
def words(language: str, name: str) -> tuple[str, ...]:
    """A word list of a language's own pack, in its order."""
    return tuple(read_pack(language)["words"][name])


@cache
def word_set(language: str, name: str) -> frozenset[str]:
    """A word list of a language's own pack, plain."""
    return frozenset(map(plain, words(language, name)))
