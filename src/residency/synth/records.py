"""Invented clinical records in Vietnamese, Chinese and English, with their labels exact by construction.

A patient is drawn from the knowledge in ``data/``: a condition with its symptoms, tests, drugs and procedures, other
diseases, a past, a family, allergies. Sentences with slots become notes; text and spans grow together. The same word
gets another label by its place (a drug, an allergen; a diagnosis, history, a relative's disease), so that the task is
not a dictionary look-up.
"""

from __future__ import annotations

import random
from collections.abc import Iterator
from hashlib import blake2b

from residency.core.types import Note
from residency.synth.knowledge import knowledge
from residency.synth.patient import Patient, draw_patient
from residency.synth.writer import Writer

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

# Sections by kind of note: (name, chance that the note has it, sentences from, to).
Plan = tuple[tuple[str, float, int, int], ...]
KINDS: dict[str, Plan] = {
    "admission": (
        ("complaint", 1, 1, 1),
        ("present", 1, 2, 3),
        ("history", 0.9, 1, 2),
        ("allergies", 0.75, 1, 1),
        ("family", 0.55, 1, 1),
        ("exam", 0.9, 1, 1),
        ("tests", 0.85, 1, 2),
        ("first_diagnosis", 0.95, 1, 1),
        ("treatment", 0.75, 1, 1),
        ("procedure", 0.45, 1, 1),
        ("plan", 0.3, 1, 1),
    ),
    "progress": (
        ("course", 1, 2, 3),
        ("exam", 0.9, 1, 1),
        ("allergies", 0.35, 1, 1),
        ("tests", 0.9, 1, 2),
        ("diagnosis", 0.8, 1, 1),
        ("procedure", 0.6, 1, 2),
        ("treatment", 1, 1, 2),
        ("plan", 0.9, 1, 2),
    ),
    "discharge": (
        ("complaint", 1, 1, 1),
        ("history", 0.75, 1, 2),
        ("allergies", 0.6, 1, 1),
        ("tests", 0.9, 1, 2),
        ("diagnosis", 1, 1, 1),
        ("procedure", 0.75, 1, 2),
        ("course", 0.9, 1, 2),
        ("treatment", 1, 1, 2),
        ("plan", 0.95, 1, 2),
    ),
    "outpatient": (
        ("complaint", 1, 1, 1),
        ("present", 0.8, 1, 2),
        ("history", 0.8, 1, 2),
        ("allergies", 0.65, 1, 1),
        ("family", 0.4, 1, 1),
        ("exam", 0.9, 1, 1),
        ("tests", 0.8, 1, 1),
        ("diagnosis", 1, 1, 1),
        ("treatment", 1, 1, 2),
        ("procedure", 0.3, 1, 1),
        ("plan", 0.85, 1, 2),
    ),
}
STAYS = (("admission",), ("outpatient",), ("admission", "discharge"), ("admission", "progress", "discharge"))


def records(lang: str, count: int, seed: int = 0, notes_per_patient: float = 1.6) -> Iterator[Note]:
    """Yield ``count`` invented notes in ``vi``, ``zh`` or ``en``, patient by patient.

    Note ``k`` depends on ``lang``, ``seed`` and ``notes_per_patient`` only, never on ``count``. Raises ``UserError`` for
    another language.
    """
    known = knowledge(lang)
    return _records(lang, count, seed, max(1.0, notes_per_patient), known)


def _records(lang: str, count: int, seed: int, notes_per_patient: float, known: object) -> Iterator[Note]:
    made = number = 0
    while made < count:
        number += 1
        rng = random.Random(_seed(lang, seed, number))
        patient = draw_patient(rng, knowledge(lang))
        for kind in _kinds(rng, notes_per_patient):
            if made == count:
                return
            made += 1
            yield _note(rng, lang, patient, kind, number, made)


def _seed(lang: str, seed: int, number: int) -> int:
    return int.from_bytes(blake2b(f"{lang}/{seed}/{number}".encode(), digest_size=8).digest(), "big")


def _kinds(rng: random.Random, notes_per_patient: float) -> list[str]:
    """The notes of a patient: geometric in number, in the order of a stay."""
    number = 1
    while rng.random() < 1 - 1 / notes_per_patient:
        number += 1
    if number == 1:
        return [rng.choice(tuple(KINDS))]
    middle = ["progress"] * (number - 2)
    return ["admission", *middle, rng.choice(("discharge", "outpatient", "progress"))]


def _note(rng: random.Random, lang: str, patient: Patient, kind: str, number: int, made: int) -> Note:
    writer = Writer(rng, knowledge(lang), lang, patient)
    writer.write(KINDS[kind])
    return Note(
        id=f"{lang}-{made:06d}",
        text=writer.content,
        profile="synthetic",
        group=f"p{number:05d}",
        lang=lang,
        kind=kind,
        spans=tuple(writer.spans),
        origin="synthetic:records",
    )
