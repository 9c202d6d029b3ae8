"""What stands in the slots of the sentences: each slot draws from the patient and writes to the
page."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from functools import partial
from typing import TypeVar

from residency.synth.knowledge import Condition, Knowledge, Names, Template, Test
from residency.synth.patient import InventedPatient
from residency.synth.writer import NoteText

T = TypeVar("T")

CHINESE_DIGITS = "零一两三四五六七八九十"
NEGATED, FAMILY, UNCERTAIN = ("negated",), ("family",), ("uncertain",)
EXTRA_LABS = ("na", "k", "plt", "ast", "alt", "inr")
BURDEN = ("dialysis", "intubation", "transfusion", "central_line", "niv")


class SentenceWriter:
    """The state of one note: what has been said, and what the next slot may say."""

    def __init__(
        self,
        page: NoteText,
        rng: random.Random,
        known: Knowledge,
        patient: InventedPatient,
        kind: str,
    ) -> None:
        self.page, self.rng, self.known, self.patient, self.kind = page, rng, known, patient, kind
        self.style = known.style
        self.joins = {name: self.pick(pairs) for name, pairs in self.style.lists.items()}
        self.joins["symptoms"] = self.pick(self.style.lists["symptoms"][:-1])
        self.gaps = {name: self.pick(gaps) for name, gaps in self.style.gaps.items()}
        self.home = kind == "outpatient"
        self.drugs = patient.drugs(patient.condition, known, self.home)
        self.present: Names = patient.condition.symptoms
        self.gone: Names = ()
        self.procedures: Names = patient.condition.procedures
        self._decks: dict[str, list[str]] = {}
        self._dealt: dict[str, list[str]] = {}
        self._results: dict[str, str] = {}
        self._drug = self._test = ""
        self._drug_at_home = False
        self._other = patient.others[0]

    def plain(self) -> None:
        """Terse notes put no verb between a test and its result, and may join with a plus sign."""
        self.joins["symptoms"] = self.pick(self.style.lists["symptoms"])
        self.gaps["lab_gap"] = self.style.gaps["lab_gap"][self.rng.randrange(3)]
        self.gaps["study_gap"] = self.style.gaps["study_gap"][0]

    def some_have_passed(self) -> None:
        """From here on the condition's symptoms fall into those that remain and those that are
        gone."""
        if not self.gone:
            keys = list(self.patient.condition.symptoms)
            self.rng.shuffle(keys)
            half = max(1, len(keys) // 2)
            self.gone, self.present = tuple(keys[:half]), tuple(keys[half:])
            self._decks.pop("present", None)

    # --- chance

    def pick(self, values: Sequence[T]) -> T:
        """One of the values."""
        return values[int(self.rng.random() * len(values))]

    def deal(self, name: str, values: Sequence[str]) -> str:
        """The next of the values in shuffled order; when all are dealt, those dealt last come last."""
        deck = self._decks.get(name)
        if not deck:
            recent = self._dealt.get(name, [])[-(len(values) // 2) :] if len(values) > 1 else []
            deck = [value for value in values if value not in recent]
            self.rng.shuffle(deck)
            deck = self._decks[name] = [
                value for value in reversed(recent) if value in values
            ] + deck
        value = deck.pop()
        self._dealt.setdefault(name, []).append(value)
        return value

    # --- sentences

    def fill(self, line: Template) -> None:
        """Write a sentence, its slots filled."""
        for piece in line:
            if piece[0] == "text":
                self.page.text(piece[1])
            elif piece[0] == "slot":
                SLOTS[piece[1]](self)
            else:
                self.page.text(self._number(piece, self.rng.random()))

    def can(self, line: Template) -> bool:
        """Whether the patient has what the slots of a sentence ask for."""
        missing = set()
        if not self.procedures:
            missing |= {"proc", "doproc"}
        if self.kind == "discharge":  # nothing is planned for tomorrow
            missing.add("when")
        if not self.patient.operations:
            missing.add("op")
        if not self.patient.illnesses:
            missing.add("ill")
        return not missing or all(piece[1] not in missing for piece in line if piece[0] == "slot")

    def _number(self, piece: tuple[str, ...], place: float) -> str:
        low, high = int(piece[1]), int(piece[2])
        number = low + int(place * (high - low + 1))
        return CHINESE_DIGITS[number] if piece[3] else str(number)

    def listed(self, kind: str, item: Callable[[], None], number: int) -> None:
        """Write several items as a list."""
        middle, last = self.joins[kind]
        if number == 2 and len(last.strip()) > 1:  # "a and b", but "a, b, and c"
            last = last.lstrip(",")
        for position in range(number):
            if position:
                self.page.text(last if position == number - 1 else middle)
            item()

    # --- symptoms

    def symptom(self) -> None:
        """A symptom that the patient has."""
        self.page.span(
            self.pick(self.known.symptoms[self.deal("present", self.present)]), "symptom"
        )

    def symptoms(self) -> None:
        """Two or three symptoms."""
        self.listed("symptoms", self.symptom, min(len(self.present), self.rng.randint(2, 3)))

    def gone_symptom(self) -> None:
        """A symptom that has passed."""
        self.page.span(
            self._usual(self.known.symptoms[self.deal("gone", self.gone)]), "symptom", NEGATED
        )

    def absent_symptom(self) -> None:
        """A symptom that the patient does not have."""
        has = {
            *self.patient.condition.symptoms,
            *(key for other in self.patient.others for key in other.symptoms),
        }
        pool = [
            key for key, beside in self.known.denied.items() if key not in has and not beside & has
        ]
        self.page.span(
            self._usual(self.known.symptoms[self.deal("absent", pool)]), "symptom", NEGATED
        )

    def _usual(self, names: Names) -> str:
        return names[0] if self.rng.random() < 0.7 else self.pick(names)

    def _same(self, key: str, names: Names) -> str:
        """One of the names, the same all through the note: sides and methods must not change."""
        if key not in self._results:
            self._results[key] = self.pick(names)
        return self._results[key]

    def sign(self) -> None:
        """A sign found on examination."""
        key = self.deal("signs", self.patient.condition.signs)
        self.page.span(self._same(key, self.known.signs[key]), "symptom")

    def signs(self) -> None:
        """One or two signs."""
        self.listed(
            "symptoms", self.sign, min(len(self.patient.condition.signs), self.rng.randint(1, 2))
        )

    def absent_sign(self) -> None:
        """A sign looked for and not found."""
        condition = self.patient.condition
        symptoms = set(condition.symptoms)
        pool = [
            k
            for k, beside in self.known.absent_signs.items()
            if k not in condition.signs and not beside & symptoms
        ]
        self.page.span(self.known.signs[self.deal("absent signs", pool)][0], "symptom", NEGATED)

    # --- diseases

    def diagnosis(self, attributes: tuple[str, ...] = ()) -> None:
        """The main condition."""
        condition = self.patient.condition
        self.page.span(self.pick(condition.names), "diagnosis", attributes, condition.code)

    def differential(self, attributes: tuple[str, ...]) -> None:
        """A disease considered or excluded."""
        conditions, others = self.known.conditions, {other.key for other in self.patient.others}
        fits = [
            key
            for key in self.patient.condition.differential
            if conditions[key].sex in ("any", self.patient.sex) and key not in others
        ]
        condition = conditions[self.deal("differential", fits or ("anaemia",))]
        self.page.span(self.pick(condition.names), "diagnosis", attributes, condition.code)

    def other(self, label: str) -> None:
        """A long-standing disease of the patient: history in the past, a diagnosis in the
        conclusion."""
        others = {other.key: other for other in self.patient.others}
        self._other = others[self.deal(f"others {label}", tuple(others))]
        code = self._other.standing_code if label == "diagnosis" else None
        self.page.span(self.pick(self._other.standing_names), label, (), code)

    def _history(self, condition: Condition, attributes: tuple[str, ...]) -> None:
        self.page.span(self.pick(condition.standing_names), "history", attributes)

    def relative(self, mother: bool = False) -> None:
        """A disease of a relative."""
        if mother and self.rng.random() < 0.25:
            self._history(self.known.conditions["breastca"], FAMILY)
        else:
            family = {item.key: item for item in self.patient.family}
            self._history(family[self.deal("family", tuple(family))], FAMILY)

    def no_relative(self) -> None:
        """A disease that nobody in the family has."""
        self._history(self.pick(self.patient.absent[:2]), ("family", "negated"))

    def not_past(self) -> None:
        """A disease that the patient never had."""
        absent = {item.key: item for item in self.patient.absent}
        self._history(absent[self.deal("not past", tuple(absent))], NEGATED)

    def past(self, operation: bool) -> None:
        """A past operation or illness."""
        keys = self.patient.operations if operation else self.patient.illnesses
        self.page.span(
            self.pick(self.known.past[self.deal(f"past {operation}", keys)].names), "history"
        )

    def allergen(self) -> None:
        """What the patient is allergic to."""
        key = self.deal("allergens", self.patient.allergens)
        self.page.span(self.pick(self.known.allergens[key].names), "allergy")

    def no_allergen(self) -> None:
        """What the patient is not allergic to; no drug of an allergic patient's own group."""
        pool = [
            key
            for key, item in self.known.allergens.items()
            if key not in self.patient.allergens and not item.avoid & self.patient.banned
        ]
        self.page.span(
            self.pick(self.known.allergens[self.deal("no allergens", pool)].names),
            "allergy",
            NEGATED,
        )

    # --- drugs

    def drug(self) -> None:
        """A drug for the main condition."""
        self._name_drug(self.deal("drugs", self.drugs), self.home)

    def home_drug(self) -> None:
        """A drug for the main condition that is taken at home."""
        keys = self.patient.drugs(self.patient.condition, self.known, True)
        self._name_drug(self.deal("home drugs", keys), True)

    def _name_drug(self, key: str, home: bool) -> None:
        self._drug, self._drug_at_home = key, home
        self.page.span(self.pick(self.known.drugs[key].names), "drug")

    def dose(self) -> None:
        """How much of the last drug, how, how often."""
        drug, style = self.known.drugs[self._drug], self.style
        chosen = self.patient.doses.get(drug.key)
        if chosen is None:
            chosen = self.patient.doses[drug.key] = (
                self.pick(drug.strengths),
                self.pick(drug.times),
            )
        strength = chosen[0]
        for unit, word in style.units.items():
            strength = strength.replace(unit, word)
        if self.page.decimal_comma:
            strength = strength.replace(".", ",")
        route = self.pick(style.routes[drug.routes[-1 if self._drug_at_home else 0]])
        frequency = self.pick(style.frequencies[chosen[1]])
        form = self.pick(style.doses).replace("{s}", strength).replace("{r}", route)
        self.page.span(form.replace("{f}", frequency), "dose")

    def prescription(self) -> None:
        """A drug and its dose."""
        self.drug()
        self.page.text(self.gaps["drug_gap"])
        self.dose()

    def prescriptions(self) -> None:
        """Two or three drugs, each once."""
        self._decks.pop("drugs", None)
        self.listed("drugs", self.prescription, min(len(self.drugs), self.rng.randint(2, 3)))

    def standing_prescription(self) -> None:
        """What is taken for the disease named last."""
        self._name_drug(self.pick(self.patient.drugs(self._other, self.known, True)), True)
        self.page.text(self.gaps["drug_gap"])
        self.dose()

    # --- tests

    def test(self, study: bool | None = None) -> None:
        """The name of a test; ``study`` asks for imaging and the like, or else for a laboratory
        value."""
        own = [key for key, _ in self.patient.condition.tests]
        keys = [
            key for key in own if study is None or bool(self.known.tests[key].findings) is study
        ]
        if study is False:
            keys += [key for key in EXTRA_LABS if key not in own][: max(0, 6 - len(keys))]
        self._test = self.deal(f"tests {study}", keys or own)
        self.page.span(self.pick(self.known.tests[self._test].names), "test")

    def result(self) -> None:
        """What the last test gave; the same all through the note."""
        test = self.known.tests[self._test]
        if test.key not in self._results:
            self._results[test.key] = self._value(
                test, dict(self.patient.condition.tests).get(test.key, "=")
            )
        self.page.span(self._results[test.key], "result")

    def _value(self, test: Test, kind: str) -> str:
        if test.findings:
            return self.pick(test.findings[kind])
        if self.rng.random() < 0.15:
            return self.pick(
                self.style.phrases[{"+": "raised", "-": "lowered", "=": "usual"}[kind]]
            )
        low, high = test.ranges[kind]
        number = f"{low + (high - low) * self.rng.random():.{test.digits}f}"
        if self.page.decimal_comma:
            number = number.replace(".", ",")
        if not test.unit or self.rng.random() < 0.12:
            return number
        return number + ("" if test.unit == "%" else " ") + test.unit

    def finding(self, study: bool) -> None:
        """A test and its result."""
        self.test(study)
        kind = dict(self.patient.condition.tests).get(self._test, "=")
        short = kind in ("pos", "score") or not self.known.tests[self._test].findings
        self.page.text(self.gaps["lab_gap" if short else "study_gap"])
        self.result()

    def findings(self) -> None:
        """Two to four laboratory values."""
        self.listed("tests", partial(self.finding, False), self.rng.randint(2, 4))

    # --- procedures

    def procedure(self, verb: bool = False) -> None:
        """An operation or intervention, after the verb that goes with it where asked for."""
        key = self.deal("procedures", self.procedures)
        procedure = self.known.procedures[key]
        if verb:
            self.page.text(
                self.pick(
                    self.style.phrases["operation_verb" if procedure.operation else "care_verb"]
                )
            )
        self.page.span(self._same(key, procedure.names), "procedure")

    def no_procedure(self) -> None:
        """A procedure that is not needed."""
        keys = [key for key in BURDEN if key not in self.patient.condition.procedures]
        self.page.span(
            self.pick(self.known.procedures[self.pick(keys)].names), "procedure", NEGATED
        )

    # --- time and vital signs

    def time(self, kind: str) -> None:
        """A time phrase that fits the condition and the kind of note."""
        scale, times = self.patient.condition.scale, self.style.times
        pace = "acute" if scale in ("hours", "days") else "chronic"
        place = {"outpatient": "clinic", "admission": "arrival"}.get(self.kind, "ward")
        kind = "earlier" if kind == "before" and self.home else kind
        phrases = next(
            times[kind + rest] for rest in ("", scale, pace, place) if kind + rest in times
        )
        where = (
            self.patient.onset
            if kind in ("dur", "onset", "before", "earlier")
            else self.rng.random()
        )
        phrase = self.pick(phrases)
        self.page.span(
            "".join(p[1] if p[0] == "text" else self._number(p, where) for p in phrase), "time"
        )

    def vital(self, name: str) -> None:
        """A vital sign or the like: plain text without a label."""
        self.page.text(VITALS[name](self))

    def word(self, name: str) -> None:
        """A word that depends on the patient's sex."""
        self.page.text(self.style.words[name][self.patient.sex])


def _temperature(slots: SentenceWriter) -> str:
    warm = "fever" in slots.present
    text = f"{slots.rng.uniform(37.8, 39.6) if warm else slots.rng.uniform(36.4, 37.2):.1f}"
    return text.replace(".", ",") if slots.page.decimal_comma else text


def _pressure(slots: SentenceWriter) -> str:
    patient = slots.patient
    low = "hypotension" in patient.condition.signs and not slots.gone
    high = patient.condition.key in ("htn", "preeclampsia", "ich")
    treated = any(item.key == "htn" for item in patient.others)
    systolic = slots.rng.randint(
        *((82, 98) if low else (142, 184) if high else (126, 158) if treated else (106, 134))
    )
    return f"{systolic // 2 * 2}/{int(systolic * slots.rng.uniform(0.55, 0.63)) // 2 * 2}"


def _vital(slots: SentenceWriter, symptom: str, ill: tuple[int, int], well: tuple[int, int]) -> str:
    return str(slots.rng.randint(*(ill if symptom in slots.present else well)))


VITALS: dict[str, Callable[[SentenceWriter], str]] = {
    "temp": _temperature,
    "bp": _pressure,
    "pulse": lambda s: _vital(s, "fever", (92, 118), (66, 96)),
    "rr": lambda s: _vital(s, "dyspnoea", (22, 30), (16, 20)),
    "spo2": lambda s: _vital(s, "dyspnoea", (87, 94), (96, 99)),
    "age": lambda s: str(s.patient.age),
    "an": lambda s: "an" if s.patient.age == 18 or s.patient.age // 10 == 8 else "a",
    "mf": lambda s: {"male": "M", "female": "F"}[s.patient.sex],
    "icd": lambda s: s.patient.condition.code,
}

TIMES = (
    "dur",
    "onset",
    "before",
    "earlier",
    "recent",
    "when",
    "years",
    "ago",
    "course",
    "soon",
    "follow",
    "day",
)

SLOTS: dict[str, Callable[[SentenceWriter], None]] = {
    "sym": SentenceWriter.symptom,
    "syms": SentenceWriter.symptoms,
    "nosym": SentenceWriter.absent_symptom,
    "gone": SentenceWriter.gone_symptom,
    "sign": SentenceWriter.sign,
    "signs": SentenceWriter.signs,
    "nosign": SentenceWriter.absent_sign,
    "dx": SentenceWriter.diagnosis,
    "dxu": partial(SentenceWriter.diagnosis, attributes=UNCERTAIN),
    "dx2": partial(SentenceWriter.other, label="diagnosis"),
    "ddx": partial(SentenceWriter.differential, attributes=UNCERTAIN),
    "nodx": partial(SentenceWriter.differential, attributes=NEGATED),
    "hx": partial(SentenceWriter.other, label="history"),
    "hxrx": SentenceWriter.standing_prescription,
    "op": partial(SentenceWriter.past, operation=True),
    "ill": partial(SentenceWriter.past, operation=False),
    "nohx": SentenceWriter.not_past,
    "fam": SentenceWriter.relative,
    "famf": partial(SentenceWriter.relative, mother=True),
    "nofam": SentenceWriter.no_relative,
    "allergen": SentenceWriter.allergen,
    "noallergen": SentenceWriter.no_allergen,
    "drug": SentenceWriter.drug,
    "homedrug": SentenceWriter.home_drug,
    "dose": SentenceWriter.dose,
    "rx": SentenceWriter.prescription,
    "rxs": SentenceWriter.prescriptions,
    "studytest": partial(SentenceWriter.test, study=True),
    "testname": SentenceWriter.test,
    "test": partial(SentenceWriter.test, study=True),
    "result": SentenceWriter.result,
    "lab": partial(SentenceWriter.finding, study=False),
    "labs": SentenceWriter.findings,
    "img": partial(SentenceWriter.finding, study=True),
    "proc": SentenceWriter.procedure,
    "doproc": partial(SentenceWriter.procedure, verb=True),
    "noproc": SentenceWriter.no_procedure,
    **{name: partial(SentenceWriter.time, kind=name) for name in TIMES},
    **{name: partial(SentenceWriter.vital, name=name) for name in VITALS},
    **{name: partial(SentenceWriter.word, name=name) for name in ("sex", "man", "he")},
}
