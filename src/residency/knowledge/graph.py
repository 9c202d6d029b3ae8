"""A graph of medical knowledge in one SQLite file: nodes with names in several languages, and facts
with their sources.

What a node is not called in a language is missing there: no name is translated or made up.
``graph_file`` reads and writes it.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping
from functools import cached_property
from pathlib import Path

from residency.core.errors import allowed
from residency.core.types import Value

KINDS = (
    "disease",
    "finding",
    "test",
    "procedure",
    "drug",
    "body part",
    "gene",
    "cause",
    "course",
    "inheritance",
    "modifier",
    "department",
    "food",
)
ILL, SEEN = ("disease",), ("disease", "finding")
RELATIONS: dict[str, tuple[tuple[str, ...], tuple[str, ...]]] = {
    "is_a": (KINDS, KINDS),
    "has_finding": (ILL, ("finding",)),
    "inherited_as": (ILL, ("inheritance",)),
    "has_course": (ILL, ("course",)),
    "examined_by": (ILL, ("test",)),
    "treated_by": (ILL, ("procedure", "drug")),
    "leads_to": (ILL, SEEN),
    "caused_by": (SEEN, ("cause", "disease", "gene", "drug")),
    "located_in": (SEEN, ("body part",)),
    "shown_by": (SEEN, ("test",)),
    "criterion": (SEEN, ("test",)),
    "treated_in": (ILL, ("department",)),
    "eats": (ILL, ("food",)),
    "avoids": (ILL, ("food",)),
}
"""Relation -> kinds that its subject may have, kinds that its object may have."""
FREQUENCIES = {
    "always": (1.0, 1.0),
    "very frequent": (0.8, 0.99),
    "frequent": (0.3, 0.79),
    "occasional": (0.05, 0.29),
    "very rare": (0.01, 0.04),
}
"""Class -> shares of the patients from and to (those of HPO and Orphanet)."""
_UNITS = """
% °C mmHg kPa m cm mm µm kg g mg µg ng pg L dL mL g/L g/dL mg/dL mg/L µg/L ng/mL ng/L pg/mL mol/L
mmol/L µmol/L nmol/L mEq/L IU/L U/L IU/mL G/L T/L /µL /mm³ cells/µL bpm /min mL/min s min h days
weeks months years score points mmol/mol ULN
"""
UNITS = frozenset(_UNITS.split())
"""Units that a value may have."""


class Node(Value, frozen=True):
    """A thing that facts are about."""

    id: str
    kind: str
    names: dict[str, tuple[str, ...]] = {}
    """Language -> the usual name and synonyms."""
    codes: tuple[tuple[str, str], ...] = ()
    """(system, code), such as (``ICD-10``, ``K74.3``)."""


class Fact(Value, frozen=True):
    """What a source says of a node."""

    subject: str
    relation: str
    object: str
    source: str
    value: str = ""
    """Of a criterion, such as ``>= 10``; its unit apart."""
    unit: str = ""
    frequency: str = ""
    """Class of ``FREQUENCIES``; empty where the source says none."""
    negated: bool = False
    """The source says that it is not so."""
    evidence: str = ""
    """The source's class of evidence, such as ``TAS``, ``guideline``, ``records``."""
    id: int = 0
    """Number in the file."""


class Fault(Value, frozen=True):
    """A rule of consistency that does not hold, in one sentence, and the facts that it costs."""

    rule: str
    sentence: str
    facts: tuple[int, ...] = ()


def fault_of(fact: Fact, kinds: Mapping[str, str]) -> tuple[str, str] | None:
    """Which rule a single fact breaks, and how; ``kinds``: node -> its kind."""
    if fact.relation not in RELATIONS:
        return "unknown relation", f"{fact.relation!r} ({allowed(RELATIONS, fact.relation)})"
    if fact.frequency and fact.frequency not in FREQUENCIES:
        return "unknown frequency", f"{fact.frequency!r} ({allowed(FREQUENCIES, fact.frequency)})"
    if fact.unit and fact.unit not in UNITS:
        return "unknown unit", f"{fact.unit!r} ({allowed(sorted(UNITS), fact.unit)})"
    if not fact.source.strip():
        return "no source", "a fact names where it stands"
    for name in (fact.subject, fact.object):
        if name not in kinds:
            return "dangling edge", f"there is no node {name!r}"
    ends = (kinds[fact.subject], kinds[fact.object])
    for kind in ends:
        if kind not in KINDS:
            return "unknown kind", f"{kind!r} ({allowed(KINDS, kind)})"
    subjects, objects = RELATIONS[fact.relation]
    alike = fact.relation != "is_a" or ends[0] == ends[1]
    if ends[0] not in subjects or ends[1] not in objects or not alike:
        return "wrong kinds", f"{fact.relation} does not lead from a {ends[0]} to a {ends[1]}"
    if fact.relation == "criterion" and not fact.value:
        return "no value", "a criterion has a value"
    return None


class Graph:
    """A graph read into memory. Facts that break a rule are kept apart (``faults``), and are not in
    ``facts``."""

    def __init__(self, path: Path, nodes: Iterable[Node], facts: Iterable[Fact]) -> None:
        self.path = path
        self.nodes = {node.id: node for node in nodes}
        self.every = {fact.id: fact for fact in facts}
        """All facts, also those that break a rule."""
        self.about: dict[str, str] = {}

    @cached_property
    def faults(self) -> tuple[Fault, ...]:
        """All rules that do not hold."""
        return tuple(self._faults())

    @cached_property
    def facts(self) -> dict[int, Fact]:
        """Number -> fact, of those that break no rule."""
        out = {number for fault in self.faults for number in fault.facts}
        return {number: fact for number, fact in self.every.items() if number not in out}

    @cached_property
    def of(self) -> dict[tuple[str, str], list[Fact]]:
        """(subject, relation) -> its facts, in their order."""
        found = defaultdict[tuple[str, str], list[Fact]](list)
        for fact in self.facts.values():
            found[fact.subject, fact.relation].append(fact)
        return dict(found)

    def name(self, node: str, lang: str) -> str:
        """The usual name, or nothing where it has none in the language."""
        return (self.nodes[node].names.get(lang) or ("",))[0]

    @cached_property
    def _parents(self) -> dict[str, tuple[str, ...]]:
        found = defaultdict[str, list[str]](list)
        for fact in self.every.values():
            if fact.relation == "is_a" and not fact.negated:
                found[fact.subject].append(fact.object)
        return {node: tuple(parents) for node, parents in found.items()}

    def ancestors(self, node: str) -> frozenset[str]:
        """What the node is a kind of, without itself; ends also where the graph has a cycle."""
        known = self._ancestors.get(node)
        if known is None:
            seen, open_ = set[str](), list(self._parents.get(node, ()))
            while open_:
                one = open_.pop()
                if one not in seen:
                    seen.add(one)
                    open_ += self._parents.get(one, ())
            known = self._ancestors[node] = frozenset(seen)
        return known

    @cached_property
    def _ancestors(self) -> dict[str, frozenset[str]]:
        return {}

    def related(self, one: str, other: str) -> bool:
        """Whether two nodes are one, or one is a kind of the other."""
        return one == other or one in self.ancestors(other) or other in self.ancestors(one)

    def maybe(self, subject: str, relation: str, object: str) -> bool:
        """Whether the graph says that it is so, or leaves it open by inheritance: of the subject or
        a node above or below it, with the object or a node above or below that."""
        return any(
            not fact.negated and self.related(fact.object, object)
            for kin in self._kin(subject)
            for fact in self.of.get((kin, relation), ())
        )

    def _kin(self, node: str) -> set[str]:
        return {node, *self.ancestors(node), *self._below.get(node, ())}

    @cached_property
    def _below(self) -> dict[str, set[str]]:
        found = defaultdict[str, set[str]](set)
        for node in self._parents:
            for above in self.ancestors(node):
                found[above].add(node)
        return dict(found)

    def _faults(self) -> Iterator[Fault]:
        kinds = {node.id: node.kind for node in self.nodes.values()}
        for node in self.nodes.values():
            if node.kind not in KINDS:
                said = f"node {node.id!r}: its kind is {node.kind!r}; {allowed(KINDS, node.kind)}."
                yield Fault("unknown kind", said)
        for fact in self.every.values():
            if found := fault_of(fact, kinds):
                rule, why = found
                yield Fault(rule, f"fact {fact.id}: {rule}: {why}.", (fact.id,))
        yield from self._cycles()
        yield from self._contradictions()

    def _cycles(self) -> Iterator[Fault]:
        told = set[str]()
        for node in sorted(self._parents):
            if node in told or node not in self.ancestors(node):
                continue
            ring = {node, *(one for one in self.ancestors(node) if node in self.ancestors(one))}
            told |= ring
            inside = tuple(
                fact.id
                for fact in self.every.values()
                if fact.relation == "is_a" and {fact.subject, fact.object} <= ring
            )
            named = ", ".join(sorted(ring)[:6])
            yield Fault("cycle", f"is_a goes in a circle through {named}: cut one of them.", inside)

    def _contradictions(self) -> Iterator[Fault]:
        said = defaultdict[tuple[str, str], list[Fact]](list)
        for fact in self.every.values():
            said[fact.subject, fact.relation].append(fact)
        for (subject, relation), facts in said.items():
            denied = [fact for fact in facts if fact.negated]
            for fact in facts if denied else ():
                against = [
                    one
                    for one in denied
                    if not fact.negated
                    and (one.object == fact.object or one.object in self.ancestors(fact.object))
                    and one.value == fact.value
                ]
                if against:
                    numbers = (fact.id, *(one.id for one in against))
                    yield Fault(
                        "contradiction",
                        f"fact {fact.id} says {subject} {relation} {fact.object}, fact "
                        f"{against[0].id} denies it (of {against[0].object}): strike one of them.",
                        numbers,
                    )

    def lacking(self, lang: str) -> Counter[str]:
        """Kind -> nodes that have no name in a language."""
        return Counter(node.kind for node in self.nodes.values() if not node.names.get(lang))
