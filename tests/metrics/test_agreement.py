"""Agreement: against the example of Krippendorff, hand computations and the reference package."""

from __future__ import annotations

import random

import krippendorff
import numpy as np
import pytest

from residency.core.types import Span
from residency.metrics.alpha import alpha, coincidences, met, of_label, table


def span(start: int, end: int, label: str) -> Span:
    return Span(start=start, end=end, label=label)


def one_alpha(text: str, versions: list[list[Span]], label: str = "") -> float:
    matrix = coincidences(text, versions)
    rows, values = table([of_label(matrix, label) if label else matrix])
    return float(alpha(rows.sum(axis=0), values))


def test_two_annotators_by_hand() -> None:
    # Ten characters; a marks 0-4, b marks 0-2. Coincidences: xx 4, x- 2, -x 2, -- 12; n = 20, n_x =
    # 6, n_- = 14... the pairs of characters 2 and 3 differ: o_x- = 2 each way. alpha = 1 - 19 * 4 /
    # (2 * 6 * 14) = 1 - 76 / 168.
    found = one_alpha("abcdefghij", [[span(0, 4, "x")], [span(0, 2, "x")]])
    assert found == pytest.approx(1 - 76 / 168)


def test_three_annotators_by_hand() -> None:
    # Four characters, values (x,x,x), (x,x,-), (-,-,-), (-,-,-): unit 2 has pairs xx 2, x- 2, -x 2,
    # each over m - 1 = 2. o_xx = 3 + 1 = 4, o_x- = o_-x = 1, o_-- = 6; n = 12, n_x = 5, n_- = 7:
    # alpha = 1 - 11 * 2 / (2 * 5 * 7) = 1 - 22 / 70.
    versions = [[span(0, 2, "x")], [span(0, 2, "x")], [span(0, 1, "x")]]
    assert one_alpha("abcd", versions) == pytest.approx(1 - 22 / 70)


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("label", ["", "a"])
def test_it_agrees_with_the_reference_package_on_random_annotations(seed: int, label: str) -> None:
    rng = random.Random(seed)
    text = "".join(rng.choice("ab c") for _ in range(200))
    versions = []
    for _ in range(3):
        starts = [rng.randrange(190) for _ in range(12)]
        versions.append([span(s, s + rng.randint(1, 10), rng.choice("abc")) for s in starts])
    rows = []
    for spans in versions:
        values = [
            "+".join(sorted({s.label for s in spans if s.start <= i < s.end}))
            for i in range(len(text))
        ]
        if label:
            values = ["yes" if label in value else "no" for value in values]
        rows.append(
            [
                value or "none"
                for value, character in zip(values, text, strict=True)
                if not character.isspace()
            ]
        )
    expected = krippendorff.alpha(reliability_data=np.array(rows), level_of_measurement="nominal")
    assert one_alpha(text, versions, label) == pytest.approx(expected)


def test_notes_add_up_as_if_their_characters_stood_in_one_text() -> None:
    first = ("abcd efgh", [[span(0, 4, "x")], [span(0, 3, "x")], [span(5, 9, "y")]])
    second = ("mnop", [[span(0, 4, "y")], [span(0, 4, "y")], []])
    rows, values = table([coincidences(*first), coincidences(*second)])
    shifted = [
        [*one, *(span(s.start + 9, s.end + 9, s.label) for s in two)]
        for one, two in zip(first[1], second[1], strict=True)
    ]
    assert float(alpha(rows.sum(axis=0), values)) == pytest.approx(
        one_alpha(first[0] + second[0], shifted)
    )


def test_blanks_at_the_edges_order_and_doubles_make_no_difference() -> None:
    text = "sốt cao, ho khan"
    plain = [[span(0, 7, "s"), span(9, 16, "s")], [span(0, 7, "s")]]
    other = [[span(8, 16, "s"), span(0, 7, "s"), span(0, 7, "s")], [span(0, 7, "s")]]
    assert coincidences(text, plain) == coincidences(text, other)


def test_perfect_agreement_is_one_and_no_character_is_not_a_number() -> None:
    assert one_alpha("abc", [[span(0, 1, "x")], [span(0, 1, "x")]]) == 1.0
    assert one_alpha("abc", [[], []]) == 1.0
    assert coincidences("abc", [[span(0, 1, "x")]]) == {}
    assert np.isnan(alpha(np.zeros(4), [(), ("x",)]))


def test_samples_are_computed_at_once() -> None:
    rows, values = table(
        [coincidences("abcd", [[span(0, 2, "x")], [span(0, 1, "x")]]), coincidences("ab", [[], []])]
    )
    both = alpha(np.stack([rows[0], rows.sum(axis=0)]), values)
    assert both[0] == pytest.approx(one_alpha("abcd", [[span(0, 2, "x")], [span(0, 1, "x")]]))
    assert both.shape == (2,)


def test_marks_are_agreed_on_as_krippendorffs_library_says_for_interval_data() -> None:
    import krippendorff

    marks = np.array([[7, 8, 2.5, 10, np.nan, 5], [6, 8, 3, 9, 4, np.nan], [9, 7, 1, 10, 4, 6]])
    units = [[float(one) for one in column if not np.isnan(one)] for column in marks.T]
    rows, values = table([met(unit) for unit in units])
    expected = krippendorff.alpha(reliability_data=marks, level_of_measurement="interval")
    assert float(alpha(rows.sum(axis=0), values)) == pytest.approx(expected)
