"""The rule of scoring of the de-identification benchmark, on a note counted by hand."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from residency.core.types import RawNote

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "benchmarks"))
from _deid_cases import Case, Place, Tally, joined, kinds_table

#       0         1         2         3
#       0123456789012345678901234567890123456789
TEXT = "Mr. Jo Ray, seen 3/4, Foley in, MRN 88-1"
PLACES = (
    Place(4, 10, "name", known=True),
    Place(17, 20, "date"),
    Place(36, 40, "record", known=True),
)
CASE = Case(RawNote(id="1", patient="p", text=TEXT), TEXT, PLACES, clinical=((22, 27),))


def counted(*findings: tuple[int, int], case: Case = CASE) -> Tally:
    tally = Tally("it")
    tally.add(case, findings)
    return tally


def test_found_means_every_letter_and_digit_and_nothing_of_the_signs_between() -> None:
    assert counted((4, 6), (7, 10)).found["name", True] == 1
    assert counted((4, 9)).found["name", True] == 0
    assert counted((36, 38), (39, 40)).found["record", True] == 1


def test_a_finding_that_touches_an_identifier_is_right_and_another_false() -> None:
    tally = counted((0, 5), (28, 30))
    assert (tally.sums["findings"], tally.sums["false"]) == (2, 1)


def test_findings_that_overlap_count_once() -> None:
    assert joined([(4, 10), (7, 12), (12, 14), (3, 3)]) == [(4, 12), (12, 14)]
    assert counted((4, 10), (4, 8), (5, 10)).sums["findings"] == 1


def test_a_clinical_span_is_damaged_only_by_a_finding_that_touches_no_identifier() -> None:
    assert counted((22, 24)).sums["damaged"] == 1
    assert counted((17, 24)).sums["damaged"] == 0
    assert counted((17, 20)).sums["damaged"] == 0


def test_a_clinical_span_that_loses_a_letter_is_counted_whatever_the_finding_touches() -> None:
    assert counted((22, 24)).sums["cut"] == 1
    assert counted((17, 24)).sums["cut"] == 1  # beside an identifier: a label on other words
    assert counted((17, 20), (21, 22)).sums["cut"] == 0
    inside = Case(CASE.note, TEXT, PLACES, clinical=((0, 10),))
    assert counted((4, 10), case=inside).sums["cut"] == 0


def test_letters_rightly_replaced_tell_of_findings_that_are_too_wide() -> None:
    tally = counted((17, 27))  # 3/4, Foley: two digits of seven letters and digits
    assert (tally.sums["right"], tally.sums["letters"]) == (2, 7)


def test_recall_is_apart_for_what_the_columns_hold_and_the_rest() -> None:
    tally = counted((4, 10))
    assert tally.recall(known=True) == "0.5000 (2)"
    assert tally.recall(known=False) == "0.0000 (1)"


def test_findings_in_neutral_places_are_neither_right_nor_wrong_but_beside_identifiers_they_count() -> (
    None
):
    case = Case(CASE.note, TEXT, PLACES, neutral=((0, 11),))
    findings = [counted((0, end), case=case).sums["findings"] for end in (3, 5)]
    assert findings == [0, 1]


def test_where_not_every_identifier_is_marked_precision_is_not_said() -> None:
    tally = counted((0, 3), (4, 10), case=Case(CASE.note, TEXT, PLACES, whole=False))
    row = tally.row("en", "x")
    assert "- (0)" in row
    assert tally.recall(known=True) == "0.5000 (2)"


def test_refused_notes_count_as_asked_and_in_no_other_column() -> None:
    tally = counted((4, 10))
    tally.sums["refused"] = 1
    assert tally.row("en", "x")[3] == "2"
    assert tally.row("en", "x")[-2] == "50.00%"


def test_the_table_of_kinds_has_a_column_for_each_system() -> None:
    one, two = counted((4, 10)), counted((17, 20))
    two.system = "other"
    columns, *rows = kinds_table([("en", "x", one), ("en", "x", two)])
    assert columns == ["language", "text", "kind", "it", "other"]
    assert ["en", "x", "name", "1.0000 (1)", "0.0000 (1)"] in rows


@pytest.mark.parametrize("option", [["--worlds", "test"], ["--worlds", "validation", "test"]])
def test_the_test_world_is_scored_only_with_final(option: list[str]) -> None:
    import deid

    with pytest.raises(SystemExit, match="--final"):
        deid.SUBJECT.main(["scoreboard", *option])
