"""A span lands where its text went, or is destroyed; it never lands elsewhere."""

import time
import unicodedata
from typing import Literal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from residency.core.edits import Edit, Edits, newlines, normalise
from residency.core.types import Span

ALPHABET = [
    *"ab1 .,\n\r",
    "\r\n",
    *unicodedata.normalize("NFC", "đếộừăỳ"),
    *(unicodedata.normalize("NFD", letter) for letter in "đếộừăỳ"),
    *"\u0301\u0323\u0302\u0307",
    *"患者胸痛，。",
    *"\U00020000\U0002f81a😀👩🏽\u200d\ufe0f\ufeffﬁ①Åİ가",
    *unicodedata.normalize("NFD", "가각が"),
]
texts = st.lists(st.sampled_from(ALPHABET), max_size=25).map("".join)
short = st.lists(st.sampled_from(ALPHABET), max_size=3).map("".join)


@st.composite
def edits_of(draw: st.DrawFn, text: str) -> Edits:
    """Up to five edits between sorted cuts; equal cuts make insertions, empty replacements
    deletions."""
    cuts = sorted(draw(st.lists(st.integers(0, len(text)), max_size=10)))
    pairs = zip(cuts[::2], cuts[1::2], strict=False)
    return Edits.of(text, [(start, end, draw(short)) for start, end in pairs])


@st.composite
def edited(draw: st.DrawFn) -> tuple[str, Edits]:
    text = draw(texts)
    return text, draw(edits_of(text))


@st.composite
def edited_thrice(draw: st.DrawFn) -> tuple[str, Edits, Edits, Edits]:
    text, first = draw(edited())
    second = draw(edits_of(first.apply(text)))
    third = draw(edits_of(second.apply(first.apply(text))))
    return text, first, second, third


def spans_of(length: int) -> list[tuple[int, int]]:
    return [(start, end) for start in range(length) for end in range(start + 1, length + 1)]


# Source "abcdef": insertion of XY before b, "cd" replaced by Z, "f" deleted. Target "aXYbZe".
EXAMPLE = Edits.of("abcdef", [(2, 4, "Z"), (1, 1, "XY"), (5, 6, "")])


def test_apply() -> None:
    assert EXAMPLE.apply("abcdef") == "aXYbZe"
    assert EXAMPLE.target_length == 6
    assert Edits(source_length=3).apply("abc") == "abc"


@pytest.mark.parametrize(
    ("span", "expected", "why"),
    [
        ((0, 1), (0, 1), "untouched before an insertion: the insertion at its end stays outside"),
        ((1, 2), (3, 4), "untouched behind an insertion at its start: it moves"),
        ((0, 2), (0, 4), "an insertion inside: it stretches"),
        ((2, 4), (4, 5), "exactly what is replaced: the replacement"),
        ((1, 5), (3, 6), "a whole edit inside: it shrinks"),
        ((2, 3), None, "inside a replaced piece"),
        ((1, 3), None, "cut by an edit at its end"),
        ((3, 5), None, "cut by an edit at its start"),
        ((5, 6), None, "replaced by nothing"),
        ((4, 6), None, "its last character deleted"),
        ((4, 5), (5, 6), "a deletion behind it"),
    ],
)
def test_forward_projection(
    span: tuple[int, int], expected: tuple[int, int] | None, why: str
) -> None:
    assert EXAMPLE.project(*span) == expected, why


@pytest.mark.parametrize(
    ("span", "expected", "why"),
    [
        ((0, 1), (0, 1), "untouched"),
        ((1, 3), None, "inserted text comes from nowhere"),
        ((0, 2), None, "cuts inserted text"),
        ((1, 4), None, "begins with inserted text"),
        ((0, 4), (0, 2), "holds inserted text"),
        ((4, 5), (2, 4), "a replacement comes from what it replaced"),
        ((3, 6), (1, 5), "what was deleted behind it stays outside"),
    ],
)
def test_back_projection(span: tuple[int, int], expected: tuple[int, int] | None, why: str) -> None:
    assert EXAMPLE.back(*span) == expected, why


def test_a_deletion_at_the_first_character_destroys_even_where_more_edits_follow() -> None:
    assert Edits.of("abcdef", [(0, 1, ""), (3, 4, "x")]).project(0, 6) is None


@pytest.mark.parametrize(
    "replacements",
    [[(0, 2, "x"), (1, 3, "y")], [(1, 1, "x"), (0, 2, "y")], [(2, 5, "")], [(2, 1, "")]],
)
def test_overlapping_or_outside_replacements_are_a_programming_error(
    replacements: list[tuple[int, int, str]],
) -> None:
    with pytest.raises(ValueError, match="overlaps another or leaves the text"):
        Edits.of("abcd", replacements)


@pytest.mark.parametrize("span", [(0, 0), (3, 2), (-1, 2), (5, 7)])
def test_an_empty_or_outside_span_is_a_programming_error(span: tuple[int, int]) -> None:
    with pytest.raises(ValueError, match="is empty or leaves the text"):
        EXAMPLE.project(*span)


def test_edits_are_applied_to_their_own_text_only() -> None:
    with pytest.raises(ValueError, match="of 6 characters applied to one of 2"):
        EXAMPLE.apply("ab")
    with pytest.raises(ValueError, match="cannot follow"):
        EXAMPLE.then(Edits(source_length=5))


def test_replacements_that_change_nothing_are_left_out() -> None:
    assert Edits.of("abc", [(0, 1, "a"), (1, 1, ""), (2, 3, "x")]).pieces == (Edit(2, 3, "x"),)


def test_insertions_at_one_place_keep_their_order() -> None:
    assert Edits.of("ab", [(1, 1, "1"), (1, 1, "2"), (1, 2, "B")]).apply("ab") == "a12B"


def test_repr_shows_no_text() -> None:
    assert "secret" not in repr(Edits.of("abc", [(0, 1, "secret")]))


def test_project_spans_tells_survivors_with_new_quotes_from_destroyed() -> None:
    kept, destroyed = EXAMPLE.project_spans(
        "abcdef",
        [Span(0, 2, "X", quote="ab", code="J44"), Span(2, 3, "Y", quote="c"), Span(4, 5, "Z")],
    )
    assert kept == (Span(0, 4, "X", quote="aXYb", code="J44"), Span(5, 6, "Z", quote="e"))
    assert destroyed == (Span(2, 3, "Y", quote="c"),)


def naive_apply(text: str, edits: Edits) -> str:
    for piece in reversed(edits.pieces):
        text = text[: piece.start] + piece.text + text[piece.end :]
    return text


@given(edited())
def test_apply_equals_replacing_from_the_end(pair: tuple[str, Edits]) -> None:
    text, edits = pair
    assert edits.apply(text) == naive_apply(text, edits)
    assert edits.target_length == len(naive_apply(text, edits))


@given(edited())
def test_untouched_spans_survive_and_keep_their_quote(pair: tuple[str, Edits]) -> None:
    text, edits = pair
    target = edits.apply(text)
    for start, end in spans_of(len(text)):
        touched = any(piece.start < end and piece.end > start for piece in edits.pieces)
        if not touched:
            found = edits.project(start, end)
            assert found is not None
            assert target[found[0] : found[1]] == text[start:end]


@given(edited())
def test_a_survivor_covers_its_untouched_text_and_the_whole_edits_it_holds(
    pair: tuple[str, Edits],
) -> None:
    text, edits = pair
    target = edits.apply(text)
    for start, end in spans_of(len(text)):
        found = edits.project(start, end)
        cut = any(
            piece.start < end
            and piece.end > start
            and not (start <= piece.start and piece.end <= end)
            for piece in edits.pieces
        )
        if cut:
            assert found is None
        if found:
            inside = [piece for piece in edits.pieces if piece.start < end and piece.end > start]
            own = Edits.of(
                text[start:end], [(p.start - start, p.end - start, p.text) for p in inside]
            )
            assert target[found[0] : found[1]] == own.apply(text[start:end]) != ""


@given(edited())
def test_back_undoes_project_and_project_undoes_back(pair: tuple[str, Edits]) -> None:
    text, edits = pair
    for span in spans_of(len(text)):
        if found := edits.project(*span):
            assert edits.back(*found) == span
    for span in spans_of(edits.target_length):
        if found := edits.back(*span):
            assert edits.project(*found) == span


@given(edited_thrice())
def test_composition_applies_one_after_the_other(case: tuple[str, Edits, Edits, Edits]) -> None:
    text, first, second, third = case
    target = third.apply(second.apply(first.apply(text)))
    assert first.then(second).then(third).apply(text) == target
    assert first.then(second.then(third)).apply(text) == target


@given(edited_thrice())
def test_composition_takes_a_survivor_of_each_step_to_the_same_place_or_destroys_it(
    case: tuple[str, Edits, Edits, Edits],
) -> None:
    text, first, second, _ = case
    composed = first.then(second)
    for span in spans_of(len(text)):
        middle = first.project(*span)
        stepwise = middle and second.project(*middle)
        if stepwise:
            assert composed.project(*span) in (stepwise, None)
            separate = all(
                p_end <= piece.start or piece.end <= p_start
                for p_start, p_end in zip(*first._target, strict=True)
                for piece in second.pieces
            )
            if separate:
                assert composed.project(*span) == stepwise


@given(texts, st.sampled_from(["NFC", "NFD", "NFKC"]))
def test_normalise_equals_unicodedata(text: str, form: Literal["NFC", "NFD", "NFKC"]) -> None:
    assert normalise(text, form).apply(text) == unicodedata.normalize(form, text)


@given(st.text(), st.sampled_from(["NFC", "NFD", "NFKC"]))
def test_normalise_equals_unicodedata_on_any_text(
    text: str, form: Literal["NFC", "NFD", "NFKC"]
) -> None:
    assert normalise(text, form).apply(text) == unicodedata.normalize(form, text)


def test_a_word_keeps_its_span_from_nfd_to_nfc() -> None:
    nfc = "Bệnh nhân đau bụng 😀 nhiều"
    nfd = unicodedata.normalize("NFD", nfc)
    word = unicodedata.normalize("NFD", "bụng")
    start = nfd.index(word)
    found = normalise(nfd, "NFC").project(start, start + len(word))
    assert found is not None
    assert nfc[found[0] : found[1]] == "bụng"


def test_a_span_that_splits_a_letter_from_its_marks_is_destroyed() -> None:
    assert normalise("e\u0323\u0302", "NFC").project(0, 1) is None


def test_an_emoji_behind_a_changed_letter_keeps_its_span() -> None:
    assert normalise("ế😀", "NFD").project(1, 2) == (3, 4)


def test_newlines() -> None:
    edits = newlines("a\r\nb\rc\nd\r\r\n")
    assert edits.apply("a\r\nb\rc\nd\r\r\n") == "a\nb\nc\nd\n\n"
    assert edits.project(3, 4) == (2, 3)
    assert edits.project(1, 2) is None


def test_a_long_text_with_many_edits_stays_cheap() -> None:
    text = "ab " * 50_000
    edits = Edits.of(text, [(place, place + 1, "xyz") for place in range(0, len(text), 3)])
    began = time.process_time()
    assert edits.then(Edits(source_length=edits.target_length)) == edits
    for place in range(1, len(text), 3):
        edits.project(place, place + 1)
    assert time.process_time() - began < 3  # about 0.2 s; a linear projection would take hours
