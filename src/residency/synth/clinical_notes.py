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
from residency.synth.knowledge import Knowledge, Template, knowledge, read_data
from residency.synth.patient import InventedPatient, draw_patient
from residency.synth.slots import SentenceWriter
from residency.synth.writer import NoteText

CLINICAL = ("diagnosis", "symptom", "history", "allergy", "drug", "dose", "test", "result")
LABELS = (*CLINICAL, "procedure", "time")
Plan = list[tuple[str, float, int, int]]
"""Sections of a note in their order: (name, chance that the note has it, sentences from, to)."""
EMERGENCIES = frozenset(
    {"sepsis", "meningitis", "cholangitis", "aki", "preeclampsia", "ectopic", "obstruction"}
)
SICK = ("pale", "cachexia", "icterus", "cold_skin", "hypotension", "face_oedema")
WEAK = frozenset((*SICK, "unable_walk"))
"""Signs and symptoms beside which nobody looks well."""
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
        rng = random.Random(seed_of(lang, seed, number))
        patient = draw_patient(rng, known)
        for kind in _kinds(rng, patient, notes_per_patient)[: count - made]:
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


def seed_of(*parts: object) -> int:
    """A whole number that these parts decide."""
    text = "/".join(map(str, parts))
    return int.from_bytes(blake2b(text.encode(), digest_size=8).digest(), "big")


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
    for name, chance, low, high in _order(rng, read_data("plans")[kind]):
        if rng.random() < chance:
            _section(slots, _variant(slots, name), rng.randint(low, high), layout, terse)
    return page


def _order(rng: random.Random, plan: Plan) -> Plan:
    """The plan with the background in any order, and sometimes the examination after the tests."""
    sections = list(plan)
    for movable, chance in ((("history", "allergies", "family"), 0.4), (("exam", "tests"), 0.15)):
        places = [place for place, section in enumerate(sections) if section[0] in movable]
        if rng.random() < chance:
            moved = [sections[place] for place in rng.sample(places, len(places))]
            for place, section in zip(places, moved, strict=True):
                sections[place] = section
    return sections


def _variant(slots: SentenceWriter, name: str) -> str:
    """The section of the style that serves this patient; sets what it may draw from."""
    if name == "allergies":
        return "allergy" if slots.patient.allergens else "no_allergy"
    if name in IMPROVED and slots.kind != "outpatient":
        slots.some_have_passed()
    own = slots.condition.procedures
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
    places = rng.sample(range(len(chosen)), min(len(chosen), number))
    lines = [chosen[place] for place in sorted(places)]  # templates stand in narrative order
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
    studies = sum(bool(slots.known.tests[key].findings) for key, _ in slots.condition.tests)
    slot_names = {"img", "studytest", "test"}
    on_studies = [line for line in lines if slot_names & {piece[1] for piece in line}]
    return [line for line in lines if line not in on_studies[max(1, studies) :]]


def _examination(slots: SentenceWriter, lines: list[Template], terse: bool) -> list[Template]:
    """Vital signs first, then what is abnormal, and a normal finding of another system: words
    without a label."""
    condition, vitals = slots.condition, slots.style.sections["vitals"]
    unfit, seen = set(condition.systems), {*condition.signs, *condition.symptoms}
    if "node" in condition.signs:
        unfit.add("nodes")
    if seen & WEAK:
        unfit |= {"general", "msk"}
    if "confusion" in condition.symptoms:
        unfit |= {"alert", "neuro"}
    fine = [line for system, line in slots.style.normal if system not in unfit]
    lines = [slots.pick(vitals.terse if terse else vitals.full), *lines]
    lines.insert(slots.rng.randint(0, 2), slots.pick(fine))
    return lines
