"""A run's model asked from a page: one text with what it finds drawn in it, or a conversation
with its base beside it. What is said is posted, never in an address, and kept nowhere."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import Annotated, Any

from fastapi import APIRouter, Depends, Request
from fastapi.responses import HTMLResponse

from residency.core.errors import UserError
from residency.core.files import file_digest
from residency.core.types import Turn, Value
from residency.models import artefact as artefacts
from residency.models.predictors import trained
from residency.pages.desk import Desk, desk_of, page
from residency.pages.forms import Form, posted
from residency.workflows.chat import NOTICE, Side, sides
from residency.workflows.finished import answers, artefact_of, told

router = APIRouter(prefix="/projects/{name}/runs/{run}")
Posted = Annotated[Form, Depends(posted)]
MOST = 20_000
"""Characters of a text that is tried."""
SYSTEMS = ("base", "tuned")


class Piece(Value, frozen=True):
    """A stretch of a text, in code points, with the labels that hold of all of it."""

    start: int
    end: int
    text: str
    labels: tuple[str, ...] = ()


def pieces(text: str, entities: Sequence[Mapping[str, Any]]) -> list[Piece]:
    """A text cut where entities begin and end; entities may overlap. Its pieces joined are the
    text."""
    edges = {0, len(text)} | {one[key] for one in entities for key in ("start", "end")}
    ordered = sorted(edges)
    return [
        Piece(
            start=start,
            end=end,
            text=text[start:end],
            labels=tuple(
                one["label"] for one in entities if one["start"] <= start and end <= one["end"]
            ),
        )
        for start, end in pairwise(ordered)
    ]


def _text(form: Form, name: str) -> str:
    text = form.one(name)
    if not text.strip():
        raise UserError("Nothing was written; write a text first.")
    if len(text) > MOST:
        raise UserError(f"The text is longer than {MOST} characters; try a part of it.")
    return text


@router.get("/try")
def ask(request: Request, name: str, run: str) -> HTMLResponse:
    """The form of a text."""
    desk_of(request).run(name, run)
    return _tried(request, name, run)


@router.post("/try")
def answer(request: Request, name: str, run: str, form: Posted) -> HTMLResponse:
    """What a run's model says of a text."""
    desk, text = desk_of(request), _text(form, "text")
    folder = desk.run(name, run)
    model = artefact_of(folder)
    card = artefacts.read(model).task()
    with desk.model:
        loaded = desk.held(("try", file_digest(model / artefacts.FILE)), lambda: trained(model))
        said = next(iter(answers(loaded, [text])))
    found, chances = told(card, said)
    entities = found.pop("entities", None)
    return _tried(
        request,
        name,
        run,
        text=text,
        failure=said.failure or "",
        answered=said.answer is not None,
        entities=entities,
        pieces=pieces(text, entities or ()),
        columns=found,
        chances=list(chances.items()),
    )


def _crumbs(request: Request, name: str, run: str, last: str) -> tuple[tuple[str, str], ...]:
    return (
        (request.url_for("project", name=name).path, name),
        (request.url_for("run", name=name, run=run).path, run),
        (request.url.path, last),
    )


def _tried(request: Request, name: str, run: str, **values: Any) -> HTMLResponse:
    empty = {
        "text": "",
        "failure": "",
        "answered": False,
        "entities": None,
        "pieces": (),
        "columns": {},
        "chances": (),
    }
    crumbs = _crumbs(request, name, run, "try")
    return page(request, "try", name=name, run=run, crumbs=crumbs, **{**empty, **values})


@router.get("/chat")
def chat(request: Request, name: str, run: str) -> HTMLResponse:
    """An empty conversation."""
    desk_of(request).run(name, run)
    return _chat(request, name, run, (), {})


@router.post("/chat")
def say(request: Request, name: str, run: str, form: Posted) -> HTMLResponse:
    """What base and tuned model answer to a question, after what the page says was said before."""
    desk, question = desk_of(request), _text(form, "question")
    asked = form.all("asked")
    before = {system: form.all(system) for system in SYSTEMS}
    if any(len(answers) != len(asked) for answers in before.values()):
        raise UserError("This conversation cannot be read; begin it anew.")
    said = {}
    with desk.model:
        for system, side in zip(SYSTEMS, _sides(desk, name, run), strict=True):
            side.reset()
            for one, answer in zip(asked, before[system], strict=True):
                if answer:  # as the command keeps no question that was not answered
                    side.turns += [Turn(role="user", text=one), Turn(role="assistant", text=answer)]
            said[system] = [*before[system], "".join(side.ask(question)).strip()]
            side.reset()
    return _chat(request, name, run, (*asked, question), said)


def _sides(desk: Desk, name: str, run: str) -> list[Side]:
    """The systems of a run, loaded once while no other model is asked."""
    folder = desk.run(name, run)
    key = "chat", file_digest(artefact_of(folder) / artefacts.FILE)
    return desk.held(key, lambda: sides(folder))


def _chat(
    request: Request, name: str, run: str, asked: Sequence[str], said: Mapping[str, Sequence[str]]
) -> HTMLResponse:
    turns = [
        (question, [(system, said[system][number]) for system in SYSTEMS])
        for number, question in enumerate(asked)
    ]
    crumbs = _crumbs(request, name, run, "chat")
    return page(request, "chat", name=name, run=run, turns=turns, notice=NOTICE, crumbs=crumbs)
