"""Chat: answers appear piece by piece, nothing that a model writes drives the terminal."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from residency.core.types import Turn
from residency.workflows.chat import Side, converse


class Canned:
    def __init__(self) -> None:
        self.asked: list[tuple[Turn, ...]] = []

    def stream(self, turns: Sequence[Turn]) -> Iterator[str]:
        self.asked.append(tuple(turns))
        yield from ("it \x1b[2J", "is ", str(len(self.asked)))


def talk(*lines: str) -> tuple[str, Canned]:
    talker, words = Canned(), list[str]()
    converse([Side("tuned", talker, "be kind")], lines, words.append)
    return "".join(words), talker


def test_answers_are_labelled_and_control_signs_are_taken_out() -> None:
    words, _ = talk("a?\n")
    assert words == "tuned: it [2Jis 1\n"


def test_the_history_is_told_and_reset_forgets_it() -> None:
    _, talker = talk("a?", "b?", "/reset", "c?", "/quit", "d?")
    assert [[turn.text for turn in turns] for turns in talker.asked] == [
        ["be kind", "a?"],
        ["be kind", "a?", "it \x1b[2Jis 1", "b?"],
        ["be kind", "c?"],
    ]
