"""Pieces that a tagger learns from: the same for the same seed, each identifier where it is said to
be, however it is typed."""

from __future__ import annotations

import random

import pytest

from residency.synth.hospital_notes import world
from residency.synth.identified import FOLDER, Piece, composed, cut, pieces, typed
from residency.synth.planting import PIECES


@pytest.mark.parametrize("lang", ["vi", "zh", "en"])
def test_pieces_are_the_same_for_the_same_seed_and_others_for_another(lang: str) -> None:
    assert list(pieces(lang, 20, seed=3)) == list(pieces(lang, 20, seed=3))
    assert list(pieces(lang, 20, seed=3)) != list(pieces(lang, 20, seed=4))


@pytest.mark.parametrize("lang", ["vi", "zh", "en"])
def test_marks_lie_in_their_piece_in_order(lang: str) -> None:
    for piece in pieces(lang, 200, seed=5):
        end = 0
        for start, stop, _ in piece.marks:
            assert end <= start < stop <= len(piece.text)
            assert piece.text[start:stop].strip()
            end = stop


def test_a_mark_goes_with_its_words_however_the_note_is_typed() -> None:
    text = "Name: Ada Quill\nSeen by Dr. Knox: well, at home."
    marks = ((6, 15, "name"), (28, 32, "clinician"))
    for seed in range(200):
        made = typed(Piece(text, marks), "en", random.Random(seed))
        quotes = ["".join(made.text[a:b].split()) for a, b, _ in made.marks]  # or torn by a scanner
        assert [quote.lower()[-4:] for quote in quotes] == ["uill", "knox"], seed


def test_text_in_parts_of_letters_is_composed_and_its_marks_follow() -> None:
    text = "Le\u0302 and Tu\u0301"
    made = composed(Piece(text, ((0, 3, "name"), (8, 11, "name"))))
    assert [made.text[start:end] for start, end, _ in made.marks] == ["L\u00ea", "T\u00fa"]


def test_no_piece_is_cut_through_an_identifier() -> None:
    text = "Dr. A. Knox saw her. " * 30
    marks = tuple((at, at + 7, "clinician") for at in range(4, len(text), 21))
    found = list(cut(Piece(text, marks), 100, random.Random(0)))
    assert "".join(one.text for one in found) == text and len(found) > 3
    assert all(one.text[a:b] == "A. Knox" for one in found for a, b, _ in one.marks)
    assert sum(len(one.marks) for one in found) == 30


@pytest.mark.parametrize("lang", ["vi", "zh", "en"])
def test_clinical_lines_of_the_training_world_hold_no_identifier(lang: str) -> None:
    data = world(lang, FOLDER)
    plain = {slot for slot, one in data["slots"].items() if not one["kind"]} | {"n", "f"}
    for template in data["clinical"]:
        slots = {
            piece[1:-1].partition(":")[0] for piece in PIECES.split(template) if piece[:1] == "{"
        }
        assert slots <= plain, template
