"""Questions with answers from a graph, in Vietnamese, Chinese and English; each answer names the
facts that it stands on.

What is asked about is a subject and a relation, with all of its facts: these belong to one part
(train, dev, test), and so does each form of words, so that no part shares a fact or a phrasing with
another. A question whose facts belong to several parts is not asked. Every question is asked once:
facts first, then other forms for them.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Collection, Iterable, Iterator
from functools import cached_property
from typing import Any

from residency.core.errors import UserError, allowed
from residency.core.types import PARTS, PartName, Value
from residency.knowledge.forms import Unit, draw, forms_of, part_of, sentence, words
from residency.knowledge.graph import RELATIONS, Fact, Graph
from residency.knowledge.speech import LETTERS, Said, Speech

ORIGIN = "synthetic:graph"
QUESTION_KINDS = (
    "fact",
    "listed",
    "often",
    "list",
    "kind",
    "chain",
    "value",
    "compare",
    "shared",
    "choice",
    "which",
    "short",
    "dialogue",
)
"""One fact, whether it is listed, how often, all of a list, by what it is a kind of, over two
facts, a criterion's value, which is more frequent, what two share; multiple choice of what belongs
to a disease, and of the disease; a short answer with marking points; several turns."""
EXAM = ("choice", "which", "short")
"""Kinds that are items of an exam; the others are conversations."""


class Question(Value, frozen=True):
    """A question with its answer and the facts that it stands on."""

    id: str
    kind: str
    lang: str
    part: PartName
    group: str
    question: str
    answer: str
    facts: tuple[int, ...]
    sources: tuple[str, ...]
    before: tuple[tuple[str, str], ...] = ()
    """Earlier turns of a dialogue: question, answer."""
    options: tuple[str, ...] = ()
    points: tuple[str, ...] = ()
    """What an examiner gives marks for."""


class Asker:
    """Asks about one graph in one language."""

    def __init__(
        self,
        graph: Graph,
        lang: str,
        seed: int,
        kinds: Iterable[str] = (),
        relations: Iterable[str] = (),
    ) -> None:
        self.graph, self.lang, self.seed = graph, lang, seed
        self.relations = frozenset(relations) or frozenset(RELATIONS) - {"is_a"}
        self.kinds = tuple(kinds) or QUESTION_KINDS
        self.words = words(lang)
        for kind in self.kinds:
            if kind not in QUESTION_KINDS:
                raise UserError(f"--kinds: {allowed(QUESTION_KINDS, kind)}.")
        asked = {*self.words["relations"], "criterion"}
        for relation in self.relations - asked if relations else ():
            raise UserError(f"--relations: {allowed(sorted(asked), relation)}.")

    @cached_property
    def names(self) -> dict[str, str]:
        """Node -> its usual name; without those whose name another node of the kind has too."""
        found = {id: self.graph.name(id, self.lang) for id in self.graph.nodes}
        kinds = {id: node.kind for id, node in self.graph.nodes.items()}
        times = Counter((kinds[id], name.casefold()) for id, name in found.items())
        return {
            id: name
            for id, name in found.items()
            if name and times[kinds[id], name.casefold()] == 1
        }

    @cached_property
    def units(self) -> dict[Unit, list[Fact]]:
        """What can be asked about in the language, in the order in which it is asked."""
        known = self.names
        found = {
            unit: kept
            for unit, facts in self.graph.of.items()
            if unit[1] in self.relations
            and unit[0] in known
            and (kept := [fact for fact in facts if fact.object in known])
        }
        return dict(sorted(found.items(), key=lambda one: draw(self.seed, "order", *one[0])))

    @cached_property
    def parts(self) -> dict[Unit, PartName]:
        """Unit -> its part, ``is_a`` included."""
        return {unit: part_of(unit, self.seed) for unit in self.graph.of}

    @cached_property
    def pools(self) -> dict[str, list[str]]:
        """Relation -> what it leads to anywhere, from which what is not so is drawn."""
        found = defaultdict[str, set[str]](set)
        for (_, relation), facts in self.units.items():
            found[relation].update(fact.object for fact in facts)
        return {relation: sorted(objects) for relation, objects in found.items()}

    @cached_property
    def subjects(self) -> dict[str, list[str]]:
        """Relation -> its subjects."""
        found = defaultdict[str, list[str]](list)
        for subject, relation in self.units:
            found[relation].append(subject)
        return dict(found)

    @cached_property
    def to(self) -> dict[tuple[PartName, str, str], list[Fact]]:
        """(part, relation, object) -> the facts that lead there."""
        found = defaultdict[tuple[PartName, str, str], list[Fact]](list)
        for unit, facts in self.units.items():
            for fact in facts:
                if not fact.negated:
                    found[self.parts[unit], unit[1], fact.object].append(fact)
        return dict(found)

    def slots(self, part: PartName) -> list[tuple[str, int]]:
        """(kind, form of words) of a part, mixed."""
        found = [
            (kind, number)
            for kind in self.kinds
            for number in range(
                len(forms_of("list" if kind == "dialogue" else kind, part, self.lang))
            )
        ]
        return sorted(found, key=lambda slot: draw(self.seed, "slot", part, *slot))

    def ask(self, first: Collection[int] = ()) -> Iterator[Question]:
        """All questions, each once, every unit in turn; what holds a fact of ``first`` is asked in
        every form before the others."""
        before, after = list[Unit](), list[Unit]()
        for unit, facts in self.units.items():
            (before if any(fact.id in first for fact in facts) else after).append(unit)
        for units in (before, after):
            yield from self._in_turn(units)

    def _in_turn(self, open_: list[Unit]) -> Iterator[Question]:
        slots = {part: self.slots(part) for part in PARTS}
        rounds = max(
            (len(self.units[unit]) * len(slots[self.parts[unit]]) for unit in open_),
            default=0,
        )
        for number in range(rounds):
            open_ = [
                unit
                for unit in open_
                if number < len(self.units[unit]) * len(slots[self.parts[unit]])
            ]
            for unit in open_:
                facts, part = self.units[unit], self.parts[unit]
                begin = draw(self.seed, "begin", self.lang, *unit)
                turn, place = divmod(number, len(facts))
                own = slots[part]
                kind, form = own[(begin + place + turn) % len(own)]
                position = (begin + place) % len(facts)
                said = Speech(self, unit, facts, position, number, part).say(kind, form)
                if said:
                    yield self._question(said, kind, unit, part, number)

    def _question(self, said: Said, kind: str, unit: Unit, part: PartName, number: int) -> Question:
        sources = tuple(dict.fromkeys(fact.source for fact in said.facts))
        return Question(
            id=f"{self.lang}-{draw(self.seed, *unit) % 16**10:010x}-{number}",
            kind=kind,
            lang=self.lang,
            part=part,
            group="/".join(unit),
            question=sentence(said.question),
            answer=sentence(said.answer),
            facts=tuple(dict.fromkeys(fact.id for fact in said.facts)),
            sources=sources,
            before=tuple((sentence(a), sentence(b)) for a, b in said.before),
            options=said.options,
            points=said.points,
        )


def row(question: Question) -> dict[str, Any]:
    """A question as a row of an exam (``format: exam``) or of conversations (``alpaca``)."""
    about = {
        "id": question.id,
        "lang": question.lang,
        "kind": question.kind,
        "group": question.group,
        "origin": ORIGIN,
        "profile": "synthetic",
        "facts": question.facts,
        "sources": question.sources,
    }
    if question.kind not in EXAM:
        words = {"instruction": question.question, "input": "", "output": question.answer}
        return {**words, **({"history": question.before} if question.before else {}), **about}
    found: dict[str, Any] = {"question": question.question, "answer": question.answer}
    if question.options:
        found["options"] = dict(zip(LETTERS, question.options, strict=True))
    else:
        found["points"] = question.points
    return {**found, **about}
