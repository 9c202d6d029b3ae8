"""The first pages of the road: the projects that are here, and a new one from files, with what was
found in them and what they leave open."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated

from fastapi import APIRouter, Depends, Request
from fastapi.responses import HTMLResponse, RedirectResponse, Response
from msgspec.structs import replace

from residency.core.errors import ResidencyError, UserError
from residency.core.types import Value
from residency.pages import folders
from residency.pages.desk import desk_of, page
from residency.pages.forms import Form, posted
from residency.pages.road import project_page
from residency.workflows.columns import Answers, Question
from residency.workflows.init import write_for
from residency.workflows.look import Looked, look

router = APIRouter()
Posted = Annotated[Form, Depends(posted)]


class _Open(Exception):
    """The files leave a question open."""

    def __init__(self, question: Question) -> None:
        super().__init__(question.key)
        self.question = question


class Heard(Answers):
    """Answers from a form. Notes what could be answered, and stops at the first open question."""

    def __init__(self, given: Mapping[str, str]) -> None:
        super().__init__(given, self._open)
        self.could: dict[str, tuple[str, ...]] = {}
        """Key -> the answers that are possible; none: any."""

    def said(self, key: str, choices: Sequence[str] = ()) -> str:
        self.could[key] = self.could.get(key) or tuple(choices)
        return super().said(key, choices)

    def _open(self, question: Question) -> str:
        raise _Open(question)


class Draft(Value, frozen=True):
    """What is known of files before a recipe is written."""

    given: dict[str, str]
    could: dict[str, tuple[str, ...]]
    found: Looked | None = None
    question: Question | None = None
    problems: tuple[str, ...] = ()


def draft_of(project: Path, given: Mapping[str, str]) -> Draft:
    """Look at the files of a project, with what was answered so far."""
    heard = Heard(given)
    known = dict(given)
    try:
        found = look(folders.uploads(project), project, heard)
        return Draft(given=known, could=heard.could, found=found)
    except _Open as asked:
        words = asked.question.words.replace(f"{project / folders.DATA}/", "")
        question = replace(asked.question, words=words)
        return Draft(given=known, could=heard.could, question=question)
    except ResidencyError as error:
        told = str(error).replace(f"{project / folders.DATA}/", "")
        return Draft(given=known, could=heard.could, problems=tuple(told.splitlines()))


@router.get("/")
def index(request: Request) -> HTMLResponse:
    """The projects, and the form of a new one."""
    desk = desk_of(request)
    found = folders.projects(desk.root)
    counts = {path.name: len(desk.runs(path)) for path in found}
    return page(request, "index", projects=found, counts=counts, recipe=folders.RECIPE)


@router.post("/projects")
def new(request: Request, form: Posted) -> Response:
    """A new project from files."""
    named = dict(form.files)
    if len(named) < len(form.files):
        raise UserError("Two of the files have one name; give each a name of its own.")
    made = folders.begin(desk_of(request).root, form.one("name"), named)
    return RedirectResponse(request.url_for("project", name=made.name).path, 303)


@router.get("/projects/{name}")
def project(request: Request, name: str) -> HTMLResponse:
    """A project; or, before it has a recipe, what was found in its files."""
    place = desk_of(request).project(name)
    if (place / folders.RECIPE).is_file():
        return project_page(request, place)
    return _draft_page(request, place, {})


@router.post("/projects/{name}/look")
def look_again(request: Request, name: str, form: Posted) -> HTMLResponse:
    """Look again, with answers."""
    return _draft_page(request, desk_of(request).project(name), form.under("answer-"))


@router.post("/projects/{name}/make")
def make(request: Request, name: str, form: Posted) -> Response:
    """Write the recipe."""
    place = desk_of(request).project(name)
    if (place / folders.RECIPE).is_file():
        return RedirectResponse(request.url_for("project", name=name).path, 303)
    try:
        write_for(folders.uploads(place), place, Heard(form.under("answer-")))
    except _Open:
        return _draft_page(request, place, form.under("answer-"))
    return RedirectResponse(request.url_for("project", name=name).path, 303)


def _draft_page(request: Request, place: Path, given: Mapping[str, str]) -> HTMLResponse:
    """What was found in files, or what is asked."""
    draft = draft_of(place, given)
    files = [(path.name, path.stat().st_size) for path in folders.uploads(place)]
    here = request.url_for("project", name=place.name).path
    return page(
        request,
        "draft",
        400 if draft.problems else 200,
        name=place.name,
        draft=draft,
        files=files,
        here=here,
        crumbs=((here, place.name),),
    )
