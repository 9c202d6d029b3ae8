"""An invented patient: one main condition, other diseases, a past, a family, allergies."""

from __future__ import annotations

import random
from typing import NamedTuple

from residency.synth.knowledge import Condition, Knowledge, Names

HOME_ROUTES = frozenset({"po", "inh", "neb", "top", "sl", "eye"})
HOME_INJECTIONS = frozenset({"glargine", "regular_insulin", "epo"})


class InventedPatient(NamedTuple):
    """Who the notes of one group are about; keys refer to the knowledge."""

    age: int
    sex: str
    condition: Condition
    others: tuple[Condition, ...]
    family: tuple[Condition, ...]
    absent: tuple[Condition, ...]
    """Diseases that neither the patient nor the family has."""
    operations: Names
    illnesses: Names
    allergens: Names
    banned: frozenset[str]
    """Drugs that touch an allergy."""
    onset: float
    """How long ago it began, from 0 (just now) to 1 on the condition's scale: the same in all
    notes."""
    doses: dict[str, tuple[str, str]]
    """Strength and frequency by drug: the same in all notes; filled as they are written."""

    def drugs(self, condition: Condition, known: Knowledge, home: bool) -> Names:
        """The drugs for one of the patient's conditions that are no danger, and can be taken at
        home if asked."""
        fits = [key for key in condition.drugs if key not in self.banned]
        if home:  # without a nurse
            routes = {key: known.drugs[key].routes[-1] for key in fits}
            fits = [k for k in fits if k in HOME_INJECTIONS or routes[k] in HOME_ROUTES]
        return tuple(fits) or ("paracetamol",)


def draw_patient(rng: random.Random, known: Knowledge) -> InventedPatient:
    """Draw a patient whose diseases, past and allergies fit age, sex and each other."""
    conditions = known.conditions
    condition = conditions[rng.choice(tuple(conditions))]
    age = rng.randint(*condition.ages)
    sex = condition.sex if condition.sex != "any" else rng.choice(("male", "female"))
    others = _others(rng, known, condition, age, sex)
    family = rng.sample(known.familial, 3)
    allergens = tuple(rng.sample(tuple(known.allergens), rng.choice((0, 1, 1, 1, 2))))
    around = {condition.key, *condition.differential, *others}
    past = [key for key, item in known.past.items() if item.fits(age, sex, around)]
    rng.shuffle(past)
    operations = [key for key in past if known.past[key].operation][:2]
    illnesses = [key for key in past if not known.past[key].operation][:2]
    taken = {condition.key, *others, *family, *condition.differential}
    taken.update(*(known.past[key].never_with for key in operations + illnesses))
    absent = rng.sample(
        [key for key in dict.fromkeys(known.familial + known.common) if key not in taken], 4
    )
    return InventedPatient(
        age=age,
        sex=sex,
        condition=condition,
        others=tuple(conditions[key] for key in others),
        family=tuple(conditions[key] for key in family),
        absent=tuple(conditions[key] for key in absent),
        operations=tuple(operations),
        illnesses=tuple(illnesses),
        allergens=allergens,
        banned=frozenset(drug for key in allergens for drug in known.allergens[key].avoid),
        onset=rng.random(),
        doses={},
    )


def _others(
    rng: random.Random, known: Knowledge, condition: Condition, age: int, sex: str
) -> list[str]:
    """One to three long-standing diseases, the likely ones first."""
    fits = {
        key: _fits(known.conditions[key], age, sex)
        for key in (*condition.comorbid, *known.common)
        if key != condition.key
    }
    likely = [key for key in condition.comorbid if fits.get(key)]
    chosen = rng.sample(likely, min(len(likely), rng.randint(1, 2)))
    if "obs" not in condition.systems and rng.random() < 0.3:
        rest = [key for key in known.common if fits.get(key) and key not in likely]
        chosen += rng.sample(rest, min(1, len(rest)))
    mild = [key for key in ("gastritis", "rhinitis", "gerd") if key != condition.key]
    return chosen or [rng.choice(mild)]


def _fits(condition: Condition, age: int, sex: str) -> bool:
    low, high = condition.ages
    return low <= age <= high + 10 and condition.sex in ("any", sex)
