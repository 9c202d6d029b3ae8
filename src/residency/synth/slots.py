"""What stands in the slots of the sentences: each slot draws from the patient and writes to the
page."""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import TypeVar

from residency.synth.knowledge import Allergen, Condition, Knowledge, Names, Past, Template, Test
from residency.synth.patient import InventedPatient
from residency.synth.writer import NoteText

T = TypeVar("T")

CHINESE_DIGITS = "零一两三四五六七八九十"
NEGATED, FAMILY, UNCERTAIN = ("negated",), ("family",), ("uncertain",)
EXTRA_LABS = ("na", "k", "plt", "ast", "alt", "inr")
BEGUN = ("dur", "onset", "before", "earlier")
"""Slots of time that say how long ago it began."""
LATER = ("recent", "when", "years", "ago", "course", "soon", "follow", "day")
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
        self.style, self.condition = known.style, patient.condition
        self.joins = {name: self.pick(pairs) for name, pairs in self.style.lists.items()}
        self.joins["symptoms"] = self.pick(self.style.lists["symptoms"][:-1])
        self.gaps = {name: self.pick(gaps) for name, gaps in self.style.gaps.items()}
        self.home = kind == "outpatient"
        self.drugs = patient.drugs(self.condition, known, self.home)
        self.present: Names = self.condition.symptoms
        self.gone: Names = ()
        self.procedures: Names = self.condition.procedures
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
            keys = list(self.condition.symptoms)
            self.rng.shuffle(keys)
            half = max(1, len(keys) // 2)
            self.gone, self.present = tuple(keys[:half]), tuple(keys[half:])
            self._decks.pop("present", None)

    # --- chance

    def pick(self, values: Sequence[T]) -> T:
        """One of the values."""
        return values[int(self.rng.random() * len(values))]

    def deal(self, name: str, values: Sequence[str]) -> str:
        """The next of the values in shuffled order; once all are dealt, the latest come last."""
        deck = self._decks.get(name)
        if not deck:
            recent = self._dealt.get(name, [])[-(len(values) // 2) :] if len(values) > 1 else []
            deck = [value for value in values if value not in recent]
            self.rng.shuffle(deck)
            deck[:0] = [value for value in reversed(recent) if value in values]
            self._decks[name] = deck
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
        missing = {
            "proc": not self.procedures,
            "doproc": not self.procedures,
            "when": self.kind == "discharge",  # nothing is planned for tomorrow
            "op": not self.patient.operations,
            "ill": not self.patient.illnesses,
        }
        return not any(missing.get(piece[1]) for piece in line if piece[0] == "slot")

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

    def write(self, names: Names, label: str, attributes: Names = (), code: str = "") -> None:
        """One of the names, with a label."""
        self.page.span(self.pick(names), label, attributes, code or None)

    def draw(
        self, deck: str, keys: Sequence[str], table: Mapping[str, Past | Allergen], label: str
    ) -> None:
        """A name of the next of the keys, with a label."""
        self.write(table[self.deal(deck, keys)].names, label)

    # --- symptoms

    def symptom(self) -> None:
        """A symptom that the patient has."""
        self.write(self.known.symptoms[self.deal("present", self.present)], "symptom")

    def symptoms(self) -> None:
        """Two or three symptoms."""
        self.listed("symptoms", self.symptom, min(len(self.present), self.rng.randint(2, 3)))

    def absent_symptom(self) -> None:
        """A symptom that the patient does not have."""
        has = {key for one in (self.condition, *self.patient.others) for key in one.symptoms}
        denied = self.known.denied.items()
        self.no_symptom("absent", [k for k, near in denied if k not in has and not near & has])

    def no_symptom(self, deck: str, keys: Sequence[str]) -> None:
        """A symptom that has passed or never was."""
        names = self.known.symptoms[self.deal(deck, keys)]
        usual = self.rng.random() < 0.7
        self.page.span(names[0] if usual else self.pick(names), "symptom", NEGATED)

    def _same(self, key: str, names: Names) -> str:
        """One of the names, the same all through the note: sides and methods must not change."""
        if key not in self._results:
            self._results[key] = self.pick(names)
        return self._results[key]

    def sign(self) -> None:
        """A sign found on examination."""
        key = self.deal("signs", self.condition.signs)
        self.page.span(self._same(key, self.known.signs[key]), "symptom")

    def signs(self) -> None:
        """One or two signs."""
        number = min(len(self.condition.signs), self.rng.randint(1, 2))
        self.listed("symptoms", self.sign, number)

    def absent_sign(self) -> None:
        """A sign looked for and not found."""
        signs, symptoms = self.condition.signs, set(self.condition.symptoms)
        absent = self.known.absent_signs.items()
        pool = [key for key, near in absent if key not in signs and not near & symptoms]
        self.page.span(self.known.signs[self.deal("absent signs", pool)][0], "symptom", NEGATED)

    # --- diseases

    def diagnosis(self, attributes: Names = ()) -> None:
        """The main condition."""
        self.write(self.condition.names, "diagnosis", attributes, self.condition.code)

    def differential(self, attributes: Names) -> None:
        """A disease considered or excluded."""
        conditions, others = self.known.conditions, {other.key for other in self.patient.others}
        fits = [
            key
            for key in self.condition.differential
            if conditions[key].sex in ("any", self.patient.sex) and key not in others
        ]
        condition = conditions[self.deal("differential", fits or ("anaemia",))]
        self.write(condition.names, "diagnosis", attributes, condition.code)

    def other(self, label: str) -> None:
        """A long-standing disease of the patient: history in the past, a diagnosis in the
        conclusion."""
        self._other = self.one_of(f"others {label}", self.patient.others)
        code = self._other.standing_code if label == "diagnosis" else ""
        self.write(self._other.standing_names, label, (), code)

    def one_of(self, deck: str, conditions: Sequence[Condition]) -> Condition:
        """The next of several conditions."""
        by_key = {one.key: one for one in conditions}
        return by_key[self.deal(deck, tuple(by_key))]

    def history(self, condition: Condition, attributes: Names) -> None:
        """A disease of the past or of the family."""
        self.write(condition.standing_names, "history", attributes)

    def relative(self, mother: bool = False) -> None:
        """A disease of a relative."""
        breast_cancer = mother and self.rng.random() < 0.25
        known, family = self.known.conditions, self.patient.family
        self.history(known["breastca"] if breast_cancer else self.one_of("family", family), FAMILY)

    def no_allergen(self) -> None:
        """What the patient is not allergic to; no drug of an allergic patient's own group."""
        own, banned = self.patient.allergens, self.patient.banned
        every = self.known.allergens
        pool = [key for key, one in every.items() if key not in own and not one.avoid & banned]
        self.write(every[self.deal("no allergens", pool)].names, "allergy", NEGATED)

    # --- drugs

    def drug(self) -> None:
        """A drug for the main condition."""
        self.name_drug(self.deal("drugs", self.drugs), self.home)

    def name_drug(self, key: str, home: bool) -> None:
        """A drug, to be followed by its dose."""
        self._drug, self._drug_at_home = key, home
        self.write(self.known.drugs[key].names, "drug")

    def dose(self) -> None:
        """How much of the last drug, how, how often."""
        drug, style, doses = self.known.drugs[self._drug], self.style, self.patient.doses
        if drug.key not in doses:
            doses[drug.key] = (self.pick(drug.strengths), self.pick(drug.times))
        strength, times = doses[drug.key]
        for unit, word in style.units.items():
            strength = strength.replace(unit, word)
        route = self.pick(style.routes[drug.routes[-1 if self._drug_at_home else 0]])
        frequency = self.pick(style.frequencies[times])
        form = self.pick(style.doses).replace("{s}", self._decimal(strength)).replace("{r}", route)
        self.page.span(form.replace("{f}", frequency), "dose")

    def _decimal(self, number: str) -> str:
        return number.replace(".", ",") if self.page.decimal_comma else number

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
        self.name_drug(self.pick(self.patient.drugs(self._other, self.known, True)), True)
        self.page.text(self.gaps["drug_gap"])
        self.dose()

    # --- tests

    def test(self, study: bool | None = None) -> None:
        """The name of a test; ``study`` asks for imaging and the like, or else for a laboratory
        value."""
        own, tests = [key for key, _ in self.condition.tests], self.known.tests
        keys = [key for key in own if study is None or bool(tests[key].findings) is study]
        if study is False:
            keys += [key for key in EXTRA_LABS if key not in own][: max(0, 6 - len(keys))]
        self._test = self.deal(f"tests {study}", keys or own)
        self.write(tests[self._test].names, "test")

    def result(self) -> None:
        """What the last test gave; the same all through the note."""
        if self._test not in self._results:
            self._results[self._test] = self._value(self.known.tests[self._test], self._outcome())
        self.page.span(self._results[self._test], "result")

    def _outcome(self) -> str:
        """How the last test turns out: a direction, or the name of a finding."""
        return dict(self.condition.tests).get(self._test, "=")

    def _value(self, test: Test, kind: str) -> str:
        if test.findings:
            return self.pick(test.findings[kind])
        if self.rng.random() < 0.15:
            word = {"+": "raised", "-": "lowered", "=": "usual"}[kind]
            return self.pick(self.style.phrases[word])
        low, high = test.ranges[kind]
        number = self._decimal(f"{low + (high - low) * self.rng.random():.{test.digits}f}")
        if not test.unit or self.rng.random() < 0.12:
            return number
        return number + ("" if test.unit == "%" else " ") + test.unit

    def finding(self, study: bool) -> None:
        """A test and its result."""
        self.test(study)
        short = self._outcome() in ("pos", "score") or not self.known.tests[self._test].findings
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
            kind = "operation_verb" if procedure.operation else "care_verb"
            self.page.text(self.pick(self.style.phrases[kind]))
        self.page.span(self._same(key, procedure.names), "procedure")

    def no_procedure(self) -> None:
        """A procedure that is not needed."""
        keys = [key for key in BURDEN if key not in self.condition.procedures]
        self.write(self.known.procedures[self.pick(keys)].names, "procedure", NEGATED)

    # --- time and vital signs

    def time(self, kind: str) -> None:
        """A time phrase that fits the condition and the kind of note."""
        scale, times = self.condition.scale, self.style.times
        pace = "acute" if scale in ("hours", "days") else "chronic"
        place = {"outpatient": "clinic", "admission": "arrival"}.get(self.kind, "ward")
        kind = "earlier" if kind == "before" and self.home else kind
        keys = (kind + rest for rest in ("", scale, pace, place))
        phrases = next(times[key] for key in keys if key in times)
        where = self.patient.onset if kind in BEGUN else self.rng.random()
        pieces = self.pick(phrases)
        words = (one[1] if one[0] == "text" else self._number(one, where) for one in pieces)
        self.page.span("".join(words), "time")

    def word(self, name: str) -> None:
        """A word that depends on the patient's sex."""
        self.page.text(self.style.words[name][self.patient.sex])

    def temperature(self) -> None:
        """A body temperature, with or without fever."""
        ill = "fever" in self.present
        warm = self.rng.uniform(37.8, 39.6) if ill else self.rng.uniform(36.4, 37.2)
        self.page.text(self._decimal(f"{warm:.1f}"))

    def pressure(self) -> None:
        """A blood pressure."""
        range_ = (106, 134)
        if "hypotension" in self.condition.signs and not self.gone:
            range_ = (82, 98)
        elif self.condition.key in ("htn", "preeclampsia", "ich"):
            range_ = (142, 184)
        elif any(item.key == "htn" for item in self.patient.others):
            range_ = (126, 158)
        systolic = self.rng.randint(*range_)
        diastolic = int(systolic * self.rng.uniform(0.55, 0.63))
        self.page.text(f"{systolic // 2 * 2}/{diastolic // 2 * 2}")

    def vital(self, symptom: str, ill: tuple[int, int], well: tuple[int, int]) -> None:
        """A vital sign in one of two ranges, by whether the patient has a symptom."""
        self.page.text(str(self.rng.randint(*(ill if symptom in self.present else well))))

    def fact(self, name: str) -> None:
        """What is plain text about the patient, without a label."""
        patient = self.patient
        vowel = patient.age == 18 or patient.age // 10 == 8
        facts = {"age": str(patient.age), "an": "an" if vowel else "a", "icd": self.condition.code}
        self.page.text(facts.get(name) or {"male": "M", "female": "F"}[patient.sex])


SLOTS: dict[str, Callable[[SentenceWriter], None]] = {
    "sym": SentenceWriter.symptom,
    "syms": SentenceWriter.symptoms,
    "nosym": SentenceWriter.absent_symptom,
    "gone": lambda s: s.no_symptom("gone", s.gone),
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
    "op": lambda s: s.draw("past True", s.patient.operations, s.known.past, "history"),
    "ill": lambda s: s.draw("past False", s.patient.illnesses, s.known.past, "history"),
    "nohx": lambda s: s.history(s.one_of("not past", s.patient.absent), NEGATED),
    "fam": SentenceWriter.relative,
    "famf": partial(SentenceWriter.relative, mother=True),
    "nofam": lambda s: s.history(s.pick(s.patient.absent[:2]), ("family", "negated")),
    "allergen": lambda s: s.draw("allergens", s.patient.allergens, s.known.allergens, "allergy"),
    "noallergen": SentenceWriter.no_allergen,
    "drug": SentenceWriter.drug,
    "homedrug": lambda s: s.name_drug(
        s.deal("home drugs", s.patient.drugs(s.condition, s.known, True)), True
    ),
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
    "temp": SentenceWriter.temperature,
    "bp": SentenceWriter.pressure,
    "pulse": partial(SentenceWriter.vital, symptom="fever", ill=(92, 118), well=(66, 96)),
    "rr": partial(SentenceWriter.vital, symptom="dyspnoea", ill=(22, 30), well=(16, 20)),
    "spo2": partial(SentenceWriter.vital, symptom="dyspnoea", ill=(87, 94), well=(96, 99)),
    **{name: partial(SentenceWriter.time, kind=name) for name in (*BEGUN, *LATER)},
    **{name: partial(SentenceWriter.fact, name=name) for name in ("age", "an", "mf", "icd")},
    **{name: partial(SentenceWriter.word, name=name) for name in ("sex", "man", "he")},
}
