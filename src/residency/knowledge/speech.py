"""A fact of a graph, or several, put into the words of a question and its answer."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from math import gcd
from typing import TYPE_CHECKING, Any

from residency.core.types import PartName, Value
from residency.knowledge.forms import Unit, draw, forms_of
from residency.knowledge.graph import FREQUENCIES, Fact

if TYPE_CHECKING:
    from residency.knowledge.questions import Asker

LONGEST = 12
"""Most things that an answer lists."""
LETTERS = "ABCD"
WHOLE = ("list", "short", "shared", "dialogue")
"""Kinds of question about all facts of a unit."""
TRIES = 24
"""Draws of what is not so before a question is given up."""


class Said(Value, frozen=True):
    """Words for a fact or several, not yet a row."""

    question: str
    answer: str
    facts: tuple[Fact, ...]
    before: tuple[tuple[str, str], ...] = ()
    options: tuple[str, ...] = ()
    points: tuple[str, ...] = ()


class Speech:
    """Words about one unit, from one of its facts."""

    def __init__(
        self,
        asker: Asker,
        unit: Unit,
        facts: Sequence[Fact],
        position: int,
        number: int,
        part: PartName,
    ) -> None:
        self.asker, self.unit, self.facts = asker, unit, facts
        self.position, self.number, self.part = position, number, part
        self.fact = facts[position]
        self.so = [fact for fact in facts if not fact.negated]
        self.subject, self.relation = unit
        self.names, self.words = asker.names, asker.words
        told = self.words["relations"].get(self.relation, {"one": "", "many": ""})
        s = self.names[self.subject]
        self.values = {
            "s": s,
            "o": self.names[self.fact.object],
            "one": told["one"].format(s=s),
            "many": told["many"].format(s=s),
        }

    def say(self, kind: str, form: int) -> Said | None:
        """A question of a kind in a form of words; nothing where the facts do not give one."""
        if (self.relation == "criterion") != (kind == "value"):
            return None
        if self.fact.negated and kind != "fact":
            return None
        if kind not in WHOLE and self.values["s"].casefold() == self.values["o"].casefold():
            return None  # a finding that is called as its disease is
        told = forms_of("list" if kind == "dialogue" else kind, self.part, self.asker.lang)[form]
        said: Said | None = getattr(self, f"_{kind}")(told)
        return said

    def _with(self, told: Sequence[str], facts: Iterable[Fact], yes: int = 1, **more: str) -> Said:
        values = {**self.values, **more}
        return Said(told[0].format(**values), told[yes].format(**values), tuple(facts))

    def _fact(self, told: Sequence[str]) -> Said:
        return self._with(told, [self.fact], 2 if self.fact.negated else 1)

    def _listed(self, told: Sequence[str]) -> Said | None:
        if self.number % 2:
            return self._with(told, [self.fact])
        other = self._not_so(self.number)
        if not other:
            return None
        some = self._some(3)
        return self._with(told, some, 2, o=self.names[other], list=self._joined(some))

    def _often(self, told: Sequence[str]) -> Said | None:
        frequency = self.fact.frequency
        if not frequency or self.relation != "has_finding":
            return None
        return self._with(told, [self.fact], f=self.words["frequency"][frequency])

    def _list(self, told: Sequence[str]) -> Said | None:
        facts = self._class()
        return self._with(told, facts, **self._listing(facts)) if facts else None

    def _short(self, told: Sequence[str]) -> Said | None:
        order = [*FREQUENCIES, ""]
        facts = sorted(self.so, key=lambda fact: order.index(fact.frequency))
        if self.fact is not self.so[0] or not 2 <= len(facts) <= LONGEST:
            return None
        how = self.words["frequency"]
        points = tuple(
            self.names[fact.object] + (f": {how[fact.frequency]}" if fact.frequency else "")
            for fact in facts
        )
        question = told[0].format(**self.values)
        many = self.values["many"]
        stop, colon = ("。", "：") if self.asker.lang == "zh" else (".", ": ")
        answer = f"{many}{colon}{self.words['and'].join(points)}{stop}"
        return Said(question, answer, tuple(facts), points=points)

    def _kind(self, told: Sequence[str]) -> Said | None:
        above = [
            one
            for one in self.asker.graph.of.get((self.fact.object, "is_a"), ())
            if one.object in self.names
            and not one.negated
            and self.asker.parts[one.subject, "is_a"] == self.part
        ]
        first = self._once(above, lambda one: one.object)
        return (
            first
            if first is None
            else self._with(told, [self.fact, first], z=self.names[first.object])
        )

    def _once(self, found: Sequence[Fact], key: Any) -> Fact | None:
        """One of the facts found; nothing where an earlier fact of the unit leads there too."""
        one = found[draw(self.asker.seed, *self.unit, self.fact.id) % len(found)] if found else None
        if one is None:
            return None
        earlier = self.facts[: self.position]
        of = self.asker.graph.of
        again = any(
            key(other) == key(one)
            for fact in earlier
            for other in of.get((fact.object, one.relation), ())
        )
        return None if again else one

    def _chain(self, told: Sequence[str]) -> Said | None:
        relations = self.words["relations"]
        further = [
            one
            for relation in relations
            if self.asker.parts.get((self.fact.object, relation)) == self.part
            for one in self.asker.graph.of[self.fact.object, relation]
            if not one.negated and one.object in self.names and one.object != self.subject
        ]
        end = self._once(further, lambda one: one.relation)
        if end is None:
            return None
        m = self.names[self.fact.object]
        inner = relations[self.relation][self.words["inner"]].format(s=self.values["s"])
        return self._with(
            told,
            [self.fact, end],
            m=m,
            o=self.names[end.object],
            two=relations[end.relation]["one"].format(s=inner),
            onem=relations[end.relation]["one"].format(s=m),
        )

    def _value(self, told: Sequence[str]) -> Said:
        value = self.fact.value
        sign = value[: len(value) - len(value.lstrip("<>="))]
        said = self.words["value"].get(sign, "") + value.removeprefix(sign)
        return self._with(told, [self.fact], v=f"{said} {self.fact.unit}".strip())

    def _compare(self, told: Sequence[str]) -> Said | None:
        order = list(FREQUENCIES)
        if self.relation != "has_finding" or not self.fact.frequency:
            return None
        own = ("", self.fact.frequency)
        other = next((one for one in self._elsewhere() if one.frequency not in own), None)
        if other is None:
            return None
        how = self.words["frequency"]
        more, less = sorted((self.fact, other), key=lambda fact: order.index(fact.frequency))
        return self._with(
            told,
            [self.fact, other],
            t=self.names[other.subject],
            a=self.names[more.subject],
            b=self.names[less.subject],
            f=how[more.frequency],
            g=how[less.frequency],
        )

    def _elsewhere(self) -> Iterator[Fact]:
        """The same of other subjects whose facts belong to this part, drawn."""
        found = self.asker.to[self.part, self.relation, self.fact.object]
        begin = draw(self.asker.seed, *self.unit, self.fact.id, self.number)
        for number in range(min(TRIES, len(found))):
            one = found[(begin + number) % len(found)]
            if one.subject != self.subject:
                yield one

    def _shared(self, told: Sequence[str]) -> Said | None:
        other = next((one.subject for one in self._elsewhere()), "")
        if not other:
            return None
        theirs = {
            fact.object: fact for fact in self.asker.units[other, self.relation] if not fact.negated
        }
        own = [fact for fact in self.so if fact.object in theirs]
        if self.fact is not own[0] or not 2 <= len(own) <= LONGEST:
            return None
        both = self.words["both"].format(s=self.values["s"], t=self.names[other])
        many = self.words["relations"][self.relation]["many"].format(s=both)
        facts = [*own, *(theirs[fact.object] for fact in own)]
        return self._with(told, facts, many=many, list=self._joined(own))

    def _choice(self, told: Sequence[str]) -> Said | None:
        wrong = self._wrong()
        if wrong is None:
            return None
        return self._options(told[0].format(**self.values), self.values["o"], wrong, [self.fact])

    def _wrong(self) -> list[str] | None:
        """Three names of what is not so."""
        found = dict[str, None]()
        own = self.asker.graph.nodes[self.fact.object].kind
        for number in range(TRIES):
            other = self._not_so(self.number * TRIES + number)
            if other and self.asker.graph.nodes[other].kind == own:
                found[self.names[other]] = None
            if len(found) == 3:
                return list(found)
        return None

    def _which(self, told: Sequence[str]) -> Said | None:
        if self.relation != "has_finding" or len(self.so) < 3:
            return None
        place = self.so.index(self.fact)
        if place > len(self.so) - 3:
            return None
        some = self.so[place : place + 3]
        wrong = dict[str, None]()
        for one in self._subjects():
            if len(wrong) < 3 and self._lacks(one, some):
                wrong[self.names[one]] = None
        if len(wrong) < 3:
            return None
        question = told[0].format(list=self._joined(some))
        return self._options(question, self.values["s"], list(wrong), some)

    def _subjects(self) -> Iterator[str]:
        """Other diseases that have findings, drawn."""
        every = self.asker.subjects[self.relation]
        begin = draw(self.asker.seed, *self.unit, self.number)
        for number in range(min(TRIES, len(every))):
            yield every[(begin + number) % len(every)]

    def _lacks(self, other: str, some: Sequence[Fact]) -> bool:
        graph = self.asker.graph
        if graph.related(other, self.subject):
            return False
        return any(not graph.maybe(other, self.relation, fact.object) for fact in some)

    def _options(
        self, question: str, right: str, wrong: Sequence[str], facts: Iterable[Fact]
    ) -> Said:
        place = draw(self.asker.seed, *self.unit, self.number, "place") % len(LETTERS)
        options = [*wrong[:place], right, *wrong[place:]]
        return Said(question, LETTERS[place], tuple(facts), options=tuple(options))

    def _dialogue(self, told: Sequence[str]) -> Said | None:
        facts = self._class()
        other = self._not_so(self.number)
        if not facts or not other:
            return None
        turns = [self._with(told, facts, **self._listing(facts))]
        how = self.words["frequency"]
        if more := [one for one in self.so if one.frequency not in ("", facts[0].frequency)]:
            one = more[self.number % len(more)]
            form = self._form("often")
            facts = [*facts, one]
            o = self.names[one.object]
            turns.append(self._with(form, [one], o=o, f=how[one.frequency]))
        turns.append(self._with(self._form("follow"), facts, 2, o=self.names[other]))
        before = tuple((turn.question, turn.answer) for turn in turns[:-1])
        return Said(turns[-1].question, turns[-1].answer, tuple(facts), before=before)

    def _form(self, kind: str) -> list[str]:
        forms = forms_of(kind, self.part, self.asker.lang)
        return forms[self.number % len(forms)]

    def _class(self) -> list[Fact]:
        """All facts of the frequency of this one, which must be the first of them."""
        found = [fact for fact in self.so if fact.frequency == self.fact.frequency]
        return found if self.fact is found[0] and 1 < len(found) <= LONGEST else []

    def _listing(self, facts: Sequence[Fact]) -> dict[str, Any]:
        frequency = self.words["frequency"].get(facts[0].frequency, "")
        of = self.words["class"].format(f=frequency) if frequency else ""
        return {"class": of, "list": self._joined(facts)}

    def _joined(self, facts: Sequence[Fact]) -> str:
        joined: str = self.words["and"].join(self.names[fact.object] for fact in facts)
        return joined

    def _some(self, most: int) -> list[Fact]:
        begin = self.position % max(1, len(self.so))
        return [*self.so[begin:], *self.so[:begin]][:most]

    def _not_so(self, number: int) -> str:
        """Something that the relation leads to elsewhere, and of which nothing says that it may be
        so here; other numbers draw others. Empty where what is drawn may be so."""
        pool = self.asker.pools[self.relation]
        step = draw(self.asker.seed, "step", *self.unit) % len(pool)
        while gcd(step, len(pool)) != 1:
            step += 1
        drawn = pool[(draw(self.asker.seed, *self.unit) + number * step) % len(pool)]
        graph = self.asker.graph
        if graph.maybe(self.subject, self.relation, drawn) or drawn == self.subject:
            return ""
        every = graph.nodes[drawn].names.get(self.asker.lang, ())
        spoken = {name.casefold() for name in every}
        true = (graph.nodes[fact.object] for fact in self.facts)
        own = {name.casefold() for node in true for name in node.names.get(self.asker.lang, ())}
        return "" if spoken & own else drawn
