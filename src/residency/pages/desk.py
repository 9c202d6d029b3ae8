"""What the pages share: the folder, the secret of this start, work under way, the languages; and
how a page is made."""

from __future__ import annotations

import hmac
import re
import threading
from collections.abc import Callable, Hashable, Mapping
from functools import cache
from pathlib import Path
from typing import Any, Literal, TypeVar, cast

from fastapi import Depends, Request
from fastapi.responses import HTMLResponse
from jinja2 import Environment, pass_context
from jinja2.runtime import Context

from residency.core.errors import GateRefused
from residency.core.page import environment
from residency.core.progress import duration
from residency.core.types import Value
from residency.evals.words import ENGLISH, Words, words_of
from residency.pages import folders
from residency.pages.work import Background, Work
from residency.workflows.dialogues import Dialogues

HERE = Path(__file__).parent
WORDS = HERE / "words"
LANGUAGES = {"vi": "Tiếng Việt", "zh": "中文", "en": "English"}
LANGUAGE_COOKIE = "residency-language"

T = TypeVar("T")
Role = Literal["owner", "annotator", "adjudicator", "rater", "doctor", "guest"]


class Person(Value, frozen=True):
    """Who asks: whoever started the pages, or somebody who was given an address of their own."""

    role: Role
    name: str = ""
    place: str = ""
    """The folder of the labelling or study that they are let into, below the desk's."""
    home: str = "/"
    """The address of their first page."""
    lang: str = ""
    """The language that they were given their address in; they may choose another."""
    scopes: frozenset[str] = frozenset()
    """Behind a server: what their token lets them ask it."""

    @property
    def known(self) -> str:
        """Who decided or judged, as it is written down: a name, else the role."""
        return self.name or self.role


Door = Callable[[Path, str], Person | None]
"""Whom a secret lets in, among those who are known below the folder of the desk."""


class Desk:
    """What one start of the pages holds."""

    def __init__(self, root: Path, secret: str, server: str = "", home: str = "/") -> None:
        self.root, self.secret, self.home = root.resolve(), secret, home
        self.server = server
        """Address of the server that the pages stand behind, if they do."""
        self.work, self.background = Work(), Background()
        self.model = threading.Lock()
        """Held by who asks a model: one at a time, as memory is counted for one."""
        self._held: tuple[object, object] | None = None
        self.opening = threading.Lock()
        """Held by who makes the systems of a study ready."""
        self.dialogues: dict[Path, Dialogues] = {}
        """Of studies, by their folders."""

    def held(self, key: Hashable, load: Callable[[], T]) -> T:
        """What takes long to load, by its key: the last one stays until another takes its place.
        Asked for by who has ``model``."""
        if self._held is None or self._held[0] != key:
            self._held = None  # its memory goes first
            self._held = key, load()
        return cast(T, self._held[1])

    def project(self, name: str) -> Path:
        """A project by its name; raises ``Missing``."""
        return folders.project(self.root, name)

    def run(self, project: str, name: str) -> Path:
        """A run by its name, one that is about to begin among them; raises ``Missing``."""
        place = self.project(project)
        for path in self.work.started(place / folders.RUNS):
            if path.name == name:
                return path
        return folders.run_of(self.root, place, name)

    def runs(self, project: Path) -> list[Path]:
        """The runs of a project, those about to begin among them."""
        return [
            *self.work.started(project / folders.RUNS),
            *folders.runs(self.root, project),
        ]


def desk_of(request: Request) -> Desk:
    """The desk of a request's application."""
    found: Desk = request.app.state.desk
    return found


def who(request: Request) -> Person:
    """Who asks."""
    found: Person = request.state.person
    return found


def only(*roles: Role) -> Any:
    """What a route depends on that only these roles are answered by; raises ``GateRefused``."""

    def ask(request: Request) -> None:
        if who(request).role not in roles:
            raise GateRefused("This page is not for you; go back to your own.")

    return Depends(ask)


def token_of(secret: str) -> str:
    """What every form of a person carries: a page of another site cannot know it."""
    return hmac.new(secret.encode(), b"form", "sha256").hexdigest()


def language_of(request: Request) -> str:
    """The language that was chosen, or the first that the browser asks for and pages have."""
    chosen = request.cookies.get(LANGUAGE_COOKIE, "")
    if chosen in LANGUAGES:
        return chosen
    wanted = []
    for one in request.headers.get("accept-language", "").split(","):
        tag, _, quality = one.strip().partition(";q=")
        share = float(quality) if re.fullmatch(r"[01](\.\d*)?", quality) else 1.0
        wanted.append((-share, tag.partition("-")[0].lower()))
    found = (tag for _, tag in sorted(wanted, key=lambda pair: pair[0]))
    return next((tag for tag in found if tag in LANGUAGES), "en")


def words_in(code: str) -> Words:
    """The words of the pages in a language."""
    return ENGLISH if code == ENGLISH.code else words_of(code, WORDS)


@pass_context
def _lasting(context: Context, seconds: float) -> str:
    """A time with its units in the language of the page."""
    parts = duration(seconds).split()
    return " ".join(one if one.isdecimal() else context["_"](one) for one in parts)


@cache
def _environment() -> Environment:
    found = environment(HERE / "templates")
    found.filters["duration"] = _lasting
    return found


def fragment(request: Request, template: str, values: Mapping[str, Any]) -> str:
    """A template in the language of a request."""
    lang = language_of(request)
    words = words_in(lang)
    return (
        _environment()
        .get_template(f"{template}.html.jinja")
        .render(
            _=words,
            told=words.said,
            lang=lang,
            languages=LANGUAGES,
            token=token_of(request.state.secret),
            person=who(request),
            **{"here": request.url.path, "crumbs": (), **values},
        )
    )


def page(request: Request, template: str, status: int = 200, **values: Any) -> HTMLResponse:
    """A page. ``here``: its address, where another one leads to it by a form; ``crumbs``: (address,
    name) of the pages above it."""
    return HTMLResponse(fragment(request, template, values), status)


class Point(Value, frozen=True):
    """A loss on its curve, in units of the drawing."""

    x: float
    y: float


def curve(
    measured: tuple[dict[str, float], ...], width: int = 600, height: int = 160
) -> list[Point]:
    """The losses of a stage as points of a drawing whose y goes down; the lowest edge is 0."""
    losses = [(one["step"], one["loss"]) for one in measured if "loss" in one]
    if len(losses) < 2:
        return []
    last, most = losses[-1][0], max(loss for _, loss in losses) or 1.0
    return [
        Point(x=round(width * step / last, 1), y=round(height * (1 - max(loss, 0.0) / most), 1))
        for step, loss in losses
    ]
