"""An invented patient: one main condition, other diseases, a past, a family, allergies."""

from __future__ import annotations

import random
from typing import NamedTuple

from residency.synth.knowledge import Condition, Knowledge, Names

FAMILIAL = (
    "htn", "t2dm", "cad", "stroke", "colonca", "gastricca", "breastca", "lungca", "asthma", "hepb", "gout",
    "tb", "ra", "depression", "ckd", "epilepsy", "lipid", "psoriasis", "hcc", "parkinson",
)  # fmt: skip
COMMON = ("htn", "t2dm", "lipid", "gastritis", "gerd", "gout", "hepb", "asthma", "goitre", "osteoporosis", "insomnia")


class Patient(NamedTuple):
    """Who the notes of one group are about; keys refer to the knowledge."""

    age: int
    sex: str
    condition: Condition
    others: tuple[Condition, ...]
    family: tuple[Condition, ...]
    absent: tuple[Condition, ...]
    """Diseases that the patient does not have."""
    past: Names
    allergens: Names
    drugs: Names
    """Drugs for the main condition that do not touch an allergy."""
    doses: dict[str, tuple[str, str]]
    """Strength and frequency by drug: the same in all notes; filled as they are written."""


def draw_patient(rng: random.Random, known: Knowledge) -> Patient:
    """Draw a patient."""
    conditions = known.conditions
    condition = conditions[rng.choice(tuple(conditions))]
    age = rng.randint(*condition.ages)
    sex = condition.sex if condition.sex != "any" else rng.choice(("male", "female"))
    pool = [key for key in dict.fromkeys(condition.comorbid + COMMON) if key != condition.key]
    fits = [key for key in pool if _fits(conditions[key], age, sex)]
    likely = [key for key in fits if key in condition.comorbid]
    chosen = rng.sample(likely, min(len(likely), rng.randint(1, 2)))
    if not chosen or rng.random() < 0.3:
        rest = [key for key in fits if key not in chosen]
        chosen += rng.sample(rest, 1) if rest else []
    if not chosen:
        chosen = [rng.choice([key for key in ("gastritis", "rhinitis", "gerd") if key != condition.key])]
    past = rng.sample([key for key, item in known.past.items() if item.sex in ("any", sex)], 2)
    allergens = rng.sample(tuple(known.allergens), rng.choice((0, 1, 1, 1, 2)))
    banned = frozenset().union(*(known.allergens[key].avoid for key in allergens))
    taken = {condition.key, *chosen, *condition.differential}
    absent = [key for key in dict.fromkeys(FAMILIAL + COMMON) if key not in taken]
    return Patient(
        age,
        sex,
        condition,
        tuple(conditions[key] for key in chosen),
        tuple(conditions[key] for key in rng.sample(FAMILIAL, 3)),
        tuple(conditions[key] for key in rng.sample(absent, 4) if conditions[key].sex in ("any", sex)),
        tuple(past),
        tuple(allergens),
        tuple(key for key in condition.drugs if key not in banned) or ("paracetamol",),
        {},
    )


def _fits(condition: Condition, age: int, sex: str) -> bool:
    low, high = condition.ages
    return low <= age <= high + 10 and condition.sex in ("any", sex)
