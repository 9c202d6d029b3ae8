"""The application of the pages: who may ask, how answers are closed, what a fault says. Only this
machine is answered, under the secret of this start."""

from __future__ import annotations

import re
import sys
import traceback
from collections.abc import Awaitable, Callable
from pathlib import Path
from secrets import compare_digest
from urllib.parse import urlsplit

from fastapi import APIRouter, FastAPI, Request, Response
from fastapi.responses import PlainTextResponse, RedirectResponse
from msgspec.structs import replace
from starlette.exceptions import HTTPException

from residency.core import page as reports
from residency.core.errors import GateRefused, ResidencyError
from residency.pages import begin, doctor, labelling, queues, rating, road, studies, tries
from residency.pages.desk import (
    HERE,
    LANGUAGE_COOKIE,
    LANGUAGES,
    Desk,
    Door,
    Person,
    Role,
    only,
    page,
)
from residency.pages.folders import Missing
from residency.pages.gate import Gate, no_page, secret_of
from residency.serve import Refusal

CLOSED = (
    "default-src 'none'; style-src 'self'; script-src 'self'; img-src 'self' data:; "
    "connect-src 'self'; form-action 'self'; base-uri 'none'; frame-ancestors 'none'"
)
HEADERS = {
    "content-security-policy": CLOSED,
    "x-content-type-options": "nosniff",
    "referrer-policy": "no-referrer",
    "cache-control": "no-store",
    "cross-origin-opener-policy": "same-origin",
    "cross-origin-resource-policy": "same-origin",
}
CODE = "residency-code"
"""Behind a server: the cookie of who has an address of their own."""
LOOPBACK = re.compile(r"(127\.0\.0\.1|localhost|\[::1\])(:\d{1,5})?")
ROUTERS: tuple[tuple[APIRouter, tuple[Role, ...]], ...] = (
    (begin.router, ("owner",)),
    (road.router, ("owner",)),
    (tries.router, ("owner",)),
    (queues.router, ("owner",)),
    (doctor.router, ("owner",)),
    (doctor.behind, ("owner", "doctor")),
    (studies.router, ("owner",)),
    (rating.router, ("rater",)),
    (labelling.router, ("annotator", "adjudicator")),
    (labelling.lead, ("owner",)),
)
"""The pages, and whom they answer."""
DOORS: tuple[Door, ...] = (studies.rater, labelling.door)
"""Who else is known by an address of their own."""
NOT_THIS_START = "Open the address that residency ui has printed: it holds the key of this start.\n"
FAULT = "The program failed at this; what kind of fault it was stands in the terminal."
STATIC = {
    "report.css": "text/css",
    "pages.css": "text/css",
    "pages.js": "text/javascript",
    "rating.js": "text/javascript",
    "mark.css": "text/css",
    "points.js": "text/javascript",
    "mark.js": "text/javascript",
}


def create_app(folder: Path, secret: str, home: str = "/", *, gate: Gate | None = None) -> FastAPI:
    """The pages on the projects below a folder. ``secret``: of this start; whoever brings it once
    (``/?secret=...``) has it kept in a cookie of this browser until that is closed. ``home``: the
    first page of the owner. ``gate``: of the server that the pages stand behind, which says who
    asks instead."""
    app = FastAPI(title="residency ui", openapi_url=None, docs_url=None, redoc_url=None)
    app.state.desk = Desk(folder, secret, gate.server if gate else "", home)
    app.state.gate = gate
    app.middleware("http")(_guarded)
    for router, roles in ROUTERS:
        app.include_router(router, dependencies=[only(*roles)])
    app.add_api_route("/static/{name}", _static, methods=["GET"])
    app.add_exception_handler(ResidencyError, _refused)
    app.add_exception_handler(HTTPException, _no_page)
    return app


async def _guarded(request: Request, answer: Callable[[Request], Awaitable[Response]]) -> Response:
    """An answer for who may have it, with the headers of all answers."""
    gate: Gate | None = request.app.state.gate
    response = _admitted(request) if gate is None else await _let_in(request, gate)
    if response is None:
        try:
            response = await answer(request)
        except Exception as error:
            response = _failed(request, error)
    for name, value in HEADERS.items():
        response.headers.setdefault(name, value)
    return response


def _admitted(request: Request) -> Response | None:
    """Nothing for who may ask; else what is answered instead. A foreign Host is a name of another
    site that was made to lead here (DNS rebinding)."""
    host = request.headers.get("host", "")
    own = f"http://{host}"
    origin = request.headers.get("origin", "null")  # what browsers send where there is no referrer
    foreign = request.headers.get("sec-fetch-site", "none") not in ("same-origin", "none")
    if not LOOPBACK.fullmatch(host) or origin not in ("null", own):
        return PlainTextResponse("Only this machine is answered.\n", 403)
    cookie = f"residency-{request.url.port or 80}"  # a browser's cookies are of all ports alike
    if request.method == "GET" and request.url.path == "/" and "secret" in request.query_params:
        secret = request.query_params["secret"]
        if (person := _known(request.app.state.desk, secret)) is None:
            return PlainTextResponse(NOT_THIS_START, 403)
        response = RedirectResponse(person.home, 303)
        response.set_cookie(cookie, secret, httponly=True, samesite="strict")
        return _in_language(response, person.lang) if person.lang else response
    secret = request.cookies.get(cookie, "")
    if (person := _known(request.app.state.desk, secret)) is None:
        return PlainTextResponse(NOT_THIS_START, 403)
    request.state.person, request.state.secret = person, secret
    if request.method not in ("GET", "HEAD") and foreign:
        return PlainTextResponse("Only these pages may post.\n", 403)
    if (lang := request.query_params.get("lang", "")) in LANGUAGES and request.method == "GET":
        return _in_language(RedirectResponse(request.url.path, 303), lang)
    return None


async def _let_in(request: Request, gate: Gate) -> Response | None:
    """The same behind a server: the token of each request says who asks. Who has an address of
    their own is, with any valid token, whom that address is of."""
    desk, code = request.app.state.desk, request.query_params.get("secret", "")
    try:
        person = await gate.person(request.headers.get("authorization"))
        request.state.secret = secret_of(person, desk.secret)
        first = request.url.path == "/" and request.method == "GET"
        if first and code:
            if (own := _at_door(desk, code)) is None:
                raise no_page()
            response = RedirectResponse(own.home, 303)
            far = not LOOPBACK.fullmatch(request.headers.get("host", ""))
            response.set_cookie(CODE, code, httponly=True, samesite="strict", secure=far)
            return _in_language(response, own.lang) if own.lang else response
        if own := _at_door(desk, request.cookies.get(CODE, "")):
            person = replace(own, scopes=person.scopes)
        if person.role == "guest":
            raise no_page()
    except Refusal as refusal:
        headers = refusal.headers() | {"content-type": "text/plain; charset=utf-8"}
        return PlainTextResponse(f"{refusal.sentence}\n", refusal.status, headers)
    request.state.person = person
    origin = urlsplit(request.headers.get("origin", "null"))
    foreign = request.headers.get("sec-fetch-site", "none") not in ("same-origin", "none")
    if origin.path != "null" and origin.netloc != request.headers.get("host", ""):
        foreign = True
    if request.method not in ("GET", "HEAD") and foreign:
        return PlainTextResponse("Only these pages may post.\n", 403)
    if first and person.home != "/":
        return RedirectResponse(person.home, 303)
    if (lang := request.query_params.get("lang", "")) in LANGUAGES and request.method == "GET":
        return _in_language(RedirectResponse(request.url.path, 303), lang)
    return None


def _at_door(desk: Desk, code: str) -> Person | None:
    """Whom a code lets in."""
    return next((found for door in DOORS if code and (found := door(desk.root, code))), None)


def _in_language(response: Response, lang: str) -> Response:
    """Have the browser keep the language of its pages."""
    response.set_cookie(LANGUAGE_COOKIE, lang, 31_536_000, httponly=True, samesite="strict")
    return response


def _known(desk: Desk, secret: str) -> Person | None:
    """Whom a secret lets in."""
    if compare_digest(secret.encode(), desk.secret.encode()):
        return Person(role="owner", home=desk.home)
    return _at_door(desk, secret)


async def _static(name: str) -> Response:
    """The look, and the one script."""
    if name not in STATIC:
        raise HTTPException(404)
    text = reports.style() if name == "report.css" else (HERE / "static" / name).read_text("utf-8")
    return Response(text, media_type=STATIC[name])


async def _refused(request: Request, error: Exception) -> Response:
    """What stands in the way, in the sentence that a verb says too."""
    status = 404 if isinstance(error, Missing) else 403 if isinstance(error, GateRefused) else 400
    return page(request, "error", status, sentences=str(error).splitlines(), here="/")


async def _no_page(request: Request, error: Exception) -> Response:
    status = error.status_code if isinstance(error, HTTPException) else 404
    return page(request, "error", status, sentences=["There is no such page here."], here="/")


def _failed(request: Request, error: Exception) -> Response:
    """A fault of ours: the terminal is told its kind and place, and nothing that it holds."""
    place = traceback.extract_tb(error.__traceback__)[-1]
    kind = f"{type(error).__name__} at {Path(place.filename).name}:{place.lineno}"
    print(f"residency ui: a page failed: {kind}", file=sys.stderr, flush=True)
    return page(request, "error", 500, sentences=[FAULT], here="/")
