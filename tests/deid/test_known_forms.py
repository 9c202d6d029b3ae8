"""Known means found or refused: whatever form an independent generator writes; and a fault of the
finder's normal form is seen by the second check alone, and by the canaries alone."""

from __future__ import annotations

import os
import re
from collections import Counter
from collections.abc import Callable, Iterator
from functools import cache
from hashlib import blake2b, sha256
from pathlib import Path
from unicodedata import normalize

import pytest
from forms import LATIN, Form, forms
from forms_unicode import unicode_forms

from residency.core.types import RawNote
from residency.deid import squeeze
from residency.deid.draws import RANDOM, Draw
from residency.deid.engine import DeidentifiedNote, Deidentifier, Refused
from residency.deid.known import KnownFinder, known_finder
from residency.deid.options import Deid, Release
from residency.deid.release import ReleaseCheck
from residency.deid.variants import variants
from residency.deid.vault import Vault
from residency.synth.hospital_notes import notes

COUNT = int(os.environ.get("RESIDENCY_KNOWN_FORMS", "2500"))
"""Forms that are tried: 200,000 before a release."""


@pytest.fixture
def vault(tmp_path: Path) -> Vault:
    return Vault.open(tmp_path, bytes(32))


def row(form: Form, number: int = 0) -> RawNote:
    return RawNote(
        id=f"n{number}",
        patient=f"p{form.value}",
        text=form.text,
        lang=form.lang,
        identifiers=((form.kind, form.value),),
    )


def stays(form: Form, done: DeidentifiedNote) -> bool:
    """Whether two letters or digits in a row of what was written are still where they were."""
    written = form.text[form.start : form.end]
    written = re.sub(r"&#?\w+;", lambda sign: " " * len(sign[0]), written)  # a sign of a web page
    for word in re.finditer(r"[^\W_][\w\u0300-\u036f]*", written):
        start, end = form.start + word.start(), form.start + word.end()
        place = done.edits.project(start, end)
        if place and sum(map(str.isalnum, word[0])) > 1:
            kept = done.note.text[slice(*place)] == normalize("NFC", word[0])
            if kept and word[0].lower() not in ("at", "dot"):
                return True
    whole = done.edits.project(form.start, form.end)
    wanted = normalize("NFC", form.text[form.start : form.end].replace("\r\n", "\n"))
    return whole is not None and done.note.text[slice(*whole)] == wanted


def test_the_generator_knows_forty_peoples() -> None:
    assert len(LATIN) + 1 == 40


@pytest.mark.sample
@pytest.mark.parametrize("made", [forms, unicode_forms])
def test_a_known_identifier_is_found_or_its_note_refused_in_every_form(
    vault: Vault, made: Callable[[int, int], Iterator[Form]]
) -> None:
    engine, left, refused = Deidentifier(Deid(), vault), Counter[str](), Counter[str]()
    for number, form in enumerate(made(COUNT, 1)):
        done = engine.process(row(form, number))
        if isinstance(done, Refused):
            refused[form.noise] += 1
        elif stays(form, done):
            left[form.noise] += 1
    print(f"{COUNT} forms, {refused.total()} refused: {refused.most_common(12)}")
    assert not left, f"{left.total()} of {COUNT}: {left.most_common(40)}"
    assert refused.total() <= 0.02 * COUNT, refused.most_common(20)


class Same:
    """Secrets that are the same in every run."""

    def secret(self, patient: str) -> bytes:
        return sha256(patient.encode()).digest()


@pytest.mark.sample
@pytest.mark.parametrize("lang", ["vi", "zh", "en"])
def test_hardly_an_ordinary_note_is_refused(lang: str) -> None:
    engine = Deidentifier(Deid(), Same())
    made = [engine.process(planted.note) for planted in notes(lang, 200, seed=29)]
    assert sum(isinstance(one, Refused) for one in made) <= 0.005 * len(made)


@pytest.mark.parametrize(
    ("lang", "text", "identifiers"),
    [
        (
            "vi",
            "Mã BN: XY1234567, số vào viện: QT7654321, ĐT 0912345678, BN Ba sốt.",
            (("name", "Lê Thị Ba"), ("record", "XY1234567"), ("admission", "AB0000001")),
        ),
        (
            "en",
            "MRN: XY1234567, account QT7654321. Pt Ab Olsen well, pt XY1234567.",
            (("name", "Ab Olsen"), ("record", "XY1234567"), ("account", "BA0000000")),
        ),
    ],
)
def test_a_stand_in_that_is_another_identifier_of_the_row_is_drawn_again(
    lang: str,
    text: str,
    identifiers: tuple[tuple[str, str], ...],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    below = Draw.below
    monkeypatch.setattr(Draw, "below", lambda self, limit: below(self, limit) % 2)
    made = []
    for number in range(100):  # two letters and two numbers to choose from
        raw = RawNote("n", f"p{number}", text, lang, identifiers=identifiers)
        one, again = (Deidentifier(Deid(tagger="off"), Persons()).process(raw) for _ in "12")
        assert isinstance(one, DeidentifiedNote), one
        assert one == again
        made.append(one.note.text)
    assert len(set(made)) > 1


class Persons:
    """Secrets that are the same in every run, of patients whose persons are drawn as one."""

    def secret(self, patient: str) -> bytes:
        drawn = sha256(patient.encode()).digest()[:RANDOM]
        return drawn + blake2b(b"persons", key=drawn, digest_size=8).digest()


NEEDED = {
    "width": "full width",
    "case": "capitals",
    "marks": "no marks",
    "letters": "no marks",
    "scripts": "look-alikes",
    "traditional": "traditional",
    "signs": "apostrophes",
}
"""Step of the normal form -> a form that is not found without it."""


@pytest.fixture
def without(monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest) -> Iterator[str]:
    """The normal form without one of its steps."""
    step = request.param
    steps = {name: do for name, do in squeeze.STEPS.items() if name != step}
    if step == "signs":  # an apostrophe that only the key keeps, as it once was
        steps["signs"] = lambda sign: "" if sign.isspace() else sign
    monkeypatch.setattr(squeeze, "STEPS", steps)
    squeeze.reset()
    known_finder.cache_clear()
    variants.cache_clear()
    yield step
    monkeypatch.undo()
    squeeze.reset()
    known_finder.cache_clear()
    variants.cache_clear()


class Once(Deidentifier):
    """An engine that does not look a second time."""

    def left(self, result: str, lang: str, own: KnownFinder) -> bool:
        return False

    def residue(self, kept: str, raw: RawNote) -> str:
        return ""


class NoRules(Deidentifier):
    """An engine that has the row's identifiers alone."""

    def findings(self, view, dates, own):  # type: ignore[no-untyped-def]
        return list(own.search(view, dates))


class NoRulesOnce(NoRules, Once):
    """Both."""


@cache
def names() -> list[Form]:
    return [one for one in forms(8000, seed=4) if one.kind == "name"]


def affected(step: str, most: int = 60) -> list[Form]:
    """Forms of names that need the step."""
    every = [one for one in names() if NEEDED[step] in one.noise]
    if step == "letters":
        every = [one for one in every if re.search("[łŁøØıđĐ]", one.value)]
    if step == "signs":
        every = [one for one in every if re.search("['’ʻ]", one.value)]
    return [one for one in every if "initials" not in one.noise][:most]


@pytest.mark.parametrize("without", list(squeeze.STEPS), indirect=True)
def test_a_step_of_the_normal_form_that_is_lost_is_seen_by_the_second_check_alone(
    vault: Vault, without: str
) -> None:
    tried, blind, seeing = affected(without), NoRulesOnce(Deid(), vault), NoRules(Deid(), vault)
    gone = [row(one) for one in tried]
    leaks = [
        raw
        for one, raw in zip(tried, gone, strict=True)
        if isinstance(done := blind.process(raw), DeidentifiedNote) and stays(one, done)
    ]
    assert leaks, "the planted fault does harm"
    refused = [done for raw in leaks if isinstance(done := seeing.process(raw), Refused)]
    assert len(refused) >= 0.8 * len(leaks)  # of the others hardly a word is left
    assert all("names" in one.reason for one in refused)


@pytest.mark.parametrize("without", list(squeeze.STEPS), indirect=True)
def test_a_step_of_the_normal_form_that_is_lost_is_seen_by_the_canaries_alone(
    vault: Vault, without: str
) -> None:
    engine = NoRulesOnce(Deid(), vault)
    check = ReleaseCheck(Release(canaries=200, similar=1), engine)  # as many as by default
    for number, form in enumerate(affected(without, 200)):
        kind, lang = form.kind, form.lang
        raw = RawNote(
            id=f"n{number}",
            patient=f"p{number}",
            text="Mạch 82, huyết áp 130/80.",
            lang=lang,
            identifiers=((kind, form.value),),
        )
        check.add(raw, engine.process(raw))
    found = check.verdict()
    assert found.leaked and not found.passed
    assert any("names" in reason for reason in found.reasons)


def test_canaries_are_drawn_at_random_and_not_the_first(vault: Vault) -> None:
    engine = Deidentifier(Deid(), vault)
    check = ReleaseCheck(Release(canaries=10), engine)
    groups = []
    for number in range(60):
        raw = RawNote(
            id=f"n{number}",
            patient=f"p{number}",
            text="No fever.",
            lang="en",
            identifiers=(("name", "Margaret Holloway"),),
        )
        done = engine.process(raw)
        assert isinstance(done, DeidentifiedNote)
        groups.append(done.note.group)
        check.add(raw, done)
    chosen = {groups.index(group) for group in check.canaries}
    assert len(chosen) == 10 and chosen != set(range(10)) and max(chosen) >= 10


@pytest.mark.parametrize(
    ("lang", "name", "text", "count"),
    [
        ("en", "Will Stone", "Will need a CT. WILL and STONE", 3),
        ("vi", "Lê Thị Hạ", "Hạ sốt bằng paracetamol", 1),
        ("zh", "安宁", "病室安宁，患者安宁诉头痛", 1),
    ],
)
def test_words_of_the_row_that_may_be_ordinary_ones_are_counted_where_nothing_tells(
    vault: Vault, lang: str, name: str, text: str, count: int
) -> None:
    raw = RawNote(id="1", patient="p", text=text, lang=lang, identifiers=(("name", name),))
    done = Deidentifier(Deid(), vault).process(raw)
    assert isinstance(done, DeidentifiedNote) and done.undecided == count
