"""A conversation in the terminal with a run's model, and with its base beside it. Nothing of it is
kept."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Literal, Protocol

from residency.core.errors import UserError
from residency.core.types import Turn
from residency.workflows.finished import artefact_of

CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u200e\u200f\u202a-\u202e\u2066-\u2069]")
"""Signs with which a model could drive the terminal or turn the direction of what is read."""
NOTICE = "For learning and for tests, never for care. /reset begins anew, /quit ends."


class Talker(Protocol):
    """Anything that answers a conversation piece by piece."""

    def stream(self, turns: Sequence[Turn]) -> Iterator[str]: ...


class Side:
    """One system and what was said with it so far."""

    def __init__(self, name: str, talker: Talker, system: str = "") -> None:
        self.name, self.talker, self.system = name, talker, system
        self.turns: list[Turn] = []
        self.reset()

    def reset(self) -> None:
        """Forget the conversation."""
        self.turns = [Turn(role="system", text=self.system)] if self.system else []

    def ask(self, question: str) -> Iterator[str]:
        """The answer in pieces, fit for a terminal; both are kept for the next question."""
        asked = [*self.turns, Turn(role="user", text=question)]
        pieces: list[str] = []
        for piece in self.talker.stream(asked):
            pieces.append(piece)
            yield CONTROL.sub("", piece)
        answer = "".join(pieces).strip()
        if answer:
            self.turns = [*asked, Turn(role="assistant", text=answer)]


def sides(
    run: Path, only: Literal["tuned", "base"] | None = None, system: str | None = None
) -> list[Side]:
    """The systems to talk to, the base first.

    Raises ``UserError`` for a run whose model does not write.
    """
    from residency.models.artefact import read
    from residency.models.base import silent
    from residency.models.causal import CausalPredictor
    from residency.models.predictors import kind_of

    folder = artefact_of(run)
    kind_of(read(folder)).check_able("chat", run)
    with silent():
        found = []
        if only != "tuned":
            found.append(CausalPredictor.untuned_of(folder))
        if only != "base":
            found.append(CausalPredictor.from_artefact(folder))
    return [
        Side(one.info.name, one, one.card.system if system is None else system) for one in found
    ]


def converse(talking: Sequence[Side], questions: Iterable[str], say: Callable[[str], None]) -> None:
    """Answer questions until they end or somebody says ``/quit``; ``say`` writes a piece as it is.

    An interruption (Ctrl-C) ends the answer that is being written, and the conversation where none
    is.
    """
    for line in questions:
        question = line.strip()
        if question == "/quit":
            return
        if question == "/reset":
            for side in talking:
                side.reset()
            say("forgotten\n")
            continue
        if not question:
            continue
        for side in talking:
            say(f"{side.name}: ")
            answer = side.ask(question)
            try:
                for piece in answer:
                    say(piece)
            except KeyboardInterrupt:
                say(" ...")
            except UserError as error:
                say(f"({error})")
            say("\n")
