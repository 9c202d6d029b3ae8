"""Dialogues of a blind study, held live with the systems that its key names: a run's own model in
this process, or a model behind a server.

An answer is shown a fixed time after its question, the same for all systems, so that how long one
took says nothing. Whatever happens before, the question is kept; an answer that is not there by
then is one that has not come, whoever it is that should have given it.
"""

from __future__ import annotations

import math
import re
import time
from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import nullcontext
from pathlib import Path
from threading import Lock, Thread
from typing import TYPE_CHECKING

from msgspec.structs import replace

from residency.core.errors import DataError, UserError
from residency.core.part import parse
from residency.core.types import Turn
from residency.evals.study import ROUNDS, Key, OpenStudy, System
from residency.evals.votes import LONGEST, Said, cast, dialogue, read
from residency.ops.proof import address
from residency.workflows.chat import Side, sides
from residency.workflows.finished import artefact_of

if TYPE_CHECKING:
    from residency.models.remote import RemoteTalker

BLANK = "▒▒▒"
"""Stands where a model named a system of the study."""
BASE = ":base"
MARGIN = 1.5
"""How much longer than the slowest answer that was measured all answers take."""
AT_ONCE = 8


def system_of(name: str) -> System:
    """Whom a dialogue is held with: ``RUN``, ``RUN:base``, or ``NAME=URL#MODEL``, which may have
    ``#VARIABLE`` behind it, the environment variable of the server's key. Raises ``UserError``."""
    named, _, rest = name.partition("=")
    if "://" in rest:
        url, *more = rest.split("#")
        if not named or not 1 <= len(more) <= 2 or not more[0]:
            raise UserError(
                f"{name}: a served model is NAME=URL#MODEL, e.g. a=http://...:8000/v1#m."
            )
        found = System(name=named, url=url, model=more[0], secret=more[1] if len(more) > 1 else "")
        _served(found)
        return found
    folder = Path(name.removesuffix(BASE))
    if not folder.is_dir():
        raise UserError(
            f"{name}: is no run; a dialogue is held with RUN, RUN:base or NAME=URL#MODEL."
        )
    artefact = "" if name.endswith(BASE) else address(artefact_of(folder))
    said = f"{folder.name}{BASE}" if name.endswith(BASE) else folder.name
    return System(name=said, run=str(folder.resolve()), artefact=artefact)


def check(system: System) -> None:
    """Raises ``UserError`` where a system cannot be reached at all, ``DataError`` where its run's
    model is another than when the study was made."""
    if system.url:
        _served(system)
        return
    run = Path(system.run)
    if not system.run or not run.is_dir():
        raise UserError(
            f"{system.name}: its run is not there; put it back, or make the study anew."
        )
    if system.artefact and address(artefact_of(run)) != system.artefact:
        raise DataError(f"{system.run}: was trained again since the study was made; make it anew.")


def side_of(system: System) -> Side:
    """A system, ready to be talked to. Raises as ``check``, and ``UserError`` where its run does
    not write."""
    check(system)
    if system.url:
        return Side(system.name, _served(system))
    return sides(Path(system.run), "tuned" if system.artefact else "base")[0]


def _served(system: System) -> RemoteTalker:
    from residency.models.remote import LOOPBACK, Api, RemoteTalker

    if not LOOPBACK.match(system.url):
        raise UserError(
            f"{system.name}: {system.url} is not on this machine, and what raters write has no "
            "profile that would let it leave; name a server on 127.0.0.1."
        )
    given = {"url": system.url, "model": system.model, "key": system.secret}
    return RemoteTalker(parse(Api, given, system.name), system.name)


class Dialogues:
    """Those of a study that are under way in this process. ``alone``: held by who asks a model that
    is in this process."""

    def __init__(self, opened: OpenStudy, key: Key, alone: Lock) -> None:
        self.opened, self.key = opened, key
        self.sides = {one.name: side_of(one) for one in key.systems}
        self._alone = {one.name: nullcontext() if one.url else alone for one in key.systems}
        self._names = _naming(key.systems)
        self._asked: dict[tuple[str, Said], Future[str]] = {}
        self._turn = Lock()

    def ask(self, rater: str, code: str, question: Said) -> bool:
        """Keep a question of a rater and have it answered; whether it may be: not where the
        dialogue is elsewhere already. What was asked before is not asked twice."""
        said = dialogue(read(self.opened, rater), question.item, question.place)
        turn, done = question.turn, len(said)
        if turn % 2 or turn > done or turn >= 2 * self.opened.study.rounds:
            return False
        if turn < done and said[turn] != question:
            return False
        if turn == done:
            cast(self.opened, rater, code, question)
            said.append(question)
        if said[-1] == question:
            self._answer(rater, said)
        return True

    def _answer(self, rater: str, said: Sequence[Said]) -> None:
        """Have the last of what was said answered, in a thread of its own."""
        with self._turn:
            if (rater, said[-1]) in self._asked:
                return
            answer = self._asked[rater, said[-1]] = Future()
        shown = next(s for s in self.opened.study.order[rater] if s.item == said[-1].item)
        name = self.key.system(shown, said[-1].place).name

        def work() -> None:
            try:
                with self._alone[name]:
                    answer.set_result(answer_to(self.sides[name], [one.text for one in said]))
            except BaseException as error:  # held by the answer, which has not come
                answer.set_exception(error)

        Thread(target=work, daemon=True).start()  # who ends the pages does not wait for a model

    def show(self, rater: str, code: str, question: Said) -> bool:
        """Keep the answer to a question, where it has come; one that failed is asked for again with
        the next try."""
        answer = self._asked.get((rater, question))
        if answer is None or not answer.done():
            return False
        text = "" if answer.exception() else self._names.sub(BLANK, answer.result())[:LONGEST]
        if text:
            turn = question.turn + 1
            cast(self.opened, rater, code, replace(question, turn=turn, text=text))
        self._asked.pop((rater, question), None)
        return bool(text)


def answer_to(side: Side, said: Sequence[str]) -> str:
    """What a system says to the last of what was said, question and answer in turn."""
    talk = Side(side.name, side.talker, side.system)
    for number, text in enumerate(said[:-1]):
        talk.turns.append(Turn(role="assistant" if number % 2 else "user", text=text))
    answer = "".join(talk.ask(said[-1])).strip()
    return answer.encode("utf-8", "replace").decode()


def _naming(systems: Sequence[System]) -> re.Pattern[str]:
    """What would say who answers: names of systems, runs and models, as words."""
    names = {
        name
        for one in systems
        for name in (one.name, Path(one.run).name, one.model, Path(one.model).name, one.artefact)
        if len(name) > 3
    }
    known = "|".join(re.escape(one) for one in sorted(names, key=len, reverse=True))
    return re.compile(rf"(?<!\w)(?:{known})(?!\w)" if known else "(?!)", re.I)


def slowest(systems: Sequence[System], question: str, raters: int) -> float:
    """Seconds of the slowest answer, to a first question and after nine rounds, where as many ask
    at once as there are raters (8 at most)."""
    count, alone, found = min(raters, AT_ONCE), Lock(), 0.0

    def timed(side: Side, own: bool) -> float:
        said, longest = [question], 0.0
        for _ in range(2):
            began = time.monotonic()
            with alone if own else nullcontext():
                answer = answer_to(side, said)
            longest = max(longest, time.monotonic() - began)
            said = [question, answer or question] * (ROUNDS - 1) + [question]
        return longest

    for system in systems:
        side = side_of(system)
        with ThreadPoolExecutor(count) as threads:
            tried = [threads.submit(timed, side, not system.url) for _ in range(count)]
            found = max(found, *(one.result() for one in tried))
    return found


def delay_for(seconds: float) -> float:
    """When an answer is shown, where the slowest took so long: whole seconds."""
    return float(max(1, math.ceil(MARGIN * seconds)))
