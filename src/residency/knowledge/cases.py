"""Invented cases of rare diseases from a graph: findings drawn by the frequency that a source gives
them, written as notes in sections with their spans.

A finding has one chance in all cases, drawn from its class; a finding without a class is left out.
What a source denies is never said to be there, and neither are its kinds. Each span names the fact
that it stands on (``by``: ``fact:NUMBER``).
"""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from functools import cache, cached_property
from typing import Any

from residency.core.errors import UserError
from residency.core.files import read_text
from residency.core.types import Note, Span, Value
from residency.knowledge.forms import draw
from residency.knowledge.graph import FREQUENCIES, Fact, Graph
from residency.knowledge.reading import DATA

ORIGIN = "synthetic:graph-cases"
COMPLAINTS = 3
"""Most findings of a chief complaint."""
ABSENT = 4
"""Most findings that a note says are not there."""
GROWN = 16
"""Age in years from which on a patient is no child."""
LONGEST = 12
"""Most years from the first signs to the visit."""


class Disease(Value, frozen=True):
    """A disease of which cases can be made in a language."""

    id: str
    name: str
    findings: tuple[Fact, ...]
    """Those with a class of frequency and a name."""
    denied: tuple[Fact, ...]
    begins: tuple[int, int]
    """Years from and to."""
    sex: str
    """``male``, ``female``, or nothing where both are ill."""
    unnamed: int
    """Findings without a name in the language."""


@cache
def words() -> dict[str, Any]:
    """Ages, sexes, and the words of notes."""
    import yaml

    found: dict[str, Any] = yaml.safe_load(read_text(DATA / "cases.yaml"))
    return found


class CaseBook:
    """Cases from one graph in one language."""

    def __init__(self, graph: Graph, lang: str, seed: int) -> None:
        if lang not in ("vi", "zh", "en"):
            raise UserError("--lang: allowed: vi, zh, en.")
        self.graph, self.lang, self.seed = graph, lang, seed
        self.words = words()[lang]

    def disease(self, id: str) -> Disease:
        """A disease by its id; ``UserError`` that says what it lacks."""
        node = self.graph.nodes.get(id)
        if node is None or node.kind != "disease":
            raise UserError(f"--disease: {self.graph.path} has no disease {id!r}; see graph show.")
        name, begins = self.graph.name(id, self.lang), self._begins(id)
        if not name:
            raise UserError(f"--disease: {id} has no name in {self.lang}; add one with --labels.")
        if begins is None:
            raise UserError(f"--disease: {id}: nothing says at which age it begins.")
        every = self.graph.of.get((id, "has_finding"), [])
        named = [fact for fact in every if self.graph.name(fact.object, self.lang)]
        spoken = {name.casefold()}
        found = Disease(
            id,
            name,
            tuple(
                fact
                for fact in named
                if fact.frequency
                and not fact.negated
                and self.graph.name(fact.object, self.lang).casefold() not in spoken
            ),
            tuple(fact for fact in named if fact.negated),
            begins,
            words()["begins"].get(id, {}).get("sex", ""),
            len(every) - len(named),
        )
        if not found.findings:
            raise UserError(f"--disease: {id} has no finding with a frequency and a name.")
        return found

    def diseases(self) -> list[Disease]:
        """All of which cases can be made, in the order of their ids."""
        found = list[Disease]()
        for id, node in sorted(self.graph.nodes.items()):
            if node.kind == "disease" and self.graph.name(id, self.lang) and self._begins(id):
                try:
                    found.append(self.disease(id))
                except UserError:
                    continue
        return found

    def _begins(self, id: str) -> tuple[int, int] | None:
        told = words()["begins"].get(id)
        if told and told["name"] in self.graph.nodes[id].names.get("en", ()):
            return told["years"][0], told["years"][1]
        stages = words()["stages"]
        courses = self.graph.of.get((id, "has_course"), ())
        years = [stages[one.object] for one in courses if one.object in stages and not one.negated]
        return (min(a for a, _ in years), max(b for _, b in years)) if years else None

    @cached_property
    def sexes(self) -> dict[str, str]:
        """Finding -> the only sex that can have it."""
        branches = words()["sexes"]
        found = dict[str, str]()
        for id in self.graph.nodes:
            for branch in {id, *self.graph.ancestors(id)} & set(branches):
                found[id] = branches[branch]
        return found

    def chance(self, fact: Fact) -> float:
        """The share of patients who have a finding: somewhere in its class, for all cases."""
        low, high = FREQUENCIES[fact.frequency]
        return low + (high - low) * draw(self.seed, "chance", fact.id) / 2**64

    def cases(self, diseases: Sequence[Disease], count: int) -> Iterator[Note]:
        """So many cases, the diseases in turn."""
        for number in range(count):
            yield self._case(diseases[number % len(diseases)], number)

    def _case(self, disease: Disease, number: int) -> Note:
        rng = random.Random(draw(self.seed, self.lang, disease.id, number))
        sex = disease.sex or rng.choice(("male", "female"))
        fit = [fact for fact in disease.findings if self.sexes.get(fact.object, sex) == sex]
        present = [fact for fact in fit if rng.random() < self.chance(fact)]
        present = present or [max(fit, key=self.chance)]
        absent = self._absent(rng, disease, fit, present)
        begun = rng.randint(*disease.begins)
        years = rng.randint(0, LONGEST)
        page = Page()
        self._write(page, rng, (sex, begun + years, years), present, absent)
        self._end(page, rng, disease)
        return Note(
            id=f"case-{self.lang}-{disease.id.replace(':', '')}-{number:05d}",
            text=page.text,
            profile="synthetic",
            group=f"case-{disease.id}-{number:05d}",
            lang=self.lang,
            kind="rare case",
            spans=tuple(page.spans),
            labels=(disease.name,),
            origin=ORIGIN,
        )

    def _absent(
        self, rng: random.Random, disease: Disease, fit: Sequence[Fact], present: Sequence[Fact]
    ) -> list[Fact]:
        """What the note says is not there: first what the source denies, then what was not drawn
        and is not above anything that was."""
        there = {fact.object for fact in present}
        implied = there.union(*(self.graph.ancestors(one) for one in there))
        missed = [fact for fact in fit if fact.object not in implied and fact not in present]
        denied = rng.sample(disease.denied, min(2, len(disease.denied)))
        rest = ABSENT - len(denied)
        return [*denied, *rng.sample(missed, min(rng.randint(0, rest), len(missed)))]

    def _write(
        self,
        page: Page,
        rng: random.Random,
        patient: tuple[str, int, int],
        present: Sequence[Fact],
        absent: Sequence[Fact],
    ) -> None:
        told, heads = self.words, self.words["heads"]
        sex, age, years = patient
        word = told["sexes"][sex][age < GROWN]
        who = (told["age"] if age else told["infant"]).format(age=age, sex=word)
        order = sorted(present, key=lambda fact: -self.chance(fact))
        first = order[: rng.randint(1, COMPLAINTS)]
        self._section(page, heads["complaint"])
        self._listing(page, rng.choice(told["complaint"]).replace("{patient}", who), first)
        self._section(page, heads["history"])
        forms = told["history"] if years > 1 else told["recent"]
        page.add(rng.choice(forms).format(years=years))
        self._section(page, heads["systems"])
        for place, (system, facts) in enumerate(self._by_system(order[len(first) :]).items()):
            page.add("\n" * (place > 0) + system + ("：" if self.lang == "zh" else ": "))
            self._items(page, facts)
            page.add("。" if self.lang == "zh" else ".")
        if absent:
            self._section(page, heads["absent"])
            self._listing(page, rng.choice(told["absent"]), absent, ("negated",))

    def _section(self, page: Page, head: str) -> None:
        page.add(("\n\n" if page.text else "") + head + "\n")

    def _by_system(self, facts: Sequence[Fact]) -> dict[str, list[Fact]]:
        """The name of the topmost node above a finding -> the findings."""
        found = dict[str, list[Fact]]()
        for fact in facts:
            above = self.graph.ancestors(fact.object)
            tops = sorted(one for one in above if not self.graph.ancestors(one))
            name = self.graph.name(tops[0], self.lang) if tops else ""
            found.setdefault(name or self.words["other"], []).append(fact)
        return found

    def _listing(
        self, page: Page, form: str, facts: Sequence[Fact], attributes: tuple[str, ...] = ()
    ) -> None:
        before, after = form.split("{list}")
        page.add(before)
        self._items(page, facts, attributes)
        page.add(after)

    def _items(self, page: Page, facts: Sequence[Fact], attributes: tuple[str, ...] = ()) -> None:
        for place, fact in enumerate(facts):
            page.add(self.words["and"] * (place > 0))
            node = self.graph.nodes[fact.object]
            code = node.id if node.id.startswith("HP:") else next((c for _, c in node.codes), None)
            name = self.graph.name(node.id, self.lang)
            page.mark(name, "finding", code, attributes, f"fact:{fact.id}")

    def _end(self, page: Page, rng: random.Random, disease: Disease) -> None:
        self._section(page, self.words["heads"]["end"])
        before, after = rng.choice(self.words["end"]).split("{dx}")
        codes = self.graph.nodes[disease.id].codes
        page.add(before)
        page.mark(disease.name, "diagnosis", codes[0][1] if codes else None, (), None)
        page.add(after + "\n")


class Page:
    """A text and its spans, which grow together."""

    def __init__(self) -> None:
        self.text, self.spans = "", list[Span]()

    def add(self, words: str) -> None:
        """Append words."""
        self.text += words

    def mark(
        self, words: str, label: str, code: str | None, attributes: tuple[str, ...], by: str | None
    ) -> None:
        """Append words with a label."""
        start = len(self.text)
        self.text += words
        end = len(self.text)
        span = Span(start, end, label, words, code, attributes, by)
        self.spans.append(span)
