"""A graph proposed from a department's own records: what is labelled together in several patients,
for a person to accept or reject.

Counted are patients, never notes. A name or a pair of names that fewer than a stated number of
patients have is never told, so that no patient's rare combination leaves the records.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from itertools import product
from unicodedata import normalize

from residency.core.errors import DataError, UserError, allowed
from residency.core.types import Value
from residency.knowledge.graph import FREQUENCIES, KINDS, RELATIONS
from residency.knowledge.reading import plain, relation_words

LEAST = 5
"""Patients that must have a name, and a pair of names, before it is proposed."""
FEWEST = 3
"""Least number that may be asked for."""
LIFT = 1.5
"""How many times as often, beside patients without the disease."""
ENOUGH = 30
"""Patients with a disease from which on a class of frequency is proposed."""
LABELS = {
    "diagnosis": "disease",
    "disease": "disease",
    "chẩn đoán": "disease",
    "疾病": "disease",
    "symptom": "finding",
    "sign": "finding",
    "finding": "finding",
    "triệu chứng": "finding",
    "症状": "finding",
    "test": "test",
    "xét nghiệm": "test",
    "检查": "test",
    "procedure": "procedure",
    "thủ thuật": "procedure",
    "手术": "procedure",
    "drug": "drug",
    "thuốc": "drug",
    "药物": "drug",
}
"""Label of a span -> kind of node; others (doses, results, times) are never taken."""
LEADS = {
    "finding": "has_finding",
    "test": "examined_by",
    "procedure": "treated_by",
    "drug": "treated_by",
}
"""Kind of what stands beside a disease -> relation."""
UNSURE = frozenset({"negated", "family", "uncertain"})
COLUMNS = (
    "decision",
    "subject",
    "relation",
    "object",
    "subject_kind",
    "object_kind",
    "patients",
    "of",
    "others",
    "frequency",
    "source",
    "evidence",
)
Thing = tuple[str, str]
"""A kind and a name as it is compared."""


class Entity(Value, frozen=True):
    """A span of a note, as JSON lines hold it."""

    start: int
    end: int
    label: str
    attributes: tuple[str, ...] = ()


class Related(Value, frozen=True):
    """A labelled link between two spans."""

    head: int
    tail: int
    label: str


class LabelledNote(Value, frozen=True):
    """What is read of a de-identified note."""

    text: str
    group: str = ""
    entities: tuple[Entity, ...] = ()
    relations: tuple[Related, ...] = ()


class Proposal(Value, frozen=True):
    """A fact that several patients' records suggest."""

    subject: str
    relation: str
    object: str
    kinds: tuple[str, str]
    patients: int
    """Who have both."""
    of: int
    """Who have the disease."""
    others: int
    """Share in per cent of those without the disease who have the other thing."""
    frequency: str

    def row(self, source: str) -> list[str]:
        """The cells of ``COLUMNS``; the decision is a person's."""
        ends = [self.subject, self.relation, self.object, *self.kinds]
        counts = [self.patients, self.of, f"{self.others} %"]
        return ["", *ends, *map(str, counts), self.frequency, source, "records"]


class Counts:
    """What was counted over patients."""

    def __init__(self, labels: Mapping[str, str] | None = None) -> None:
        given = {plain(label): kind for label, kind in (labels or {}).items()}
        for kind in given.values():
            if kind not in KINDS:
                raise UserError(f"--label: {allowed(KINDS, kind)}.")
        self.labels = LABELS | given
        self.patients = defaultdict[Thing, set[str]](set)
        """Thing -> patients who have it."""
        self.said = defaultdict[tuple[Thing, str, Thing], set[str]](set)
        """Thing, labelled relation, thing -> patients of whom it is said."""
        self.spelled = defaultdict[Thing, Counter[str]](Counter)
        self.everybody = set[str]()

    def add(self, note: LabelledNote, where: str) -> None:
        """Count a note; ``DataError`` for one that names no patient, or a span outside of it."""
        if not note.group:
            raise DataError(
                f"{where}: group (the patient's code) is empty; facts are counted over patients."
            )
        self.everybody.add(note.group)
        things = [self._thing(note, entity, where) for entity in note.entities]
        for thing in filter(None, things):
            self.patients[thing].add(note.group)
        for one in note.relations:
            head, tail = (self._at(things, place) for place in (one.head, one.tail))
            relation, _ = relation_words().get(plain(one.label), ("", ""))
            if head and tail and relation:
                self.said[head, relation, tail].add(note.group)

    def _at(self, things: Sequence[Thing | None], place: int) -> Thing | None:
        return things[place] if 0 <= place < len(things) else None

    def _thing(self, note: LabelledNote, entity: Entity, where: str) -> Thing | None:
        if not 0 <= entity.start < entity.end <= len(note.text):
            raise DataError(f"{where}: a span lies outside of the text; check entities.")
        kind = self.labels.get(plain(entity.label), "")
        if not kind or UNSURE & set(entity.attributes):
            return None
        spelled = " ".join(normalize("NFC", note.text[entity.start : entity.end]).split())
        thing = (kind, spelled.casefold())
        self.spelled[thing][spelled] += 1
        return thing

    def proposals(self, least: int = LEAST) -> Iterator[Proposal]:
        """What at least so many patients suggest, the commonest first; ``UserError`` where that is
        less than three."""
        if least < FEWEST:
            raise UserError(f"--least: {FEWEST} patients or more, else a fact may tell of one.")
        common = {thing for thing, who in self.patients.items() if len(who) >= least}
        found = [
            self._proposal(one, relation, other, len(who))
            for (one, relation, other), who in self.said.items()
            if len(who) >= least and {one, other} <= common and self._fits(one, relation, other)
        ]
        labelled = {(one.subject.casefold(), one.object.casefold()) for one in found}
        illnesses = [thing for thing in common if thing[0] == "disease"]
        for one, other in product(illnesses, common):
            both = self.patients[one] & self.patients[other]
            relation = LEADS.get(other[0], "")
            if not relation or len(both) < least or (one[1], other[1]) in labelled:
                continue
            without = self.everybody - self.patients[one]
            rest = without & self.patients[other]
            if len(both) * len(without) >= LIFT * len(rest) * len(self.patients[one]):
                found.append(self._proposal(one, relation, other, len(both)))
        yield from sorted(found, key=lambda one: (-one.patients, one.subject, one.object))

    def _fits(self, one: Thing, relation: str, other: Thing) -> bool:
        subjects, objects = RELATIONS[relation]
        return one[0] in subjects and other[0] in objects

    def _proposal(self, one: Thing, relation: str, other: Thing, both: int) -> Proposal:
        of, without = len(self.patients[one]), len(self.everybody - self.patients[one])
        subject, object = (self.spelled[thing].most_common(1)[0][0] for thing in (one, other))
        others = len(self.patients[other] - self.patients[one])
        return Proposal(
            subject,
            relation,
            object,
            (one[0], other[0]),
            both,
            of,
            round(100 * others / without) if without else 0,
            _class(both / of) if relation == "has_finding" and of >= ENOUGH else "",
        )


def _class(share: float) -> str:
    """The class of frequency that a share lies in, or is nearest to from above."""
    return next(
        (name for name, (low, _) in FREQUENCIES.items() if share >= low and name != "always"),
        "very rare",
    )
