"""What is read of a graph's file, row by row: nodes and facts, and why a row is left out."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from functools import cache
from pathlib import Path
from typing import Any

from residency.core.files import read_text
from residency.core.types import Value
from residency.knowledge.graph import RELATIONS, Fact, Node, fault_of

DATA = Path(__file__).parent / "data"
EXTRAS = ("value", "unit", "frequency", "evidence")
"""What a table may say of a fact beside its ends, relation and source."""
TOLD = 5
"""Rows that are told one by one of those that were left out for one reason."""


class Given(Value, frozen=True):
    """What a file does not say of itself."""

    lang: str = "en"
    """Language of its names."""
    kind: str = ""
    """Kind of nodes that say none."""
    source: str = ""
    """Source of facts that name none; the file's name if not given."""


class Reading:
    """What was read so far."""

    def __init__(self, given: Given, where: object) -> None:
        self.given, self.where = given, where
        self.nodes: dict[str, Node] = {}
        self.facts: list[Fact] = []
        self.about: dict[str, str] = {}
        self.left: Counter[str] = Counter()
        self.told: list[str] = []
        """One sentence for each of the first rows that were left out."""

    def node(self, id: str, kind: str, names: Mapping[str, Iterable[str]], codes: Any = ()) -> str:
        """Add a node, or names and codes to one that is known; its id."""
        old = self.nodes.get(id) or Node(id, kind)
        merged = dict(old.names)
        for lang, words in names.items():
            cleaned = (" ".join(word.split()) for word in words)
            merged[lang] = tuple(dict.fromkeys((*merged.get(lang, ()), *filter(None, cleaned))))
        merged = {lang: words for lang, words in merged.items() if words}
        self.nodes[id] = Node(id, old.kind, merged, tuple(dict.fromkeys((*old.codes, *codes))))
        return id

    def named(self, name: str, kind: str, id: str = "") -> str:
        """The node of a name in the file's language."""
        return self.node(id or f"{kind}:{name}", kind, {self.given.lang: [name]})

    def fact(self, fact: Fact, line: int | str, dangling: bool = False) -> None:
        """Add a fact, or tell why it is left out. ``dangling``: its nodes may come later."""
        kinds = {
            end: self.nodes[end].kind for end in (fact.subject, fact.object) if end in self.nodes
        }
        found = fault_of(fact, kinds)
        if found and not (dangling and found[0] == "dangling edge"):
            self.leave(line, *found)
        else:
            self.facts.append(fact)

    def leave(self, line: int | str, rule: str, why: str = "") -> None:
        """Count a row that is left out, and tell the first of them."""
        self.left[rule] += 1
        if self.left[rule] <= TOLD:
            place = f"{self.where}:{line}" if line else str(self.where)
            self.told.append(f"{place}: {rule}{': ' if why else ''}{why}; the row is left out.")


@cache
def relation_words() -> dict[str, tuple[str, str]]:
    """What relations are called -> ours, and the kind of the object."""
    import yaml

    found = {name: (name, RELATIONS[name][1][0]) for name in RELATIONS}
    for key, words in yaml.safe_load(read_text(DATA / "relations.yaml")).items():
        name, _, kind = key.partition("/")
        found |= dict.fromkeys(map(plain, words), (name, kind or RELATIONS[name][1][0]))
    return found | {plain(name): value for name, value in found.items()}


def plain(word: str) -> str:
    """A word without its letter case, blanks and underlines."""
    return " ".join(word.casefold().replace("_", " ").split())
