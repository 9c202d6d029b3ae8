"""Invented questions and answers about invented patients: for the demo and for tests, never for
care.

The answers follow from the generator's own knowledge of conditions, so they are regular; the
patients are drawn.
"""

from __future__ import annotations

import random
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from residency.core.types import Note, Turn
from residency.synth.knowledge import Condition, Knowledge, Names, knowledge, read_data

ORIGIN = "synthetic:residency-questions"


def questions(lang: str, count: int, seed: int) -> Iterator[Note]:
    """``count`` conversations of one question and its answer in ``vi``, ``zh`` or ``en``; equal for
    equal seeds.

    Every second one is about a patient; the group is the condition, so that the conditions of the
    test part are new to what was learned. Raises ``UserError`` for another language.
    """
    known, forms = knowledge(lang), read_data("questions")[lang]
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
    tests = dict.fromkeys(key for key, _ in condition.tests)
    listed = {
        "symptoms": _first(known.symptoms, [condition.symptoms[i] for i in shown], 3),
        "signs": _first(known.signs, condition.signs, 2),
        "tests": _first({key: one.names for key, one in known.tests.items()}, tests, 3),
        "drugs": _first({key: one.names for key, one in known.drugs.items()}, condition.drugs, 3),
        "differential": _first(
            {key: one.names for key, one in known.conditions.items()}, condition.differential, 2
        ),
    }
    joined = {name: _joined(items, forms["and"]) or forms["none"] for name, items in listed.items()}
    age = str(rng.randint(*condition.ages))
    return {"name": condition.names[0], "sex": forms["sex"][sex], "age": age, **joined}


def _first(names: Mapping[str, Names], keys: Iterable[str], most: int) -> list[str]:
    """The usual name of the first few keys that have one, each name once."""
    return list(dict.fromkeys(names[key][0] for key in keys if key in names))[:most]


def _joined(items: Sequence[str], joints: Sequence[str]) -> str:
    """``a, b and c``."""
    return joints[1].join([*filter(None, [joints[0].join(items[:-1])]), *items[-1:]])


def _sentence(text: str) -> str:
    return text[:1].upper() + text[1:]
