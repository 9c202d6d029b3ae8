"""The doctor's page: what is known of a patient is asked of a model, which answers with how sure it
is, or abstains; a text is shown with its entities; and the doctor says whether that was right. What
is asked is posted and kept nowhere, neither here nor in the browser."""

from __future__ import annotations

import hmac
import secrets
from collections import Counter
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Annotated, Any

import msgspec
from fastapi import APIRouter, Depends, Request
from fastapi.responses import HTMLResponse

from residency.core.errors import ResidencyError, UserError
from residency.pages.asked import Said, ask_run, ask_server, served_of
from residency.pages.desk import Desk, desk_of, page, who
from residency.pages.folders import Missing
from residency.pages.forms import Form, posted
from residency.pages.tries import pieces
from residency.serve.routes.clinical import language
from residency.workflows.feedback import VERDICTS, Answered, keep
from residency.workflows.knowledge import Source, sources

router = APIRouter(prefix="/projects/{name}/runs/{run}")
behind = APIRouter()
"""The same page of the server that the pages stand behind."""
Posted = Annotated[Form, Depends(posted)]
FIELDS = ("patient", "history", "complaint", "examination", "tests")
ROUTES = ("diagnose", "extract")
MOST = 20_000
"""Characters of what is asked."""


def routes_of(run: Path) -> tuple[str, ...]:
    """What a doctor can ask a run's model: ``diagnose``, ``extract``; nothing where there is none
    that could answer."""
    try:
        return tuple(one for one in served_of(run).routes if one in ROUTES)
    except ResidencyError:
        return ()


def findings(given: Mapping[str, str]) -> dict[str, str]:
    """The form as ``/diagnose`` takes it: history belongs to the patient, what is found on
    examination to the symptoms. Raises ``UserError`` where patient or complaint is empty."""
    if not given["patient"].strip() or not given["complaint"].strip():
        raise UserError("Write who the patient is (age, sex) and what the complaint is.")

    def both(*names: str) -> str:
        return "\n".join(text for name in names if (text := given[name].strip()))

    return {
        "patient_info": both("patient", "history"),
        "symptoms": both("complaint", "examination"),
        "test_results": both("tests"),
    }


def body_of(route: str, given: Mapping[str, str]) -> dict[str, str]:
    """What a form asks a route. Raises ``UserError`` for what is empty or too long."""
    if sum(map(len, given.values())) > MOST:
        raise UserError(f"The text is longer than {MOST} characters; try a part of it.")
    if route == "diagnose":
        return findings(given)
    if not given["text"].strip():
        raise UserError("Nothing was written; write a text first.")
    return {"text": given["text"], "lang": language(given["text"])}


# Of a run, for the owner


@router.get("/doctor")
def run_form(request: Request, name: str, run: str) -> HTMLResponse:
    """The empty form."""
    desk = desk_of(request)
    routes = _answering(desk, name, run)
    return _shown(request, routes, {}, **_place(request, name, run))


@router.post("/doctor")
def ask_one_run(request: Request, name: str, run: str, form: Posted) -> HTMLResponse:
    """What a run's model answers."""
    desk = desk_of(request)
    routes, place = _answering(desk, name, run), _place(request, name, run)
    folder, route, given = desk.run(name, run), _route(form, routes), _given(form)
    said = _asked(route, given, lambda body: ask_run(desk, folder, route, body))
    written = not served_of(folder).card.labels
    place["sources"] = _sources(desk.project(name), given, said)
    return _shown(request, routes, given, said, route, written, **place)


@router.post("/doctor/feedback")
def judge_run(request: Request, name: str, run: str, form: Posted) -> HTMLResponse:
    """What the doctor says of it."""
    desk = desk_of(request)
    folder, routes = desk.project(name), _answering(desk, name, run)
    _kept(request, folder, form)
    return _shown(request, routes, {}, thanks=True, **_place(request, name, run))


def _answering(desk: Desk, name: str, run: str) -> tuple[str, ...]:
    if routes := routes_of(desk.run(name, run)):
        return routes
    raise Missing("This run has no model that a doctor can ask.")


def _place(request: Request, name: str, run: str) -> dict[str, Any]:
    here = request.url_for("run_form", name=name, run=run).path
    crumbs = (
        (request.url_for("project", name=name).path, name),
        (request.url_for("run", name=name, run=run).path, run),
        (here, "doctor"),
    )
    return {"here": here, "crumbs": crumbs, "department": False}


# Of the server that the pages stand behind


@behind.get("/doctor")
def form_behind(request: Request) -> HTMLResponse:
    """The empty form."""
    return _shown(request, _allowed(request), {}, **BEHIND)


BEHIND: dict[str, Any] = {"here": "/doctor", "department": True}


@behind.post("/doctor")
def ask_behind(request: Request, form: Posted) -> HTMLResponse:
    """What the server answers."""
    routes = _allowed(request)
    route, given = _route(form, routes), _given(form)
    server, token = desk_of(request).server, request.headers.get("authorization", "")
    department = form.one("department").strip()
    to = {"department": department} if department else {}
    said = _asked(route, given, lambda body: ask_server(server, token, route, body | to))
    near = _sources(desk_of(request).root, given, said, department) if department else None
    given |= {"department": department}
    return _shown(request, routes, given, said, route, sources=near, **BEHIND)


@behind.post("/doctor/feedback")
def judge_behind(request: Request, form: Posted) -> HTMLResponse:
    """What the doctor says of it."""
    _kept(request, desk_of(request).root, form)
    return _shown(request, _allowed(request), {}, thanks=True, **BEHIND)


def _allowed(request: Request) -> tuple[str, ...]:
    if not desk_of(request).server:
        raise Missing("These pages stand behind no server; open the doctor's page of a run.")
    return tuple(one for one in ROUTES if one in who(request).scopes)


# Of both


def _asked(route: str, given: Mapping[str, str], ask: Callable[[dict[str, str]], Said]) -> Said:
    """What is answered; a form that asks nothing says so, and keeps what was written in it."""
    try:
        return ask(body_of(route, given))
    except UserError as error:
        return Said(failure=str(error))


def _sources(
    folder: Path, given: Mapping[str, str], said: Said, department: str = ""
) -> list[Source] | None:
    """What the department's knowledge base holds that is nearest to what was asked and answered."""
    if not said.found:
        return None
    return sources(
        folder, "\n".join([said.found.get("diagnosis") or "", *given.values()]), department
    )


def _given(form: Form) -> dict[str, str]:
    return {one: form.one(one) for one in (*FIELDS, "text")}


def _route(form: Form, routes: tuple[str, ...]) -> str:
    if (route := form.one("route")) not in routes:
        raise UserError("This cannot be asked here; open the page again.")
    return route


def _shown(
    request: Request,
    routes: tuple[str, ...],
    given: Mapping[str, str],
    said: Said = Said(),
    route: str = "",
    written: bool = True,
    thanks: bool = False,
    sources: list[Source] | None = None,
    **place: Any,
) -> HTMLResponse:
    """The page, with an answer where something was asked."""
    answered, entities = None, said.found.get("entities")
    if said.found:
        answered = _answered(said, route, written)
    return page(
        request,
        "doctor",
        400 if said.failure else 200,
        routes=routes,
        given=given,
        failure=said.failure,
        answered=answered,
        signed=_signed(desk_of(request), answered) if answered else ("", ""),
        disclaimer=said.found.get("disclaimer", ""),
        entities=entities,
        pieces=pieces(given["text"], entities) if entities is not None else (),
        verdicts=VERDICTS,
        thanks=thanks,
        sources=sources,
        **place,
    )


def _answered(said: Said, route: str, written: bool) -> Answered:
    """What the table keeps of an answer."""
    labels = Counter(one["label"] for one in said.found.get("entities", ()))
    return Answered(
        id=secrets.token_hex(8),
        model=said.found["digest"],
        name=said.found["model"],
        route=route,
        answer=said.found.get("diagnosis") or "",
        written=written and route == "diagnose",
        found=dict(sorted(labels.items())),
        confidence=said.found.get("confidence"),
        abstained=said.found.get("abstained", False),
    )


def _seal(desk: Desk, words: str) -> str:
    return hmac.new(desk.secret.encode(), b"answer\0" + words.encode(), "sha256").hexdigest()


def _signed(desk: Desk, answered: Answered) -> tuple[str, str]:
    """An answer as the page carries it until it is judged, and a seal: nothing of it is kept here,
    and none can be judged that was not given."""
    words = msgspec.json.encode(answered).decode()
    return words, _seal(desk, words)


def _kept(request: Request, folder: Path, form: Form) -> None:
    """Keep what is said of an answer. Raises ``UserError`` for one that was not given here."""
    desk, words = desk_of(request), form.one("answered")
    if not hmac.compare_digest(form.one("seal").encode(), _seal(desk, words).encode()):
        raise UserError("This answer was not given since the pages were started; ask once more.")
    answered = msgspec.json.decode(words, type=Answered)
    keep(
        folder,
        answered,
        form.one("verdict"),
        who(request).known,
        form.one("comment"),
        with_answer=form.one("with-answer") == "yes",
    )
