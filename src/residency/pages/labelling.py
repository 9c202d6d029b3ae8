"""Labelling in the pages: each annotator marks their own notes, whoever adjudicates decides between
candidates without names, and the owner sees how far all are. Whose work is read or changed follows
from who asks, never from an address."""

from __future__ import annotations

from pathlib import Path
from secrets import compare_digest
from typing import Annotated, Any, TypeVar

import msgspec
from fastapi import APIRouter, Depends, Request
from fastapi.responses import HTMLResponse, JSONResponse, RedirectResponse, Response

from residency.core.errors import GateRefused, ResidencyError, UserError
from residency.core.files import NO_JSON
from residency.core.types import Value
from residency.label import questions
from residency.label.adjudicate import ADJUDICATOR
from residency.label.browser import ADDRESSES, Change, Overtaken, addresses
from residency.label.campaign import InBrowser
from residency.label.guideline import guideline_page
from residency.label.interface import KEYS
from residency.pages import folders
from residency.pages.desk import Person, desk_of, language_of, page, token_of, who, words_in
from residency.pages.folders import RECIPE, Missing
from residency.pages.forms import Form, posted
from residency.workflows import label_open as opening
from residency.workflows.label import DECIDE, LabellingSetup

T = TypeVar("T")

router = APIRouter(prefix="/label")
"""Pages of who marks or decides."""
lead = APIRouter(prefix="/labelling/{name}")
"""Pages of the owner."""
Posted = Annotated[Form, Depends(posted)]
MOST = 2**20
"""Bytes of a step."""
HOME = "/label"


def labellings(root: Path) -> dict[str, Path]:
    """The recipes of the labellings of a desk by name: the one whose addresses its folder holds
    (``residency label open``), or those of its projects."""
    if (root / ADDRESSES).is_file():
        return {"this": root}
    return {place.name: place for place in folders.projects(root) if (place / RECIPE).is_file()}


def labelling(place: Path) -> LabellingSetup:
    """The labelling of a folder; raises ``UserError`` where its recipe has none."""
    if (place / ADDRESSES).is_file():
        return opening.opened(place)
    return opening.setup(place / RECIPE)


def door(root: Path, secret: str) -> Person | None:
    """Whom a code lets in among all labellings of a desk."""
    for name, place in labellings(root).items():
        try:
            found = opening.name_of(labelling(place).folder, secret)
        except ResidencyError:  # not a labelling, or one that the owner is told about
            continue
        if found:
            role = "adjudicator" if found == ADJUDICATOR else "annotator"
            return Person(role=role, name=found, place=name, home=HOME)  # type: ignore[arg-type]
    return None


def _named(request: Request, name: str) -> LabellingSetup:
    if name not in (found := labellings(desk_of(request).root)):
        raise Missing("There is no such labelling here.")
    return labelling(found[name])


def _own(request: Request) -> LabellingSetup:
    return _named(request, who(request).place)


def _item(request: Request, to: LabellingSetup, round: str, key: str) -> opening.Item:
    """An item of who asks; raises ``Missing``."""
    name = who(request).name
    found = opening.item(to, round, name, key) if round in opening.rounds(name) else None
    if found is None:
        raise Missing("There is no such note among yours.")
    return found


# Who marks


class Round(Value, frozen=True):
    """A round as its list shows it."""

    name: str
    items: list[opening.Item]
    progress: opening.Progress
    next: opening.Item | None


@router.get("")
def home(request: Request) -> HTMLResponse:
    """What somebody has before them."""
    return _home(request)


def _home(request: Request, settled: Any = None) -> HTMLResponse:
    to, name = _own(request), who(request).name
    found = []
    for round in opening.rounds(name):
        if items := opening.items(to, round, name):
            done = opening.progress(name, items)
            found.append(Round(round, items, done, opening.next_open(items)))
    keys = {
        one.task.id: (f"{HOME}/{round.name}/{one.key}", one.number)
        for round in found
        for one in round.items
    }
    again = [
        (one, *keys[one.note])
        for one in opening.asked_by(to, name)
        if one.answer and not one.seen and one.note in keys
    ]
    return page(
        request,
        "label-home",
        rounds=found,
        again=again,
        settled=settled,
        decides=name == ADJUDICATOR,
        guide=_guideline(request, to),
    )


def _guideline(request: Request, to: LabellingSetup) -> Any:
    lang = language_of(request)
    return guideline_page(to.card, opening.guide(to, lang), lang)


@router.get("/{round}/{key}")
def sheet(request: Request, round: str, key: str) -> HTMLResponse:
    """The page on which one item is marked."""
    to = _own(request)
    one = _item(request, to, round, key)
    items = opening.items(to, round, who(request).name)
    guide = opening.guide(to, language_of(request))
    return page(
        request,
        "label-mark",
        item=one,
        of=len(items),
        done=sum(other.work.state != "open" for other in items),
        labels=_labels(to, guide),
        attributes=[(name, guide.attributes.get(name, "") if guide else "") for name in _names(to)],
        coded=bool(to.settings.codes),
        decides=round == DECIDE,
        address=request.url.path,
        labeller=f"{who(request).place} {who(request).name}",
        guide=_guideline(request, to),
        crumbs=((request.url.path, str(one.number)),),
    )


def _names(to: LabellingSetup) -> tuple[str, ...]:
    return to.card.attributes


def _labels(to: LabellingSetup, guide: Any) -> list[dict[str, Any]]:
    """The labels with their keys, as their buttons show them."""
    entries = guide.labels if guide else {}
    found = []
    for number, one in enumerate(to.card.labels):
        entry = entries.get(one.name)
        found.append(
            {
                "name": one.name,
                "title": (entry.title if entry else "") or one.title or one.name,
                "means": (entry.definition if entry else "") or one.definition,
                "coded": one.coded,
                "key": KEYS[number] if number < len(KEYS) else "",
            }
        )
    return found


# What the page of an item asks and sends: JSON, with the token in a header


def _proved(request: Request) -> None:
    """Raises ``GateRefused`` for a page that was opened under another address than the one that
    this browser has now."""
    given = request.headers.get("x-token", "")
    if not compare_digest(given.encode(), token_of(request.state.secret).encode()):
        raise GateRefused("This form is not of this start of residency ui; open the page again.")


async def _sent(request: Request) -> bytes:
    """A step as it was sent."""
    _proved(request)
    body = bytearray()
    async for piece in request.stream():
        body += piece
        if len(body) > MOST:
            raise UserError("This is too much for one step; open the page again.")
    return bytes(body)


Sent = Annotated[bytes, Depends(_sent)]


def _read(body: bytes, kind: type[T]) -> T:
    try:
        return msgspec.json.decode(body, type=kind)
    except NO_JSON:
        raise UserError("This cannot be read; open the page again.") from None


def _json(value: object, status: int = 200) -> Response:
    return Response(msgspec.json.encode(value), status, media_type="application/json")


def _fault(request: Request, error: ResidencyError, status: int) -> Response:
    return JSONResponse({"said": words_in(language_of(request)).said(str(error))}, status)


@router.get("/{round}/{key}/work", dependencies=[Depends(_proved)])
def work(request: Request, round: str, key: str) -> Response:
    """The text of an item and what was marked in it so far."""
    to = _own(request)
    return _json(_work(request, to, round, _item(request, to, round, key)))


def _work(request: Request, to: LabellingSetup, round: str, one: opening.Item) -> dict[str, Any]:
    name = who(request).name
    items = opening.items(to, round, name)
    following = opening.next_open([other for other in items if other.key != one.key], one.number)
    asked = [
        {"start": q.start, "end": q.end, "label": q.label, "words": q.words, "answer": q.answer}
        for q in opening.asked_by(to, name)
        if q.note == one.task.id
    ]
    return {
        "text": one.task.text,
        "lang": one.task.lang,
        "place": opening.place_of(round, one.task),
        "candidates": one.task.suggestions if round == DECIDE else (),
        **_state(one.work),
        "asked": asked,
        "next": f"{HOME}/{round}/{following.key}" if following else HOME,
    }


def _state(work: Any) -> dict[str, Any]:
    return {
        "version": work.version,
        "state": work.state,
        "seconds": work.seconds,
        "choice": work.choice,
        "marks": [
            {
                "start": span.start,
                "end": span.end,
                "label": span.label,
                "code": span.code,
                "attributes": span.attributes,
                "proposed": proposed,
            }
            for spans, proposed in ((work.spans, False), (work.proposed, True))
            for span in spans
        ],
    }


@router.post("/{round}/{key}/work")
def save(request: Request, round: str, key: str, body: Sent) -> Response:
    """Keep an item as it is after a step; 409 with what is there where another window was
    faster."""
    to = _own(request)
    one = _item(request, to, round, key)
    try:
        change = _read(body, Change)
        return _json(_state(opening.save(to, round, who(request).name, one, change)))
    except Overtaken as error:
        return _fault(request, error, 409)
    except UserError as error:
        return _fault(request, error, 400)


class Asked(Value, frozen=True, forbid_unknown_fields=True):
    """A question on a span."""

    start: int
    end: int
    label: str
    words: str


@router.post("/{round}/{key}/ask")
def ask(request: Request, round: str, key: str, body: Sent) -> Response:
    """Keep a question to whoever keeps the guideline."""
    to = _own(request)
    one = _item(request, to, round, key)
    try:
        found = _read(body, Asked)
        if found.label not in to.card.names or not 0 <= found.start < found.end:
            raise UserError("This cannot be read; open the page again.")
        place = (found.start, min(found.end, len(one.task.text)))
        name = who(request).name
        questions.ask(to.folder, name, one.task.id, place, found.label, found.words)
    except UserError as error:
        return _fault(request, error, 400)
    return _json({"asked": True})


@router.post("/codes")
def codes(request: Request, body: Sent) -> Response:
    """Entries of the terminology that hold the words."""
    try:
        wanted = _read(body, dict[str, str]).get("words", "")
        return _json([(one.code, one.name) for one in opening.search(_own(request), wanted)])
    except UserError as error:
        return _fault(request, error, 400)


@router.post("/seen")
def seen(request: Request, form: Posted) -> Response:
    """A note was looked at again after an answer."""
    questions.looked_again(_own(request).folder, who(request).name, form.one("question"))
    return RedirectResponse(HOME, 303)


@router.post("/settle")
def settle(request: Request, form: Posted) -> HTMLResponse:
    """Take in what was labelled, and settle: for who decides."""
    if who(request).role != "adjudicator":
        raise GateRefused("This page is not for you; go back to your own.")
    return _home(request, opening.settle(_own(request)))


# The owner


@lead.get("")
def overview(request: Request, name: str) -> HTMLResponse:
    """How far everybody is, their addresses, and what they ask."""
    return _overview(request, name)


def _overview(request: Request, name: str, settled: Any = None) -> HTMLResponse:
    to = _named(request, name)
    codes = addresses(to.folder).codes
    by_browser = isinstance(to.settings, InBrowser)
    return page(
        request,
        "label-lead",
        name=name,
        title=to.recipe.name,
        via=to.settings.via,
        by_browser=by_browser,
        people=opening.standing(to) if by_browser and codes else [],
        addresses={one: f"{request.base_url}?secret={code}" for one, code in codes.items()},
        open=opening.asked(to, answered=False),
        answered=opening.asked(to, answered=True),
        settled=settled,
        here=f"/labelling/{name}",
        crumbs=((f"/labelling/{name}", to.recipe.name),),
    )


@lead.post("/give")
def give(request: Request, name: str, form: Posted) -> Response:
    """Give out what was not given yet."""
    to = _named(request, name)
    known = addresses(to.folder)
    if known.recipe:
        path = to.folder / known.recipe
    else:
        path = labellings(desk_of(request).root)[name] / RECIPE
    opening.give_out(to.recipe, path, known.changes)
    return RedirectResponse(request.url_for("overview", name=name).path, 303)


@lead.post("/settle")
def settle_all(request: Request, name: str, form: Posted) -> HTMLResponse:
    """Take in what was labelled, and settle."""
    return _overview(request, name, opening.settle(_named(request, name)))


@lead.post("/answer")
def answer(request: Request, name: str, form: Posted) -> Response:
    """Answer questions: those who asked are sent back to their notes."""
    questions.answer(_named(request, name).folder, form.all("question"), form.one("answer"))
    return RedirectResponse(request.url_for("overview", name=name).path, 303)
