"""The release check: each of its limits can stop a corpus, and says why in one sentence without a
word of any note."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pytest

from residency.core.types import RawNote, Span
from residency.deid.dates import DateMention
from residency.deid.engine import Deidentifier
from residency.deid.find import Finding
from residency.deid.known import KnownFinder
from residency.deid.options import Deid, Release
from residency.deid.release import ReleaseCheck, ReleaseVerdict
from residency.deid.vault import Vault
from residency.deid.view import View
from residency.metrics.intervals import upper_bound

PERSON = (("name", "Margaret Holloway"), ("phone", "(212) 555-0147"), ("record", "MR-20240117"))


@pytest.fixture
def engine(tmp_path: Path) -> Deidentifier:
    return Deidentifier(Deid(), Vault.open(tmp_path, bytes(32)))


def verdict(engine: Deidentifier, texts: list[str], **limits: object) -> ReleaseVerdict:
    check = ReleaseCheck(Release.model_validate(limits), engine)
    for number, text in enumerate(texts):
        spans = (Span(start=0, end=4, label="finding", quote=text[:4]),)
        raw = RawNote(
            id=f"n{number}",
            patient=f"p{number}",
            text=text,
            lang="en",
            spans=spans,
            identifiers=PERSON,
        )
        check.add(raw, engine.process(raw))
    return check.verdict()


@pytest.mark.parametrize(
    ("events", "trials", "bound"),
    [
        (0, 200, 0.01487),  # 1 - 0.05 ** (1 / 200)
        (0, 149, 0.01991),
        (1, 100, 0.04656),  # quantile 0.95 of Beta(2, 99)
        (5, 5, 1.0),
        (0, 0, 1.0),
    ],
)
def test_the_upper_bound_is_that_of_clopper_and_pearson(
    events: int, trials: int, bound: float
) -> None:
    assert upper_bound(events, trials) == pytest.approx(bound, abs=1e-5)


def test_a_corpus_without_fault_passes_and_canaries_count_patients(engine: Deidentifier) -> None:
    found = verdict(engine, ["Cough for three days, no fever."] * 3)
    assert (found.passed, found.reasons, found.canaries, found.leaked) == (True, (), 3, 0)
    assert found.upper_bound == pytest.approx(1 - 0.05 ** (1 / 3))


def test_no_notes_are_no_corpus(engine: Deidentifier) -> None:
    assert verdict(engine, []).reasons == ("there are no notes",)


def test_too_few_patients_for_the_bound_stop_a_corpus(engine: Deidentifier) -> None:
    found = verdict(engine, ["Cough for three days."] * 3, bound=0.02)
    assert not found.passed and "deid.release.bound" in found.reasons[0]


class Leaky(Deidentifier):
    """An engine whose rules see nothing and that does not look again."""

    def findings(self, view: View, dates: Sequence[DateMention], own: KnownFinder) -> list[Finding]:
        return []

    def left(self, result: str, lang: str, own: KnownFinder) -> bool:
        return False

    def residue(self, kept: str, raw: RawNote) -> str:
        return ""


def test_identifiers_that_come_out_stop_a_corpus(tmp_path: Path) -> None:
    found = verdict(Leaky(Deid(), Vault.open(tmp_path, bytes(32))), ["Cough."] * 2, similar=1)
    assert found.reasons == (
        "planted identifiers came out for 2 of 2 patients: names of several words (2), "
        "phone numbers with a hyphen (2), record numbers with a hyphen (2)",
    )


@pytest.mark.parametrize(
    "text",
    [
        "Seen today, chart 20240118 copied.",  # one digit wrong
        "Seen today, chart 20240171 copied.",  # two swapped
        "Seen today with Hollowey at the bedside.",  # one letter wrong
    ],
)
def test_a_number_or_a_name_one_sign_away_from_the_patients_own_stops_a_corpus(
    tmp_path: Path, text: str
) -> None:
    found = verdict(Leaky(Deid(), Vault.open(tmp_path, bytes(32))), [text], canaries=0)
    assert found.similar == 1
    assert "deid.release.similar" in found.reasons[0] and "Hollow" not in found.reasons[0]
    assert verdict(
        Leaky(Deid(), Vault.open(tmp_path, bytes(32))), [text], canaries=0, similar=1
    ).passed


def test_what_was_put_in_is_not_taken_for_the_patients_own(engine: Deidentifier) -> None:
    assert (
        verdict(
            engine, [f"Seen {name} at 20 mg." for name in ("Mr Holloway", "Margaret Holloway")]
        ).similar
        == 0
    )


def test_refused_notes_stop_a_corpus(engine: Deidentifier) -> None:
    check = ReleaseCheck(Release(), engine)
    check.add(
        RawNote(id="1", patient="", text="x"), engine.process(RawNote(id="1", patient="", text="x"))
    )
    assert "deid.release.refused = 5.0%" in check.verdict().reasons[0]


def test_rare_combinations_are_counted_and_stop_a_corpus_where_the_settings_say_so(
    engine: Deidentifier,
) -> None:
    counted = verdict(engine, ["Cough for three days."] * 2)
    assert (counted.passed, counted.rare, counted.rare_patients) == (True, 1, 2)
    stopped = verdict(engine, ["Cough for three days."] * 2, rare_patients=0.5)
    assert "2 of 2 patients have a combination that fewer than 5 share" in stopped.reasons[0]
    assert verdict(engine, ["Cough for three days."] * 2, rare_patients=0.5, rare=2).passed
