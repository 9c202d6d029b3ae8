"""Invented questions: the same for the same seed, of every kind, in every language."""

from __future__ import annotations

import pytest

from residency.synth.questions import questions


@pytest.mark.parametrize("lang", ["vi", "zh", "en"])
def test_questions_are_whole_and_repeatable(lang: str) -> None:
    made = list(questions(lang, 200, seed=3))
    assert made == list(questions(lang, 200, seed=3)) != list(questions(lang, 200, seed=4))
    assert {note.kind for note in made} == {"case", "drugs", "tests", "symptoms"}
    assert all([turn.role for turn in note.turns] == ["user", "assistant"] for note in made)
    assert not any("{" in turn.text or "  " in turn.text for note in made for turn in note.turns)
    assert len({note.group for note in made}) > 40
