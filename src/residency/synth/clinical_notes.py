"""Invented clinical records in Vietnamese, Chinese and English, with their labels exact by
construction.

A patient is drawn from the knowledge in ``data/``: a condition with its symptoms, tests, drugs and
procedures, other diseases, a past, a family, allergies. Sentences with slots become notes; text and
spans grow together. The same word gets another label by its place (a drug, an allergen; a
diagnosis, history, a relative's disease), so that the task is not a dictionary look-up.
"""

from __future__ import annotations

import random
from collections.abc import Iterator
from hashlib import blake2b

from residency.core.types import Note
from residency.synth.knowledge import Knowledge, Template, knowledge
from residency.synth.patient import InventedPatient, draw_patient
from residency.synth.slots import SentenceWriter
from residency.synth.writer import NoteText

LABELS = (
    "diagnosis",
    "symptom",
    "history",
    "allergy",
    "drug",
    "dose",
    "test",
    "result",
    "procedure",
    "time",
)

Plan = tuple[tuple[str, float, int, int], ...]
"""Sections of a note in their order: (name, chance that the note has it, sentences from, to)."""

KINDS: dict[str, Plan] = {
    "admission": (
        ("complaint", 1, 1, 1),
        ("present", 1, 2, 4),
        ("history", 0.9, 1, 2),
        ("allergies", 0.9, 1, 1),
        ("family", 0.55, 1, 1),
        ("exam", 0.9, 1, 1),
        ("tests", 0.85, 1, 2),
        ("first_diagnosis", 0.95, 1, 1),
        ("treatment", 0.75, 1, 1),
        ("procedure", 0.5, 1, 1),
        ("plan", 0.4, 1, 1),
    ),
    "progress": (
        ("course", 1, 2, 3),
        ("exam", 0.9, 1, 1),
        ("allergies", 0.5, 1, 1),
        ("tests", 0.9, 1, 2),
        ("diagnosis", 0.8, 1, 1),
        ("procedure", 0.8, 1, 1),
        ("treatment", 1, 1, 2),
        ("plan", 0.9, 1, 2),
    ),
    "discharge": (
        ("complaint", 1, 1, 1),
        ("history", 0.75, 1, 2),
        ("allergies", 0.75, 1, 1),
        ("tests", 0.9, 1, 2),
        ("diagnosis", 1, 1, 1),
        ("treatment", 1, 1, 2),
        ("procedure", 0.9, 1, 1),
        ("course", 0.9, 1, 2),
        ("followup", 0.95, 1, 2),
    ),
    "outpatient": (
        ("visit", 1, 1, 1),
        ("present", 0.85, 1, 2),
        ("history", 0.8, 1, 2),
        ("allergies", 0.75, 1, 1),
        ("family", 0.4, 1, 1),
        ("exam", 0.9, 1, 1),
        ("tests", 0.85, 1, 2),
        ("diagnosis", 1, 1, 1),
        ("treatment", 1, 1, 1),
        ("followup", 0.95, 1, 3),
    ),
}
EMERGENCIES = frozenset(
    {"sepsis", "meningitis", "cholangitis", "aki", "preeclampsia", "ectopic", "obstruction"}
)
IMPROVED = ("course", "followup")
LAYOUTS = {"paragraph": 0.35, "blocks": 0.15, "headed": 0.35, "list": 0.15}


def records(lang: str, count: int, seed: int = 0, notes_per_patient: float = 1.6) -> Iterator[Note]:
    """Yield ``count`` invented notes in ``vi``, ``zh`` or ``en``, patient by patient.

    ``notes_per_patient`` is a mean, at least 1. Note ``k`` depends on the other arguments only,
    never on ``count``. Raises ``UserError`` for another language.
    """
    return _records(knowledge(lang), lang, count, seed, max(1.0, notes_per_patient))


def _records(
    known: Knowledge, lang: str, count: int, seed: int, notes_per_patient: float
) -> Iterator[Note]:
    made = number = 0
    while made < count:
        number += 1
        rng = random.Random(_seed(lang, seed, number))
        patient = draw_patient(rng, known)
        for kind in _kinds(rng, patient, notes_per_patient):
            if made == count:
                return
            made += 1
            page = _write(rng, known, lang, patient, kind)
            yield Note(
                id=f"{lang}-{made:06d}",
                text=page.content,
                profile="synthetic",
                group=f"p{number:05d}",
                lang=lang,
                kind=kind,
                spans=tuple(page.spans),
                origin="synthetic:records",
            )


def _seed(lang: str, seed: int, number: int) -> int:
    return int.from_bytes(
        blake2b(f"{lang}/{seed}/{number}".encode(), digest_size=8).digest(), "big"
    )


def _kinds(rng: random.Random, patient: InventedPatient, notes_per_patient: float) -> list[str]:
    """The kinds of a patient's notes, geometric in number: visits for slow diseases, a hospital
    stay for fast ones."""
    number = 1
    while rng.random() < 1 - 1 / notes_per_patient:
        number += 1
    clinic = {"hours": 0.0, "days": 0.3}.get(patient.condition.scale, 0.5)
    if rng.random() < clinic and patient.condition.key not in EMERGENCIES:
        return ["outpatient"] * number
    if number == 1:
        return [rng.choice(("admission", "progress", "discharge"))]
    return ["admission", *["progress"] * (number - 2), rng.choice(("discharge", "progress"))]


def _write(
    rng: random.Random, known: Knowledge, lang: str, patient: InventedPatient, kind: str
) -> NoteText:
    """Write the sections of one note in one of four layouts."""
    page = NoteText(rng, lang)
    slots = SentenceWriter(page, rng, known, patient, kind)
    layout = rng.choices(tuple(LAYOUTS), tuple(LAYOUTS.values()))[0]
    terse = layout == "list" or (layout == "headed" and rng.random() < 0.4)
    if terse:
        slots.plain()
    for name, chance, low, high in _order(rng, KINDS[kind]):
        if rng.random() < chance:
            _section(slots, _variant(slots, name), rng.randint(low, high), layout, terse)
    return page


def _order(rng: random.Random, plan: Plan) -> list[tuple[str, float, int, int]]:
    """The plan with the background in any order, and sometimes the examination after the tests."""
    sections = list(plan)
    for movable, chance in ((("history", "allergies", "family"), 0.4), (("exam", "tests"), 0.15)):
        places = [place for place, section in enumerate(sections) if section[0] in movable]
        if rng.random() < chance:
            moved = rng.sample(places, len(places))
            sections = [
                sections[moved[places.index(p)]] if p in places else sections[p]
                for p in range(len(sections))
            ]
    return sections


def _variant(slots: SentenceWriter, name: str) -> str:
    """The section of the style that serves this patient; sets what it may draw from."""
    if name == "allergies":
        return "allergy" if slots.patient.allergens else "no_allergy"
    if name in IMPROVED and slots.kind != "outpatient":
        slots.some_have_passed()
    own = slots.patient.condition.procedures
    slots.procedures = own
    if name == "procedure":
        operations = tuple(key for key in own if slots.known.procedures[key].operation)
        care = tuple(key for key in own if key not in operations)
        name = "operation" if operations and (not care or slots.rng.random() < 0.6) else "care"
        slots.procedures = operations if name == "operation" else care
    elif name == "treatment" and slots.home:
        slots.procedures = tuple(key for key in own if not slots.known.procedures[key].operation)
    return name


def _section(slots: SentenceWriter, name: str, number: int, layout: str, terse: bool) -> None:
    """Write one section: heading, sentences, their ends."""
    page, rng, section = slots.page, slots.rng, slots.style.sections[name]
    headed = layout in ("headed", "list")
    chosen = [line for line in (section.terse if terse else section.full) if slots.can(line)]
    head = slots.pick(section.heads) if headed else ""
    if headed and not terse:
        chosen = [line for line in chosen if not _says_again(line, head)] or chosen
    if name == "treatment":  # a sentence or two, each drug once
        number = min(number + terse, max(1, len(slots.drugs) // (1 if terse else 2)))
    if terse and name in ("present", "history", "tests", "course"):
        number += 1
    places = sorted(
        rng.sample(range(len(chosen)), min(len(chosen), number))
    )  # templates stand in narrative order
    lines = [chosen[place] for place in places]
    if name == "tests":
        lines = _each_study_once(slots, lines)
    if name == "exam":
        lines = _examination(slots, lines, terse)
    blank = "" if page.lang == "zh" else " "
    gap = "\n- " if layout == "list" else blank
    if page.last:
        page.raw(blank if layout == "paragraph" else "\n")
    if headed:
        page.start_sentence()
        page.text(head + ("：" if page.lang == "zh" else ":"))
    for position, line in enumerate(lines):
        if position or headed:
            page.raw(gap)
        page.start_sentence()
        slots.fill(line)
        if terse and layout != "list" and page.last not in ".。":
            marks = "；。" if page.lang == "zh" else ";."
            page.text(marks[position == len(lines) - 1])


def _says_again(line: Template, head: str) -> bool:
    """Whether a sentence would repeat its heading: "Diagnosis: the diagnosis is ..."."""
    kind, words = line[0][:2]
    return kind == "text" and (
        words.rstrip()[-1] in ":：" or words.casefold().startswith(head.casefold())
    )


def _each_study_once(slots: SentenceWriter, lines: list[Template]) -> list[Template]:
    """Leave out a second sentence on imaging where the patient had one study only."""
    studies = sum(bool(slots.known.tests[key].findings) for key, _ in slots.patient.condition.tests)
    on_studies = [
        line for line in lines if any(piece[1] in ("img", "studytest", "test") for piece in line)
    ]
    return [line for line in lines if line not in on_studies[max(1, studies) :]]


def _examination(slots: SentenceWriter, lines: list[Template], terse: bool) -> list[Template]:
    """Vital signs first, then what is abnormal, and a normal finding of another system: words
    without a label."""
    patient, vitals = slots.patient, slots.style.sections["vitals"]
    unfit = set(patient.condition.systems)
    signs, symptoms = set(patient.condition.signs), set(patient.condition.symptoms)
    if "node" in signs:
        unfit.add("nodes")
    if (
        signs & {"pale", "cachexia", "icterus", "cold_skin", "hypotension", "face_oedema"}
        or "unable_walk" in symptoms
    ):
        unfit |= {"general", "msk"}
    if "confusion" in symptoms:
        unfit |= {"alert", "neuro"}
    fine = [line for system, line in slots.style.normal if system not in unfit]
    lines = [slots.pick(vitals.terse if terse else vitals.full), *lines]
    lines.insert(slots.rng.randint(0, 2), slots.pick(fine))
    return lines
