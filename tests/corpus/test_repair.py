"""A span is repaired only where exactly one repair is possible."""

from unicodedata import normalize

import pytest
from hypothesis import given
from hypothesis import strategies as st

from residency.corpus import span_repair
from residency.corpus.span_repair import Raw, Settled, settle


def raw(start: int, end: int, quote: str = "", label: str = "X", **more: str) -> Raw:
    return Raw(fragments=((start, end),), label=label, quote=quote, **more)  # type: ignore[arg-type]


def outcome(settled: Settled) -> tuple[list[tuple[int, int]], list[str], list[str]]:
    places = [(span.start, span.end) for span in settled.spans]
    return places, [r.reason for r in settled.repairs], [f.reason for f in settled.faults]


def test_a_quote_at_its_offsets_needs_nothing():
    assert outcome(settle("no fever", [raw(3, 8, "fever")])) == ([(3, 8)], [], [])


def test_a_quote_that_stands_once_is_moved_to():
    assert outcome(settle("no fever", [raw(0, 5, "fever")])) == ([(3, 8)], [span_repair.MOVED], [])


def test_a_quote_that_stands_twice_is_a_bad_span():
    assert outcome(settle("lao lao xx", [raw(1, 4, "lao")])) == ([], [], [span_repair.SEVERAL])


def test_overlapping_places_count_as_several():
    assert outcome(settle("xx anana", [raw(0, 3, "ana")])) == ([], [], [span_repair.SEVERAL])


def test_a_quote_that_stands_nowhere_is_a_bad_span():
    assert outcome(settle("no fever", [raw(3, 8, "cough")])) == ([], [], [span_repair.NOWHERE])


def test_an_inclusive_end_is_moved_where_the_quote_proves_it():
    assert outcome(settle("lao lao lao", [raw(4, 6, "lao")])) == ([(4, 7)], [span_repair.BOUND], [])


def test_an_inclusive_end_cannot_be_known_without_a_quote():
    would_fit = f"{span_repair.INSIDE} ({span_repair.INCLUSIVE}, would fit)"
    assert outcome(settle("lao lao lao", [raw(4, 6)])) == ([], [], [would_fit])
    assert outcome(settle("lao lao lao", [raw(4, 6)], inclusive=True)) == ([(4, 7)], [], [])


def test_case_alone_is_accepted_with_the_characters_of_the_text():
    settled = settle("做ct检查", [raw(1, 3, "CT")])
    assert outcome(settled) == ([(1, 3)], [span_repair.CASE], [])
    assert settled.spans[0].quote == "ct"


def test_case_at_the_offsets_against_the_exact_quote_elsewhere_is_not_certain():
    assert outcome(settle("ct CT", [raw(0, 2, "CT")])) == ([], [], [span_repair.SEVERAL])


@pytest.mark.parametrize(("text_form", "quote_form"), [("NFD", "NFC"), ("NFC", "NFD")])
def test_another_unicode_form_of_the_quote_is_accepted_and_the_text_kept(
    text_form: str, quote_form: str
):
    text, quote = normalize(text_form, "bị sốt cao"), normalize(quote_form, "sốt")
    start = text.index(normalize(text_form, "sốt"))
    end = start + len(normalize(text_form, "sốt"))
    settled = settle(text, [raw(start, end, quote)])
    assert outcome(settled) == ([(start, end)], [span_repair.FORM], [])
    assert settled.spans[0].quote == normalize(text_form, "sốt")


def test_a_line_break_that_the_quote_writes_as_a_blank_is_accepted():
    assert outcome(settle("chest\npain", [raw(0, 10, "chest pain")])) == (
        [(0, 10)],
        [span_repair.BLANKS],
        [],
    )


@pytest.mark.parametrize("quote", ["", " fever "])
def test_blanks_at_the_edges_are_trimmed(quote: str):
    assert outcome(settle("no fever now", [raw(2, 9, quote)])) == (
        [(3, 8)],
        [span_repair.TRIMMED],
        [],
    )


@pytest.mark.parametrize(
    ("span", "fault"),
    [
        (raw(3, 3), span_repair.EMPTY),
        (raw(2, 3), span_repair.EMPTY),
        (raw(5, 3), span_repair.OUTSIDE),
        (raw(-1, 3), span_repair.OUTSIDE),
        (raw(3, 9), span_repair.OUTSIDE),
    ],
)
def test_spans_without_a_quote_that_hold_nothing_or_leave_the_text_are_bad(span: Raw, fault: str):
    assert outcome(settle("no fever", [span])) == ([], [], [fault])


def test_offsets_in_utf16_units_are_converted():
    # The emoji is one code point and two UTF-16 units.
    settled = settle("😷 lao lao", [raw(3, 6, "lao", "A"), raw(7, 10, "lao", "B")])
    assert outcome(settled)[0] == [(2, 5), (6, 9)]
    assert set(outcome(settled)[1]) == {"offsets counted in UTF-16 units"}


def test_offsets_in_utf8_bytes_are_converted():
    # 患者 is two code points and six bytes.
    settled = settle("患者咳 咳", [raw(6, 9, "咳"), raw(10, 13, "咳")])
    assert outcome(settled) == ([(2, 3), (4, 5)], ["offsets counted in UTF-8 bytes"] * 2, [])


def test_offsets_that_count_crlf_as_one_character_are_converted():
    settled = settle("a\r\nlao\r\nlao", [raw(2, 5, "lao"), raw(6, 9, "lao")])
    assert outcome(settled) == (
        [(3, 6), (8, 11)],
        ["offsets counted CRLF as one character"] * 2,
        [],
    )


def test_the_way_of_counting_that_confirms_the_row_decides_for_spans_that_fit_by_chance():
    # By code points [3, 4) holds "a" too; but only one-character line ends fit both quotes.
    settled = settle("b\r\naab", [raw(3, 4, "a", "A"), raw(4, 5, "b", "B")])
    assert outcome(settled)[0] == [(4, 5), (5, 6)]


def test_offsets_that_count_both_characters_of_crlf_stay():
    assert outcome(settle("a\r\nlao\r\nlao", [raw(3, 6, "lao"), raw(8, 11, "lao")])) == (
        [(3, 6), (8, 11)],
        [],
        [],
    )


def test_equal_spans_are_merged_and_different_labels_are_not():
    settled = settle("no fever", [raw(3, 8), raw(3, 8), raw(3, 8, label="Y")])
    assert outcome(settled) == ([(3, 8), (3, 8)], [span_repair.MERGED], [])


def test_overlapping_spans_are_kept_in_the_order_of_the_text():
    assert outcome(settle("high fever", [raw(5, 10), raw(0, 10)]))[0] == [(0, 10), (5, 10)]


def broken(*fragments: tuple[int, int], quote: str) -> Raw:
    return Raw(fragments=fragments, label="X", quote=quote)


def test_a_discontinuous_span_is_bad_even_where_only_a_line_break_parts_it():
    assert outcome(settle("chest\npain", [broken((0, 5), (6, 10), quote="chest pain")]))[2] == [
        span_repair.DISCONTINUOUS
    ]


def test_fragments_parted_by_blanks_are_joined_where_that_is_asked_for():
    settled = settle("chest\npain", [broken((0, 5), (6, 10), quote="chest pain")], join_lines=True)
    assert outcome(settled) == ([(0, 10)], [span_repair.JOINED], [])


def test_fragments_parted_by_words_are_never_joined():
    span = broken((0, 5), (10, 14), quote="chest pain")
    assert outcome(settle("chest and pain", [span], join_lines=True)) == (
        [],
        [],
        [span_repair.DISCONTINUOUS],
    )


def test_nothing_that_is_written_out_shows_the_quote():
    assert "fever" not in repr(settle("no fever", [raw(3, 8, "fever")])) + repr(raw(3, 8, "fever"))


@given(
    st.text("ab \r\n中😷ệ", min_size=1, max_size=30),
    st.integers(0, 40),
    st.integers(0, 40),
    st.text("ab 中😷", max_size=4),
)
def test_whatever_comes_in_a_span_that_comes_out_quotes_the_text(
    text: str, start: int, end: int, quote: str
):
    settled = settle(text, [raw(start, end, quote)])
    assert len(settled.spans) + len(settled.faults) == 1
    for span in settled.spans:
        assert span.quote == text[span.start : span.end]
        assert span.quote == span.quote.strip() != ""
        if quote.strip():
            assert "".join(span.quote.split()).casefold() == "".join(quote.split()).casefold()
