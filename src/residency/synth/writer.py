"""Writes one note: text and spans grow together, so offsets are right by construction."""

from __future__ import annotations

import random
import re
from collections.abc import Callable, Sequence
from functools import partial
from typing import TypeVar

from residency.core.types import Span
from residency.synth.knowledge import Condition, Knowledge, Names, Template, Test
from residency.synth.patient import Patient

T = TypeVar("T")
Item = Callable[[], None]

_UNIT_SPACE = re.compile(r"(?<=\d) (?=(?:mg|g|mcg|ml|IU|U|mmol|G/L|g/L|mm|cm|viên|đơn vị|ngày|lần|°C)\b)")
_NEW_TONES = (("hoá", "hóa"), ("hoà", "hòa"), ("thuỷ", "thủy"), ("thuỳ", "thùy"), ("uỷ", "ủy"), ("oè", "òe"))
_HALF_WIDTH = str.maketrans("，。：；（）？“”", ',.:;()?""')
_CHINESE = "零一两三四五六七八九十"


class Writer:
    """The note so far, with what has been drawn for it."""

    def __init__(self, rng: random.Random, known: Knowledge, lang: str, patient: Patient) -> None:
        self.rng, self.known, self.style, self.lang, self.patient = rng, known, known.style, lang, patient
        self.parts: list[str] = []
        self.at = 0
        self.spans: list[Span] = []
        self.fresh = False
        self.joins: dict[str, tuple[str, str]] = {kind: self.pick(pairs) for kind, pairs in self.style.lists.items()}
        self.gaps = {name: self.pick(gaps) for name, gaps in self.style.gaps.items()}
        self.decks: dict[str, list[str]] = {}
        self.results: dict[str, str] = {}
        self.last_drug = self.last_test = ""
        self.last_other = patient.others[0]
        self.lower = lang != "zh" and rng.random() < 0.06
        self.tight = rng.random() < (0.5 if lang == "zh" else 0.25)
        self.careless = rng.random() < 0.12
        self.half_width = lang == "zh" and rng.random() < 0.15
        self.old_tones = lang == "vi" and rng.random() < 0.3
        self.comma = lang == "vi" and rng.random() < 0.5

    # --- text and spans

    @property
    def content(self) -> str:
        """The text so far."""
        return "".join(self.parts)

    def text(self, piece: str) -> None:
        """Append words without a label."""
        self._append(self._typeset(piece))

    def span(self, piece: str, label: str, attributes: tuple[str, ...] = (), code: str | None = None) -> None:
        """Append words with a label."""
        piece = self._capital(self._typeset(piece))
        start = self.at
        self._append(piece)
        self.spans.append(
            Span(start=start, end=self.at, label=label, quote=piece, code=code, attributes=attributes, by="records")
        )

    def _append(self, piece: str) -> None:
        piece = self._capital(piece)
        self.parts.append(piece)
        self.at += len(piece)

    def _capital(self, piece: str) -> str:
        if self.fresh and piece:
            self.fresh = False
            if not self.lower:
                return piece[0].upper() + piece[1:]
        return piece

    def _typeset(self, piece: str) -> str:
        """The note's own habits: letter case, spaces, width of punctuation, tone marks."""
        if self.tight:
            piece = _UNIT_SPACE.sub("", piece)
        if self.old_tones:
            for old, new in _NEW_TONES:
                piece = piece.replace(new, old)
        if self.half_width:
            piece = piece.translate(_HALF_WIDTH)
        if self.careless and self.rng.random() < 0.3:
            piece = piece.replace(", ", ",", 1) if self.lang != "zh" else piece.replace("，", " ", 1)
        return piece.lower() if self.lower else piece

    # --- chance

    def pick(self, values: Sequence[T]) -> T:
        """One of the values."""
        return values[int(self.rng.random() * len(values))]

    def deal(self, name: str, values: Sequence[str]) -> str:
        """The next of the values in shuffled order, so that a note seldom says the same thing twice."""
        deck = self.decks.get(name)
        if not deck:
            deck = self.decks[name] = list(values)
            self.rng.shuffle(deck)
        return deck.pop()

    # --- layout

    def write(self, plan: Sequence[tuple[str, float, int, int]]) -> None:
        """Write the sections of a plan in one of four layouts."""
        rng = self.rng
        layout = rng.choices(("paragraph", "blocks", "headed", "list"), (0.35, 0.15, 0.35, 0.15))[0]
        terse = layout == "list" or (layout == "headed" and rng.random() < 0.4)
        gap = "" if self.lang == "zh" else " "
        first = True
        for name, chance, low, high in plan:
            if rng.random() > chance:
                continue
            if name == "allergies":
                name = "allergy" if self.patient.allergens else "no_allergy"
            section = self.style.sections[name]
            if not first:
                self._append(gap if layout == "paragraph" else "\n")
            first = False
            if layout in ("headed", "list"):
                colon = "：" if self.lang == "zh" else ":"
                self.text(self.pick(section.heads) + colon + ("" if layout == "list" else gap))
            self._body(name, rng.randint(low, high), terse, "\n- " if layout == "list" else gap, layout)

    def _body(self, name: str, number: int, terse: bool, gap: str, layout: str) -> None:
        section = self.style.sections[name]
        templates = section.terse if terse and section.terse else section.full
        lines = self.rng.sample(templates, min(len(templates), number + (terse and name not in ("complaint",))))
        if name == "exam":
            vitals = self.style.sections["vitals"]
            pool = vitals.terse if terse else vitals.full
            lines.insert(0, self.pick(pool))
            fine = [line for system, line in self.style.normal if system != self.patient.condition.system]
            lines.insert(self.rng.randint(0, 2), self.pick(fine))
        for position, line in enumerate(lines):
            if layout == "list" or position:
                self._append(gap)
            self.fresh = True
            self.fill(line)
            self.fresh = False
            if terse and layout != "list" and not self.parts[-1].endswith((".", "。")):
                last = position == len(lines) - 1
                self.text(("。" if last else "；") if self.lang == "zh" else ("." if last else ";"))

    # --- sentences

    def fill(self, line: Template) -> None:
        """Append a sentence, its slots filled."""
        for piece in line:
            if piece[0] == "text":
                self.text(piece[1])
            elif piece[0] == "slot":
                SLOTS[piece[1]](self)
            else:
                self.text(self._number(piece))

    def _number(self, piece: tuple[str, ...]) -> str:
        number = self.rng.randint(int(piece[1]), int(piece[2]))
        return _CHINESE[number] if piece[3] else str(number)

    def phrase(self, line: Template) -> str:
        """A short template as plain text."""
        return "".join(piece[1] if piece[0] == "text" else self._number(piece) for piece in line)

    def join(self, kind: str, items: Sequence[Item]) -> None:
        """Append items as a list."""
        middle, last = self.joins[kind]
        for position, item in enumerate(items):
            if position:
                self.text(last if position == len(items) - 1 else middle)
            item()

    # --- slots

    def symptom(self, attributes: tuple[str, ...] = ()) -> None:
        """A symptom of the condition, or one that is absent."""
        condition, symptoms = self.patient.condition, self.known.symptoms
        if attributes == ("negated",):
            present = {*condition.symptoms, *(key for other in self.patient.others for key in other.symptoms)}
            key = self.deal("absent symptoms", [key for key in COMMON_SYMPTOMS if key not in present])
        else:
            key = self.deal("symptoms", condition.symptoms)
        self.span(self.pick(symptoms[key]), "symptom", attributes)

    def gone(self) -> None:
        """A symptom of the condition that has passed."""
        key = self.deal("symptoms", self.patient.condition.symptoms)
        self.span(self.pick(self.known.symptoms[key]), "symptom", ("negated",))

    def sign(self) -> None:
        """A sign found on examination."""
        key = self.deal("signs", self.patient.condition.signs)
        self.span(self.pick(self.known.signs[key]), "symptom")

    def no_sign(self) -> None:
        """A sign looked for and not found."""
        pool = [key for key in PLAIN_SIGNS if key not in self.patient.condition.signs]
        self.span(self.pick(self.known.signs[self.deal("absent signs", pool)]), "symptom", ("negated",))

    def disease(self, condition: Condition, label: str = "diagnosis", attributes: tuple[str, ...] = ()) -> None:
        """A disease by one of its names; with its code where it is a diagnosis."""
        code = condition.code if label == "diagnosis" else None
        self.span(self.pick(condition.names), label, attributes, code)

    def differential(self, attribute: str) -> None:
        """A disease considered (uncertain) or excluded (negated)."""
        conditions = self.known.conditions
        fits = [
            key
            for key in self.patient.condition.differential
            if conditions[key].sex in ("any", self.patient.sex)
            and key not in {other.key for other in self.patient.others}
        ]
        self.disease(conditions[self.deal("differential", fits or ("anaemia",))], attributes=(attribute,))

    def other(self, label: str) -> None:
        """Another disease of the patient: history in the past, a diagnosis in the conclusion."""
        others = {other.key: other for other in self.patient.others}
        self.last_other = others[self.deal("others " + label, tuple(others))]
        self.disease(self.last_other, label)

    def relative(self, absent: bool) -> None:
        """A disease in the family, or one that nobody there has."""
        if absent:
            self.disease(self.pick(self.patient.absent[:2]), "history", ("family", "negated"))
        else:
            keys = {item.key: item for item in self.patient.family}
            self.disease(keys[self.deal("family", tuple(keys))], "history", ("family",))

    def not_past(self) -> None:
        """A disease that the patient never had."""
        keys = {item.key: item for item in self.patient.absent}
        self.disease(keys[self.deal("not past", tuple(keys))], "history", ("negated",))

    def operation(self) -> None:
        """A past operation or illness."""
        self.span(self.pick(self.known.past[self.deal("past", self.patient.past)].names), "history")

    def allergen(self, absent: bool) -> None:
        """An allergen, or one that is tolerated."""
        if absent:
            pool = [key for key in self.known.allergens if key not in self.patient.allergens]
            key = self.deal("no allergens", pool)
        else:
            key = self.deal("allergens", self.patient.allergens)
        self.span(self.pick(self.known.allergens[key].names), "allergy", ("negated",) if absent else ())

    def drug(self, key: str = "") -> None:
        """A drug by name."""
        self.last_drug = key or self.deal("drugs", self.patient.drugs)
        self.span(self.pick(self.known.drugs[self.last_drug].names), "drug")

    def dose(self) -> None:
        """How much of the last drug, how, how often."""
        drug, style = self.known.drugs[self.last_drug], self.style
        chosen = self.patient.doses.get(drug.key)
        if chosen is None:
            chosen = self.patient.doses[drug.key] = (self.pick(drug.strengths), self.pick(drug.times))
        strength, times = chosen
        for unit, word in style.units.items():
            strength = strength.replace(unit, word)
        if self.comma:
            strength = strength.replace(".", ",")
        form = self.pick(style.doses)
        form = form.replace("{s}", strength).replace("{r}", self.pick(style.routes[drug.route]))
        self.span(form.replace("{f}", self.pick(style.frequencies[times])), "dose")

    def prescription(self, key: str = "") -> None:
        """A drug and its dose."""
        self.drug(key)
        self.text(self.gaps["drug_gap"])
        self.dose()

    def usual_drug(self) -> None:
        """What is taken for the disease named last."""
        allergic = {key for name in self.patient.allergens for key in self.known.allergens[name].avoid}
        self.prescription(self.pick([key for key in self.last_other.drugs if key not in allergic] or ["paracetamol"]))

    def prescriptions(self) -> None:
        """Two or three drugs, each once."""
        number = min(len(self.patient.drugs), self.rng.randint(2, 3))
        self.decks.pop("drugs", None)
        self.join("drugs", [self.prescription] * number)

    def test(self, study: bool | None = None, named: bool = False) -> None:
        """The name of a test of the condition; ``study`` asks for imaging and the like, or for a lab value."""
        tests = [
            t for t, _ in self.patient.condition.tests if study is None or bool(self.known.tests[t].findings) is study
        ]
        tests = tests or [key for key, _ in self.patient.condition.tests]
        deck = f"tests {study}"
        if study is False and not self.decks.get(deck):
            tests = [*tests, *EXTRA_LABS] if len(tests) < 3 else tests
        self.last_test = self.deal(deck, tuple(dict.fromkeys(tests)))
        self.span(self.pick(self.known.tests[self.last_test].names), "test")

    def result(self) -> None:
        """What the last test gave; the same all through the note."""
        test = self.known.tests[self.last_test]
        if test.key not in self.results:
            kind = dict(self.patient.condition.tests).get(test.key, "=")
            self.results[test.key] = self.value(test, kind)
        self.span(self.results[test.key], "result")

    def value(self, test: Test, kind: str) -> str:
        """A value in range with its unit, a word, or a finding."""
        if test.findings:
            return self.pick(test.findings[kind])
        if self.rng.random() < 0.15:
            return self.pick(self.style.phrases[{"+": "raised", "-": "lowered", "=": "usual"}[kind]])
        low, high = test.ranges[kind]
        number = f"{low + (high - low) * self.rng.random():.{test.digits}f}"
        number = number.replace(".", ",") if self.comma else number
        if not test.unit or self.rng.random() < 0.12:
            return number
        return number + ("" if test.unit == "%" else " ") + test.unit

    def finding(self, study: bool | None) -> None:
        """A test and its result."""
        self.test(study)
        test = self.known.tests[self.last_test]
        self.text(self.gaps["study_gap" if test.findings else "lab_gap"])
        self.result()

    def findings(self) -> None:
        """Two to four lab values."""
        self.join("tests", [lambda: self.finding(False)] * self.rng.randint(2, 4))

    def procedure(self, verb: bool = False, attributes: tuple[str, ...] = ()) -> None:
        """An operation or intervention, with the verb that goes with it where asked for."""
        keys = self.patient.condition.procedures or ("fluids",)
        procedure = self.known.procedures[self.deal("procedures", keys)]
        if verb:
            self.text(self.pick(self.style.phrases["operation_verb" if procedure.operation else "care_verb"]))
        self.span(self.pick(procedure.names), "procedure", attributes)

    def no_procedure(self) -> None:
        """A procedure that is not needed."""
        keys = [
            key
            for key in ("dialysis", "intubation", "transfusion", "central_line", "niv")
            if key not in self.patient.condition.procedures
        ]
        self.span(self.pick(self.known.procedures[self.pick(keys)].names), "procedure", ("negated",))

    def time(self, kind: str) -> None:
        """A time phrase on the scale of the condition."""
        times = self.style.times
        phrases = times.get(kind) or times[kind + self.patient.condition.scale]
        self.span(self.phrase(self.pick(phrases)), "time")

    def some(self, kind: str, item: Item, low: int, high: int, pool: Names) -> None:
        """A list of several, each once."""
        self.join(kind, [item] * min(len(pool), self.rng.randint(low, high)))

    def vital(self, name: str) -> None:
        """A vital sign: plain text, it has no label."""
        self.text(VITALS[name](self))

    def word(self, name: str) -> None:
        """A word that depends on the patient's sex."""
        self.text(self.style.words[name][self.patient.sex])


def _temperature(writer: Writer) -> str:
    warm = "fever" in writer.patient.condition.symptoms
    value = writer.rng.uniform(37.8, 39.6) if warm else writer.rng.uniform(36.4, 37.2)
    text = f"{value:.1f}"
    return text.replace(".", ",") if writer.comma else text


def _pressure(writer: Writer) -> str:
    patient = writer.patient
    low = "hypotension" in patient.condition.signs
    high = any(item.key in ("htn", "preeclampsia", "ich") for item in (patient.condition, *patient.others))
    systolic = writer.rng.randint(*((80, 98) if low else (142, 184) if high else (106, 134)))
    return f"{systolic // 2 * 2}/{int(systolic * 0.6) // 2 * 2}"


VITALS: dict[str, Callable[[Writer], str]] = {
    "temp": _temperature,
    "bp": _pressure,
    "pulse": lambda w: str(w.rng.randint(*((92, 122) if w.patient.condition.scale in ("hours", "days") else (66, 88)))),
    "rr": lambda w: str(w.rng.randint(*((22, 30) if "dyspnoea" in w.patient.condition.symptoms else (16, 20)))),
    "spo2": lambda w: str(w.rng.randint(*((86, 94) if "dyspnoea" in w.patient.condition.symptoms else (96, 99)))),
    "age": lambda w: str(w.patient.age),
    "an": lambda w: "an" if str(w.patient.age)[0] == "8" or w.patient.age in (11, 18) else "a",
    "mf": lambda w: {"male": "M", "female": "F"}[w.patient.sex],
    "icd": lambda w: w.patient.condition.code,
}

COMMON_SYMPTOMS = (
    "fever", "cough", "chest_pain", "dyspnoea", "headache", "vomiting", "diarrhoea", "weight_loss", "palpitation",
    "haemoptysis", "belly_pain", "dysuria", "haematuria", "jaundice", "melaena", "seizure", "syncope", "leg_oedema",
    "rash", "night_sweat", "dizziness", "numbness",
)  # fmt: skip
PLAIN_SIGNS = ("icterus", "jvp", "pitting", "node", "petechiae", "ascites", "neck_stiff", "liver_edge", "crackles")
EXTRA_LABS = ("creat", "na", "k", "glucose", "plt", "hb", "alt", "urea", "wbc")

TIMES = ("dur", "onset", "before", "years", "ago", "course", "follow", "day")

SLOTS: dict[str, Callable[[Writer], None]] = {
    "sym": Writer.symptom,
    "syms": lambda w: w.some("symptoms", w.symptom, 2, 3, w.patient.condition.symptoms),
    "nosym": lambda w: w.symptom(("negated",)),
    "gone": Writer.gone,
    "sign": Writer.sign,
    "signs": lambda w: w.some("symptoms", w.sign, 1, 2, w.patient.condition.signs),
    "nosign": Writer.no_sign,
    "dx": lambda w: w.disease(w.patient.condition),
    "dxu": lambda w: w.disease(w.patient.condition, attributes=("uncertain",)),
    "dx2": lambda w: w.other("diagnosis"),
    "ddx": lambda w: w.differential("uncertain"),
    "nodx": lambda w: w.differential("negated"),
    "hx": lambda w: w.other("history"),
    "hxrx": Writer.usual_drug,
    "op": Writer.operation,
    "nohx": Writer.not_past,
    "fam": lambda w: w.relative(False),
    "nofam": lambda w: w.relative(True),
    "allergen": lambda w: w.allergen(False),
    "noallergen": lambda w: w.allergen(True),
    "drug": Writer.drug,
    "dose": Writer.dose,
    "rx": Writer.prescription,
    "rxs": Writer.prescriptions,
    "test": Writer.test,
    "testname": Writer.test,
    "result": Writer.result,
    "lab": lambda w: w.finding(False),
    "labs": Writer.findings,
    "img": lambda w: w.finding(True),
    "proc": Writer.procedure,
    "doproc": lambda w: w.procedure(True),
    "noproc": Writer.no_procedure,
    **{name: partial(Writer.time, kind=name) for name in TIMES},
    **{name: partial(Writer.vital, name=name) for name in VITALS},
    **{name: partial(Writer.word, name=name) for name in ("sex", "man", "he")},
}
