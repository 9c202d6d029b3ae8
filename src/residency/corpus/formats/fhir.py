"""Questions on FHIR R4 records, one bundle (JSON) for each patient: find the resources that matter,
then answer and name them.

Questions, answers and references are made by rule from the record; no model has a part in them.
What a model reads are the resources that a search finds for the question (BM25 over characters), so
that what the search misses counts against the answer.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator
from functools import cache
from pathlib import Path
from typing import Any, Literal

import msgspec
from pydantic import Field

from residency.core.errors import DataError
from residency.core.files import NO_JSON, digest, read_text, reason
from residency.core.types import Value
from residency.corpus.reader import Row, Source
from residency.tasks.retrieval import Index, Term

Resource = dict[str, Any]
Lang = Literal["en", "vi", "zh"]
MOST_REFERENCES = 6
"""A question whose answer needs more resources is not asked."""


class RecordQuestion(Value, frozen=True):
    """A question with what the record says."""

    kind: str
    name: str
    answer: str
    references: tuple[str, ...] = ()


class RecordEntry(Value, frozen=True):
    """A resource, as questions need it."""

    type: str
    reference: str
    name: str
    codes: tuple[str, ...]
    start: str
    """When it began or was."""
    end: str
    value: str
    """What was measured, which category an allergy has, what for something was prescribed."""
    reasons: tuple[str, ...]
    """Codes of what for."""
    status: str

    @property
    def line(self) -> str:
        """What a model reads of it."""
        rest = [self.start, f"until {self.end}" if self.end else "", self.status, self.value]
        return f"{self.reference}: {'; '.join([self.name, *filter(None, rest)])}"


class Fhir(Source):
    """FHIR bundles, one file for each patient; columns ``question``, ``record``, ``answer``,
    ``references``."""

    format: Literal["fhir"]
    questions: int = Field(default=3, ge=1)
    """Most questions of each kind about one patient, drawn by hash."""
    candidates: int = Field(default=12, ge=1, le=200)
    """How many resources the search offers for a question."""
    language: Lang = "en"
    """Of the questions; the record keeps its own."""

    def suffixes(self) -> tuple[str, ...]:
        return (".json",)

    def rows(self, path: Path) -> Iterator[Row]:
        patient, entries = read_record(path)
        terms = [Term(code=one.reference, name=f"{one.type} {one.line}") for one in entries]
        search = Index(terms)
        by_reference = {one.reference: one for one in entries}
        asked_of = choose_questions(patient, entries, self.language, self.questions)
        for number, asked in enumerate(asked_of, start=1):
            question = fill_question(asked, self.language)
            found = [by_reference[one.term.code] for one in search.find(question, self.candidates)]
            found.sort(key=lambda entry: (entry.start, entry.reference))
            lines = "\n".join(entry.line for entry in found)
            yield Row(
                line=0,
                id=f"{patient}-{number}",
                group=patient,
                kind=asked.kind,
                lang=self.language,
                text=f"{question}\n{lines}",
                fields={
                    "question": question,
                    "record": lines,
                    "answer": asked.answer,
                    "references": ", ".join(asked.references),
                },
            )


def read_record(path: Path) -> tuple[str, list[RecordEntry]]:
    """The patient's id and everything else in a bundle; raises ``DataError`` for a file that is not
    one patient's bundle."""
    try:
        found = msgspec.json.decode(read_text(path), type=dict[str, Any])
    except NO_JSON as error:
        raise DataError(
            f"{path}: is no FHIR bundle ({reason(error)}); it holds one JSON object."
        ) from None
    listed = found.get("entry")
    if found.get("resourceType") != "Bundle" or not isinstance(listed, list):
        raise DataError(
            f"{path}: is no FHIR bundle; resourceType must be Bundle, with a list entry."
        )
    resources = [
        one["resource"]
        for one in listed
        if isinstance(one, dict) and isinstance(one.get("resource"), dict)
    ]
    patients = [one for one in resources if one.get("resourceType") == "Patient"]
    if len(patients) != 1 or not isinstance(patients[0].get("id"), str):
        raise DataError(
            f"{path}: holds {len(patients)} patients; give each patient a bundle of their own."
        )
    entries = (read_entry(one) for one in resources)
    return patients[0]["id"], [one for one in entries if one is not None]


def read_entry(resource: Resource) -> RecordEntry | None:
    """A resource as questions need it; None for one of another type, or without a name."""
    kind, id = str(resource.get("resourceType", "")), resource.get("id")
    if kind not in NAMED or not isinstance(id, str):
        return None
    concept = _first(resource.get(NAMED[kind]))
    name = _words(resource.get("class") if kind == "Encounter" else concept)
    if not name:
        return None
    reasons = [one for one in resource.get("reasonCode") or () if isinstance(one, dict)]
    period = _first(resource.get("period") or resource.get("performedPeriod"))
    valid = _first(_first(resource.get("dispenseRequest")).get("validityPeriod"))
    starts = (resource.get(key) for key in STARTS)
    is_prescription = kind == "MedicationRequest"
    end = resource.get("abatementDateTime") or (valid.get("end") if is_prescription else None)
    status = _first(resource.get("clinicalStatus"))
    # The status of everything but a prescription says nothing: it is done.
    state = str(resource.get("status", "")) if is_prescription else ""
    return RecordEntry(
        type=kind,
        reference=f"{kind}/{id}",
        name=name,
        codes=_codes(concept),
        start=_day(next((one for one in starts if one), None) or period.get("start")),
        end=_day(end),
        value=_value(kind, resource, concept, reasons),
        reasons=tuple(code for one in reasons for code in _codes(one)),
        status=next((code for _, code in _codings(status)), "") if status else state,
    )


def _value(kind: str, resource: Resource, concept: Resource, reasons: list[Resource]) -> str:
    """What was measured, which category an allergy has, what for something was prescribed or
    done, which visit it was."""
    if kind == "AllergyIntolerance":
        return next((one for one in resource.get("category") or () if isinstance(one, str)), "")
    if kind in ("MedicationRequest", "Procedure") and reasons:
        return _words(reasons[0])
    if kind == "Encounter":
        return _words(concept)
    return str(
        resource.get("valueString")
        or _quantity(resource.get("valueQuantity"))
        or _words(resource.get("valueCodeableConcept"))
    )


NAMED = {
    "Condition": "code",
    "MedicationRequest": "medicationCodeableConcept",
    "Observation": "code",
    "Procedure": "code",
    "Immunization": "vaccineCode",
    "AllergyIntolerance": "code",
    "Encounter": "type",
}
"""Type of resource -> where it says what it is."""
STARTS = (
    "onsetDateTime",
    "authoredOn",
    "effectiveDateTime",
    "performedDateTime",
    "occurrenceDateTime",
)


def _first(value: object) -> Resource:
    value = value[0] if isinstance(value, list) and value else value
    return value if isinstance(value, dict) else {}


def _codings(concept: Resource) -> Iterator[tuple[str, str]]:
    for one in concept.get("coding") or ():
        if isinstance(one, dict) and isinstance(one.get("code"), str):
            yield str(one.get("system", "")), one["code"]


def _codes(concept: Resource) -> tuple[str, ...]:
    return tuple(f"{system}|{code}" for system, code in _codings(concept))


def _words(concept: object) -> str:
    """How a concept is called; of a coding, its display."""
    concept = _first(concept)
    coding = _first(concept.get("coding"))
    found = concept.get("text") or concept.get("display") or coding.get("display") or ""
    return re.sub(r"\s+", " ", str(found)).strip()


def _quantity(found: object) -> str:
    found = _first(found)
    value = found.get("value")
    return f"{value:g} {found.get('unit', '')}".strip() if isinstance(value, int | float) else ""


def _day(value: object) -> str:
    """The day of a date or a time."""
    return value[:10] if isinstance(value, str) else ""


@cache
def phrases() -> dict[str, Any]:
    """The packaged wording."""
    import yaml

    found: dict[str, Any] = yaml.safe_load(Path(__file__).with_suffix(".yaml").read_text("utf-8"))
    return found


def fill_question(asked: RecordQuestion, lang: Lang) -> str:
    """A question in words."""
    words: str = phrases()["questions"][asked.kind][lang]
    return words.replace("NAME", asked.name.rstrip("?？ "))


def choose_questions(
    patient: str, entries: Iterable[RecordEntry], lang: Lang, most: int
) -> list[RecordQuestion]:
    """At most so many questions of each kind, an arbitrary choice that hangs on the patient and the
    names alone."""
    kinds: defaultdict[str, list[RecordQuestion]] = defaultdict(list)
    for one in questions(list(entries), lang):
        if len(one.references) <= MOST_REFERENCES and one.answer:
            kinds[one.kind].append(one)
    return [
        one
        for kind in phrases()["questions"]
        for one in sorted(kinds[kind], key=lambda one: digest([patient, kind, one.name]))[:most]
    ]


def questions(entries: list[RecordEntry], lang: Lang) -> Iterator[RecordQuestion]:
    """Everything that can be asked of a record, with the answer that it gives; what it leaves open
    is not asked."""
    yes, no = phrases()["yes"][lang], phrases()["no"][lang]
    for kind, type, answered in KINDS:
        of_name: defaultdict[str, list[RecordEntry]] = defaultdict(list)
        for one in entries:
            if one.type == type:
                of_name[one.name].append(one)
        for name, alike in of_name.items():
            if (found := answered(alike, entries)) is None:
                continue
            answer = {"YES": yes, "NO": no}.get(found[0], found[0])
            cited = tuple(one.reference for one in found[1])
            yield RecordQuestion(kind=kind, name=name, answer=answer, references=cited)
    held = " ".join(f"{one.name} {one.value}" for one in entries).lower()
    for name in phrases()["absent"]:
        if name.lower() not in held:
            yield RecordQuestion(kind="never", name=name, answer=no)


Found = tuple[str, list[RecordEntry]] | None


def _earliest(alike: list[RecordEntry], _: list[RecordEntry]) -> Found:
    first = min((one.start for one in alike if one.start), default="")
    cited = [one for one in alike if one.start == first]
    return (first, cited) if first and len(cited) == 1 else None


def _latest(alike: list[RecordEntry]) -> RecordEntry | None:
    """The last one, where no other is of the same day."""
    last = max((one.start for one in alike), default="")
    cited = [one for one in alike if one.start == last]
    return cited[0] if last and len(cited) == 1 else None


def _last_day(alike: list[RecordEntry], _: list[RecordEntry]) -> Found:
    last = _latest(alike)
    return (last.start, [last]) if last else None


def _last_value(alike: list[RecordEntry], _: list[RecordEntry]) -> Found:
    last = _latest(alike)
    return (last.value, [last]) if last and last.value else None


def _still(alike: list[RecordEntry], _: list[RecordEntry]) -> Found:
    active = [one for one in alike if one.status == "active"]
    return ("YES", active) if active else ("NO", alike)


def _count(alike: list[RecordEntry], _: list[RecordEntry]) -> Found:
    return str(len(alike)), alike


def _purpose(alike: list[RecordEntry], entries: list[RecordEntry]) -> Found:
    """What something was prescribed for, where that is one thing and the record holds it as a
    condition."""
    wanted = {one.reasons for one in alike}
    if len(wanted) != 1 or not (codes := set(wanted.pop())):
        return None
    found = [one for one in entries if one.type == "Condition" and codes & {*one.codes}]
    names = {one.name for one in found}
    return (names.pop(), [*alike, *found]) if len(names) == 1 else None


def _category(alike: list[RecordEntry], _: list[RecordEntry]) -> Found:
    values = {one.value for one in alike}
    return (alike[0].value, alike) if len(values) == 1 and alike[0].value else None


KINDS: tuple[tuple[str, str, Callable[[list[RecordEntry], list[RecordEntry]], Found]], ...] = (
    ("onset", "Condition", _earliest),
    ("active", "Condition", _still),
    ("taking", "MedicationRequest", _still),
    ("reason", "MedicationRequest", _purpose),
    ("value", "Observation", _last_value),
    ("times", "Procedure", _count),
    ("vaccine", "Immunization", _last_day),
    ("visit", "Encounter", _last_day),
    ("allergy", "AllergyIntolerance", _category),
)
"""Kind of question, the type of resource that it is about, and the rule that answers it."""
