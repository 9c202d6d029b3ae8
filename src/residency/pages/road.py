"""The road of a project that has a recipe: check, plan, start a run and follow it, stop it, go on
with it, read its report, compare two."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

from fastapi import APIRouter, Depends, Request, Response
from fastapi.responses import HTMLResponse, JSONResponse, RedirectResponse

from residency.core.errors import DataError, ResidencyError, UserError
from residency.core.files import digest, file_digest, read_jsonl
from residency.core.run_folder import Run
from residency.core.types import RunFacts, Value
from residency.evals.formats import interval, metric_title, metric_value
from residency.evals.report_view import task_views
from residency.evals.words import words_of
from residency.models import artefact as artefacts
from residency.models.predictors import kind_of
from residency.pages import folders
from residency.pages.desk import Desk, curve, desk_of, fragment, language_of, page
from residency.pages.doctor import routes_of
from residency.pages.folders import RUNS, Missing
from residency.pages.forms import Form, posted
from residency.recipe import Recipe
from residency.workflows.check import CheckFinding, check
from residency.workflows.compare import BASE, contest_of
from residency.workflows.finished import artefact_of, finished_facts
from residency.workflows.plan import Forecast, forecasts, remembered_in
from residency.workflows.report import report
from residency.workflows.steps import folder_of, hash_files

router = APIRouter(prefix="/projects/{name}")
Posted = Annotated[Form, Depends(posted)]
REPORT = (
    "default-src 'none'; style-src 'unsafe-inline'; img-src data:; sandbox; base-uri 'none'; "
    "form-action 'none'; frame-ancestors 'none'"
)
"""A report has its look inside of it, and nothing that acts."""
BEHIND_CHECK = 1.0
"""Seconds that a page waits for what is found before it is shown without."""


class Line(Value, frozen=True):
    """A run in a list."""

    name: str
    status: str
    at: str = ""
    compares: bool = False
    """Whether it has a model, so that it can be compared with another."""


class Event(Value, frozen=True):
    """A line of a run's log."""

    time: str
    event: str
    step: str = ""
    how: str = ""
    seconds: float = 0.0


def _load(place: Path) -> Recipe:
    return Recipe.load(place / folders.RECIPE)


def _key(kind: str, place: Path, recipe: Recipe) -> str:
    """What the result of a check or a plan depends on: the recipe, and the files that it names."""
    try:
        files: object = hash_files(recipe, place / RUNS / ".digests.json")
    except ResidencyError as error:
        files = str(error)
    return digest([kind, str(place), file_digest(place / folders.RECIPE), files])


def _checked(desk: Desk, place: Path, seconds: float) -> list[CheckFinding] | None:
    """What ``residency check`` finds; None while it looks."""
    try:
        recipe = _load(place)
        key = _key("check", place, recipe)
        found = desk.background.ask(key, lambda: check(recipe, place / RUNS), seconds)
    except ResidencyError as error:
        return [CheckFinding(level="error", message=one) for one in str(error).splitlines()]
    return None if found is None else found[0]


def _lines(desk: Desk, place: Path) -> list[Line]:
    return [_line(desk, path) for path in desk.runs(place)]


def _line(desk: Desk, path: Path) -> Line:
    standing = desk.work.standing(path)
    at = Run(path).manifest.created if (path / "manifest.json").is_file() else ""
    able = standing.status == "done" and any(path.glob("train/*/artefact.json"))
    return Line(name=path.name, status=standing.status, at=at, compares=able)


def project_page(request: Request, place: Path) -> HTMLResponse:
    """A project: what was found in its data, its runs, and what can be done next."""
    desk = desk_of(request)
    findings = _checked(desk, place, BEHIND_CHECK)
    recipe = None
    if findings is None or not any(one.level == "error" for one in findings):
        recipe = _load(place)
    return page(
        request,
        "project",
        name=place.name,
        findings=findings,
        recipe=recipe,
        runs=_lines(desk, place),
        crumbs=((request.url.path, place.name),),
    )


@router.get("/checked")
def checked(request: Request, name: str) -> JSONResponse:
    """What was found so far, for a page that waits for it."""
    findings = _checked(desk_of(request), desk_of(request).project(name), BEHIND_CHECK)
    return JSONResponse({"html": "", "said": "", "ended": findings is not None})


@router.get("/plan")
def plan(request: Request, name: str) -> HTMLResponse:
    """What each stage takes."""
    desk = desk_of(request)
    place = desk.project(name)
    found, problems = _planned(desk, place, BEHIND_CHECK)
    above = request.url_for("project", name=name).path
    crumbs = ((above, name), (request.url.path, "plan"))
    return page(request, "plan", name=name, forecasts=found, problems=problems, crumbs=crumbs)


@router.get("/planned")
def planned(request: Request, name: str) -> JSONResponse:
    """Whether the plan is there, for a page that waits for it."""
    desk = desk_of(request)
    found, problems = _planned(desk, desk.project(name), BEHIND_CHECK)
    return JSONResponse({"html": "", "said": "", "ended": bool(problems) or found is not None})


def _planned(
    desk: Desk, place: Path, seconds: float
) -> tuple[list[Forecast] | None, Sequence[str]]:
    """What ``residency plan`` says, None while it measures; or why it cannot."""
    try:
        recipe = _load(place)
        key = _key("plan", place, recipe)
        return desk.background.ask(
            key, lambda: forecasts(recipe, memory=remembered_in()), seconds
        ), ()
    except ResidencyError as error:
        return None, str(error).splitlines()


def _led_to(request: Request, name: str, run: Path) -> RedirectResponse:
    return RedirectResponse(request.url_for("run", name=name, run=run.name).path, 303)


@router.post("/start")
def start(request: Request, name: str, form: Posted) -> Response:
    """Start the run of the recipe, or go on with it."""
    desk = desk_of(request)
    place = desk.project(name)
    run = folder_of(_load(place), place / RUNS)
    if desk.work.standing(run).status != "done":
        verb = ("run", str(place / folders.RECIPE), "--runs", str(place / RUNS))
        desk.work.start(run, verb, desk.runs(place))
    return _led_to(request, name, run)


@router.post("/compare")
def compare(request: Request, name: str, form: Posted) -> Response:
    """Compare two runs, or one with its base."""
    desk = desk_of(request)
    place = desk.project(name)
    systems = [
        one if one == BASE else str(folders.run_of(desk.root, place, one))
        for one in form.all("system")
    ]
    if len(systems) != 2:
        raise UserError("Choose two to compare: two runs, or a run and the base.")
    run = contest_of(systems, runs=place / RUNS).wanted.inputs.folder
    if desk.work.standing(run).status != "done":
        verb = ("compare", *systems, "--runs", str(place / RUNS))
        desk.work.start(run, verb, desk.runs(place))
    return _led_to(request, name, run)


@router.post("/runs/{run}/stop")
def stop(request: Request, name: str, run: str, form: Posted) -> Response:
    """End the work on a run; what it has finished stays."""
    desk = desk_of(request)
    found = desk.run(name, run)
    desk.work.stop(found)
    return _led_to(request, name, found)


@router.get("/runs/{run}", name="run")
def run_page(request: Request, name: str, run: str) -> HTMLResponse:
    """A run: how far it is, or what came of it."""
    desk = desk_of(request)
    place, found = desk.project(name), desk.run(name, run)
    values = _followed(desk, found)
    above = request.url_for("project", name=name).path
    return page(
        request,
        "run",
        name=name,
        run=run,
        goes_on=_goes_on(place, found),
        writes=values["standing"].status == "done" and _writes(found),
        has_model=any(found.glob("train/*/artefact.json")),
        asked=routes_of(found) if values["standing"].status == "done" else (),
        **_result(request, found, values["standing"].status == "done"),
        **values,
        crumbs=((above, name), (request.url.path, run)),
    )


@router.get("/runs/{run}/state")
def state(request: Request, name: str, run: str) -> JSONResponse:
    """How far a run is, as a piece of its page."""
    desk = desk_of(request)
    values = _followed(desk, desk.run(name, run))
    standing = values["standing"]
    html = fragment(request, "standing", {**values, "name": name, "run": run})
    said = standing.state.title if standing.state else ""
    return JSONResponse({"html": html, "said": said, "ended": standing.status != "under way"})


def _followed(desk: Desk, run: Path) -> dict[str, Any]:
    """What the piece of a page shows that is looked at again and again."""
    standing = desk.work.standing(run)
    log = run / "log.jsonl"
    measured = standing.state.measured if standing.state else ()
    return {
        "standing": standing,
        "steps": _steps(log) if log.is_file() else [],
        "points": curve(measured),
        "measured": [one for one in measured if "loss" in one or len(one) > 2][-12:],
    }


def _steps(log: Path) -> list[Event]:
    """The steps of a run as its log has them: each as it was last heard of."""
    try:
        found = {one.step: one for one in read_jsonl(log, Event) if one.step}
    except DataError:  # the line that is being written
        return []
    return list(found.values())


def _goes_on(place: Path, run: Path) -> bool:
    """Whether the recipe as it is now is the one of the run, so that starting it goes on."""
    try:
        return folder_of(_load(place), run.parent) == run
    except ResidencyError:
        return False


def _writes(run: Path) -> bool:
    """Whether a run's model can be talked to."""
    try:
        kind_of(artefacts.read(artefact_of(run))).check_able("chat", run)
    except ResidencyError:
        return False
    return True


def _result(request: Request, run: Path, done: bool) -> dict[str, Any]:
    """What the report of a finished run says first, in the language of the page."""
    if not done:
        return {"tasks": (), "reported": ""}
    words = words_of(language_of(request))
    facts = finished_facts(Run(run))
    tasks = [
        {
            "name": task.name,
            "verdict": task.verdict,
            "judged": [one.words for one in task.judged],
            "metric": metric_title(task.metric, words),
            "scores": [
                (
                    words(report.system.name),
                    metric_value(score.value, 3, words),
                    interval(score.low, score.high),
                )
                for report in task.reports
                for score in report.scores
                if score.metric == task.metric
            ],
        }
        for task in task_views(facts, words)
    ]
    return {"tasks": tasks, "reported": facts.language}


@router.get("/runs/{run}/report")
def run_report(request: Request, name: str, run: str) -> Response:
    """The report of a finished run, in the language of the pages."""
    found, lang = desk_of(request).run(name, run), language_of(request)
    if not (found / "report.html").is_file():
        raise Missing("This run has no report yet.")
    path = found / "report.html"
    facts: RunFacts = finished_facts(Run(found))
    if facts.language != lang:
        path = found / f"report-{lang}" / "report.html"
        if not path.is_file() or path.stat().st_mtime < (found / "report.html").stat().st_mtime:
            path = report(found, lang)
    return Response(
        path.read_bytes(),
        media_type="text/html; charset=utf-8",
        headers={"content-security-policy": REPORT},
    )
