"""Invented questions and answers about invented patients: for the demo and for tests, never for
care.

The answers follow from the generator's own knowledge of conditions, so they are regular; the
patients are drawn.
"""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from functools import cache
from typing import Any

import yaml

from residency.core.types import Note, Turn
from residency.synth.knowledge import DATA, Condition, Knowledge, knowledge

ORIGIN = "synthetic:residency-questions"


def questions(lang: str, count: int, seed: int) -> Iterator[Note]:
    """``count`` conversations of one question and its answer in ``vi``, ``zh`` or ``en``; equal for
    equal seeds.

    Every second one is about a patient; the group is the condition, so that the conditions of the
    test part are new to what was learned. Raises ``UserError`` for another language.
    """
    known, forms = knowledge(lang), _forms()[lang]
    rng = random.Random(f"{lang}/{seed}")
    conditions = sorted(key for key, one in known.conditions.items() if one.symptoms and one.tests)
    kinds = sorted(forms["kinds"])
    for number in range(count):
        condition = known.conditions[rng.choice(conditions)]
        kind = "case" if number % 2 == 0 else rng.choice([kind for kind in kinds if kind != "case"])
        values = _values(condition, known, forms, rng)
        form = forms["kinds"][kind]
        question = _sentence(rng.choice(form["ask"]).format(**values))
        answer = _sentence(form["answer"].format(**values))
        yield Note(
            id=f"q-{lang}-{number:04d}",
            text=question,
            profile="synthetic",
            group=condition.key,
            lang=lang,
            kind=kind,
            turns=(Turn(role="user", text=question), Turn(role="assistant", text=answer)),
            origin=ORIGIN,
        )


def _values(
    condition: Condition, known: Knowledge, forms: dict[str, Any], rng: random.Random
) -> dict[str, str]:
    """What fills a form: the patient and the symptoms are drawn, the answer's parts are those of
    the condition."""
    sex = condition.sex if condition.sex != "any" else rng.choice(("male", "female"))
    shown = sorted(rng.sample(range(len(condition.symptoms)), min(3, len(condition.symptoms))))
    signs = [known.signs[key][0] for key in condition.signs if key in known.signs][:2]
    drugs = [known.drugs[key].names[0] for key in condition.drugs if key in known.drugs][:3]
    tests = dict.fromkeys(
        known.tests[key].names[0] for key, _ in condition.tests if key in known.tests
    )
    others = [
        known.conditions[key].names[0] for key in condition.differential if key in known.conditions
    ][:2]
    symptoms = [condition.symptoms[i] for i in shown]
    listed = {
        "symptoms": [known.symptoms[key][0] for key in symptoms if key in known.symptoms],
        "signs": signs,
        "tests": list(tests)[:3],
        "drugs": drugs,
        "differential": others,
    }
    joined = {name: _joined(items, forms["and"]) or forms["none"] for name, items in listed.items()}
    age = str(rng.randint(*condition.ages))
    return {"name": condition.names[0], "sex": forms["sex"][sex], "age": age, **joined}


def _joined(items: Sequence[str], joints: Sequence[str]) -> str:
    """``a, b and c``."""
    return (
        joints[1].join([joints[0].join(items[:-1]), items[-1]])
        if len(items) > 1
        else "".join(items)
    )


def _sentence(text: str) -> str:
    return text[:1].upper() + text[1:]


@cache
def _forms() -> dict[str, Any]:
    value: dict[str, Any] = yaml.safe_load((DATA / "questions.yaml").read_text("utf-8"))
    return value
