"""A note that was copied forward and rewritten is known by what hardly any other note says."""

from __future__ import annotations

import random
import time

from residency.core.types import Note
from residency.corpus.copied import copied_forward, copied_pairs
from residency.corpus.near import near_duplicates

CHANCE = random.Random(3)
WORDS = ["".join(CHANCE.choices("bcdghklmnaeiouáếồ", k=CHANCE.randint(2, 7))) for _ in range(4000)]
COMMON = [1 / (rank + 5) for rank in range(len(WORDS))]
"""As words of a language are: a few are in every note."""


def written(count: int) -> list[str]:
    return CHANCE.choices(WORDS, COMMON, k=count)


def copy(words: list[str], kept: float) -> str:
    return " ".join(word if CHANCE.random() < kept else written(1)[0] for word in words)


def test_copies_with_60_to_95_percent_of_their_words_are_found_and_unrelated_notes_are_not() -> (
    None
):
    notes = [written(CHANCE.randint(60, 200)) for _ in range(600)]
    kept = [CHANCE.uniform(0.6, 0.95) for _ in notes[:300]]
    copies = [copy(words, share) for words, share in zip(notes, kept, strict=False)]
    found = set(copied_pairs([*map(" ".join, notes), *copies]))
    pairs = {(number, 600 + number) for number in range(300)}
    assert len(pairs - found) <= 3
    assert len(found - pairs) == 0


def test_a_copy_that_was_written_on_is_found_and_a_short_note_within_a_long_one_is_not() -> None:
    first, long = written(80), written(600)
    texts = [" ".join(first), " ".join([*first, *written(80)]), " ".join(long)]
    texts += [" ".join(long[100:140]), *(" ".join(written(100)) for _ in range(20))]
    assert copied_pairs(texts) == [(0, 1)]


def test_it_takes_no_longer_than_to_find_near_duplicates() -> None:
    notes = [
        Note(id=str(n), group=str(n), text=" ".join(written(120)), profile="synthetic")
        for n in range(1500)
    ]
    begun = time.process_time()
    near_duplicates(notes, 0.8)
    near, begun = time.process_time() - begun, time.process_time()
    assert copied_forward(notes) == []
    assert time.process_time() - begun < near


def test_notes_of_one_template_are_not_copies_of_each_other() -> None:
    """Sentences that every ward draws from, in another order and with values of their own: half of
    the words are alike, and none stands where it stood."""
    sentences = [" ".join(written(9)) for _ in range(60)]
    notes = [
        " ".join(f"{one} {written(1)[0]}" for one in CHANCE.sample(sentences, 14))
        for _ in range(400)
    ]
    assert copied_pairs(notes) == []
    kept = [copy(note.split(), 0.7) for note in notes[:100]]
    found = set(copied_pairs([*notes, *kept]))
    assert len({(n, 400 + n) for n in range(100)} - found) <= 1
    assert len(found) <= 101
