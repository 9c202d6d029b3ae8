"""The queues of a project: what waits for a person, one after the other, with three buttons that
have keys of their own."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Depends, Request
from fastapi.responses import HTMLResponse, RedirectResponse, Response

from residency.core.types import Value
from residency.pages.desk import desk_of, page, who
from residency.pages.folders import Missing
from residency.pages.forms import Form, posted
from residency.workflows import queues

router = APIRouter(prefix="/projects/{name}/queues")
Posted = Annotated[Form, Depends(posted)]


class Wording(Value, frozen=True):
    """What a kind of queue says, in English."""

    title: str
    ask: str
    accept: str
    reject: str
    then: str
    """What becomes of what was decided."""
    mend: str = ""


SAID = {
    "identifiers": Wording(
        title="Places that may say who somebody is",
        ask="Does the marked place say who somebody is?",
        accept="It does: mask it",
        reject="It does not: leave it",
        then="Then run residency deid again: it does as was decided, and "
        "what was not decided comes back.",
    ),
    "labels": Wording(
        title="Labels that are likely wrong",
        ask="Are the labels wrong here, and the model right?",
        accept="Take what the model says",
        reject="Leave the labels as they are",
        then="Then residency label mend writes the notes with the labels that were decided on.",
        mend="The right labels, a line each: LABEL FROM TO",
    ),
    "written": Wording(
        title="Rows that a model wrote",
        ask="Is the marked answer right, and fit to learn from?",
        accept="Keep the row",
        reject="Take the row out",
        then="What is decided changes this file at once.",
        mend="The right answer",
    ),
    "patients": Wording(
        title="Patients who may be one",
        ask="One name and one birth date: are both numbers of the same patient?",
        accept="They are one patient",
        reject="They are two",
        then="Then run residency extract again: it takes those for one that were confirmed.",
    ),
    "passages": Wording(
        title="Passages that answers may quote",
        ask="Is this passage right, and may answers quote it?",
        accept="It may be quoted",
        reject="Never quote it",
        then="What is decided counts at once, and answers show who accepted it.",
    ),
    "feedback": Wording(
        title="What doctors called wrong or harmful",
        ask="Does the doctor's judgement hold, and is it fit to learn from?",
        accept="It holds: learn from it",
        reject="Do not use it",
        then="What is decided is added to feedback.jsonl.",
        mend="What it should have said",
    ),
}


class Waiting(Value, frozen=True):
    """A queue in a list."""

    name: str
    title: str
    file: str
    count: int


def _found(request: Request, name: str) -> dict[str, queues.Queue]:
    """The queues of a project; behind a server not those with text of patients."""
    desk = desk_of(request)
    return queues.find(desk.project(name), not desk.server, who(request).known)


def _queue(request: Request, name: str, queue: str) -> queues.Queue:
    if (found := _found(request, name).get(queue)) is None:
        raise Missing("There is no such queue here; it may be done.")
    return found


def _crumbs(request: Request, name: str) -> tuple[tuple[str, str], ...]:
    above = request.url_for("project", name=name).path
    return (above, name), (request.url_for("all_queues", name=name).path, "queues")


@router.get("")
def all_queues(request: Request, name: str) -> HTMLResponse:
    """What waits."""
    waiting = [
        Waiting(name=key, title=SAID[one.kind].title, file=one.path.name, count=len(one.items()))
        for key, one in _found(request, name).items()
    ]
    return page(request, "queues", waiting=waiting, crumbs=_crumbs(request, name))


@router.get("/{queue}", name="queue")
def one_queue(request: Request, name: str, queue: str, after: int = 0) -> HTMLResponse:
    """What waits first in a queue, or after so many that are left for later."""
    found = _queue(request, name, queue)
    items = found.items()
    after = max(0, after) % len(items) if items else 0
    log = queues.decisions(found)
    return page(
        request,
        "queue",
        kind=found.kind,
        said=SAID[found.kind],
        file=found.path.name,
        mends=found.mends,
        item=items[after] if items else None,
        waiting=len(items),
        later=after + 1,
        done=bool(log),
        crumbs=(*_crumbs(request, name), (request.url.path, SAID[found.kind].title)),
    )


@router.post("/{queue}")
def decide(request: Request, name: str, queue: str, form: Posted) -> Response:
    """Decide on something, and see what waits next."""
    found = _queue(request, name, queue)
    item, decision = form.one("item"), form.one("decision")
    queues.decide(found, item, decision, who(request).known, form.one("text"))
    return RedirectResponse(request.url.path, 303)


@router.post("/{queue}/undo")
def undo(request: Request, name: str, queue: str, form: Posted) -> Response:
    """Take the last decision back."""
    queues.undo(_queue(request, name, queue), who(request).known)
    return RedirectResponse(request.url_for("queue", name=name, queue=queue).path, 303)
