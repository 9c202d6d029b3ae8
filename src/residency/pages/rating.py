"""A blind study as a rater sees it: one question a page, in an order of their own, with what they
said of it before. Nothing here knows who wrote what, and nothing says it: neither a page nor an
address nor an error."""

from __future__ import annotations

import asyncio
import re
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Annotated, Any

from fastapi import APIRouter, Depends, Request, Response
from fastapi.responses import HTMLResponse, RedirectResponse
from starlette.concurrency import run_in_threadpool

from residency.core.errors import ResidencyError, UserError
from residency.core.types import Value
from residency.evals.formats import language_of as language_of_text
from residency.evals.study import Item, OpenStudy, Rater, is_locked, key_path, read_key
from residency.evals.study_form import WORDS, vote_of
from residency.evals.votes import LONGEST, Said, Vote, cast, dialogue, fault_of, read, standing
from residency.evals.words import words_of
from residency.pages.desk import Desk, desk_of, language_of, page, who
from residency.pages.folders import Missing
from residency.pages.forms import Form, posted
from residency.pages.studies import HOME, opened
from residency.workflows.dialogues import Dialogues

router = APIRouter(prefix=HOME)
Posted = Annotated[Form, Depends(posted)]
FIELD = re.compile(r"([a-z]{1,20})(?:\.(\d))?")
"""What is said, and of the answer at which place."""
CLOSED = "The voting has ended, and nothing was taken. Thank you."
TELL = (
    "The study cannot take this now. Tell whoever gave you your address; what you said before is "
    "kept."
)
ELSEWHERE = "This conversation went on in another window. Open it again; nothing was asked."
UNMARKED = "Each answer needs a mark on every scale."


class Seat(Value, frozen=True):
    """A rater in their study."""

    opened: OpenStudy
    rater: Rater
    code: str

    @property
    def count(self) -> int:
        """How many questions there are."""
        return len(self.opened.items)

    def shown(self, number: str) -> tuple[Item, tuple[str, ...]]:
        """The question at a place of the rater's order, from 1, with its answers by place; raises
        ``Missing``."""
        if not re.fullmatch(r"[1-9]\d{0,5}", number) or int(number) > self.count:
            raise Missing("There is no such question here.")
        return self.opened.shown(self.rater.name)[int(number) - 1]

    def votes(self) -> dict[str, Vote]:
        """What counts so far, by item."""
        with untold():
            return standing(read(self.opened, self.rater.name))


@contextmanager
def untold() -> Iterator[None]:
    """Turn what stands in the way into a sentence that names nothing: errors name files, and files
    may be named for systems."""
    try:
        yield
    except ResidencyError:
        raise UserError(TELL) from None


def seat_of(request: Request) -> Seat:
    """Where the rater who asks sits; raises ``UserError`` where the study was changed."""
    person = who(request)
    with untold():
        found = opened(desk_of(request).root / person.place)
        return Seat(opened=found, rater=found.study.rater(person.name), code=request.state.secret)


Seated = Annotated[Seat, Depends(seat_of)]


def shown_page(
    request: Request, seat: Seat, template: str, status: int = 200, **values: Any
) -> HTMLResponse:
    """A page with what all pages of raters have; ``said`` are the words of the paper form."""
    return page(
        request,
        template,
        status,
        said=words_of(language_of(request), WORDS),
        language=language_of_text,
        study=seat.opened.study,
        rater=seat.rater,
        scales=seat.opened.study.scales(seat.rater),
        of=seat.count,
        **values,
    )


@router.get("", name="rate")
def home(request: Request, seat: Seated) -> HTMLResponse:
    """All questions, and which of them have a vote."""
    votes = seat.votes()
    done = [shown.item in votes for shown in seat.opened.study.order[seat.rater.name]]
    return shown_page(
        request,
        seat,
        "rate",
        done=done,
        next=done.index(False) + 1 if False in done else 0,
        locked=is_locked(seat.opened),
    )


@router.get("/{number}", name="question")
def question(request: Request, seat: Seated, number: str) -> Response:
    """A question with its answers, and what the rater said of them before."""
    item, _ = seat.shown(number)
    if is_locked(seat.opened):
        return RedirectResponse(HOME, 303)
    votes = seat.votes()
    given = fields_of(votes[item.id]) if item.id in votes else {}
    return _question(request, seat, number, given, len(votes))


def _question(
    request: Request,
    seat: Seat,
    number: str,
    given: Mapping[str, str],
    done: int,
    fault: str = "",
) -> HTMLResponse:
    item, answers = seat.shown(number)
    return shown_page(
        request,
        seat,
        "question",
        400 if fault else 200,
        item=item,
        answers=answers,
        number=int(number),
        given=given,
        done=done,
        fault=fault,
        talks=_talks(seat, item.id) if seat.opened.study.rounds else (),
        longest=LONGEST,
        crumbs=((request.url.path, f"{number}/{seat.count}"),),
    )


@router.post("/{number}")
def vote(request: Request, seat: Seated, number: str, form: Posted) -> Response:
    """Take a vote and lead on. Who goes back or on with nothing filled in is let go."""
    item, _ = seat.shown(number)
    if is_locked(seat.opened):
        raise UserError(CLOSED)
    given = {name: value for name, value in form.fields if FIELD.fullmatch(name) and value.strip()}
    go = given.pop("go", "")
    given.pop("token", None)
    votes = seat.votes()
    before = fields_of(votes[item.id]) if item.id in votes else {}
    if go == "save" or (given and given != before):
        read_from = [(*_parted(name), value) for name, value in given.items()]
        made = vote_of(item.id, read_from, seat.opened, seat.rater)
        fault = UNMARKED if made is None else fault_of(seat.opened, seat.rater, made)
        if made is None or fault:
            return _question(request, seat, number, given, len(votes), fault)
        with untold():
            cast(seat.opened, seat.rater.name, seat.code, made)
    then = int(number) + (-1 if go == "back" else 1)
    return RedirectResponse(f"{HOME}/{then}" if 1 <= then <= seat.count else HOME, 303)


class Talk(Value, frozen=True):
    """A dialogue of a question as far as it goes."""

    place: int
    turns: tuple[Said, ...]
    whole: bool

    @property
    def rounds(self) -> int:
        """How many questions have their answer."""
        return len(self.turns) // 2

    @property
    def open(self) -> bool:
        """Whether it goes on."""
        return not self.whole

    @property
    def waiting(self) -> str:
        """The question that has no answer yet."""
        return self.turns[-1].text if len(self.turns) % 2 else ""


def _talks(seat: Seat, item: str) -> list[Talk]:
    study = seat.opened.study
    with untold():
        lines = read(seat.opened, seat.rater.name)
    found = ((place, dialogue(lines, item, place)) for place in range(1, study.answers + 1))
    return [
        Talk(place=place, turns=tuple(turns), whole=len(turns) == 2 * study.rounds)
        for place, turns in found
    ]


def _talk(seat: Seat, number: str, place: str) -> tuple[Item, Talk]:
    item, _ = seat.shown(number)
    if seat.opened.study.rounds and place in [str(n + 1) for n in range(seat.opened.study.answers)]:
        return item, _talks(seat, item.id)[int(place) - 1]
    raise Missing("There is no such conversation here.")


@router.get("/{number}/talk/{place}", name="talk")
def talk(request: Request, seat: Seated, number: str, place: str) -> Response:
    """A dialogue as far as it goes, and the next question."""
    item, found = _talk(seat, number, place)
    if is_locked(seat.opened):
        return RedirectResponse(HOME, 303)
    above = request.url_for("question", number=number).path
    return shown_page(
        request,
        seat,
        "talk",
        item=item,
        number=int(number),
        talk=found,
        seconds=f"{seat.opened.study.delay:g}",
        longest=LONGEST,
        crumbs=((above, f"{number}/{seat.count}"), (request.url.path, f"{number}.{place}")),
    )


@router.post("/{number}/talk/{place}")
async def say(
    request: Request, seat: Seated, number: str, place: str, form: Posted
) -> RedirectResponse:
    """Ask, and lead to the answer after the study's delay, come or not: nothing else says how long
    it took."""
    began = time.monotonic()
    kept = await run_in_threadpool(_asked, desk_of(request), seat, number, place, form)
    await asyncio.sleep(began + seat.opened.study.delay - time.monotonic())
    await run_in_threadpool(_shown, desk_of(request), seat, kept)
    return RedirectResponse(f"{request.url.path}#last", 303)


def _asked(desk: Desk, seat: Seat, number: str, place: str, form: Form) -> Said:
    """Keep what a rater asks, and have it answered."""
    item, found = _talk(seat, number, place)
    text, turn = form.one("text").strip() or found.waiting, form.one("turn")
    if is_locked(seat.opened):
        raise UserError(CLOSED)
    if not text or len(text) > LONGEST:
        raise UserError("Write a question of 1 to 4000 characters.")
    if not re.fullmatch(r"\d{1,2}", turn):
        raise UserError(ELSEWHERE)
    asked = Said(item=item.id, place=int(place), turn=int(turn), text=text)
    with untold():
        taken = _dialogues(desk, seat).ask(seat.rater.name, seat.code, asked)
    if not taken:
        raise UserError(ELSEWHERE)
    return asked


def _shown(desk: Desk, seat: Seat, asked: Said) -> None:
    with untold():
        _dialogues(desk, seat).show(seat.rater.name, seat.code, asked)


def _dialogues(desk: Desk, seat: Seat) -> Dialogues:
    """Those of a study; all of its systems are made ready by the first question to any."""
    folder = seat.opened.folder
    with desk.opening:
        if folder not in desk.dialogues:
            key = read_key(key_path(folder), seat.opened.study)
            desk.dialogues[folder] = Dialogues(seat.opened, key, desk.model)
        return desk.dialogues[folder]


def _parted(name: str) -> tuple[str, int]:
    what, _, place = name.partition(".")
    return what, int(place or 0)


def fields_of(one: Vote) -> dict[str, str]:
    """A vote as the fields of its page."""
    given = {
        f"{scale}.{place}": str(mark)
        for scale, marks in one.marks.items()
        for place, mark in enumerate(marks, start=1)
    }
    given |= {f"harmful.{place}": "yes" for place in one.harmful}
    return (
        given
        | ({} if one.choice is None else {"choice": str(one.choice)})
        | ({"comment": one.comment} if one.comment else {})
    )
