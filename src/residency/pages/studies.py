"""Blind studies as their owner sees them: how far each rater is, the lock, the result; and who is
let in as a rater. Before the lock nothing says who wrote what."""

from __future__ import annotations

import hmac
from collections.abc import Iterator
from functools import lru_cache
from hashlib import sha256
from pathlib import Path
from typing import Annotated

from fastapi import APIRouter, Depends, Request, Response
from fastapi.responses import HTMLResponse, RedirectResponse

from residency.core.errors import ResidencyError, UserError
from residency.core.types import Value
from residency.evals.study import (
    ITEMS,
    STUDY,
    OpenStudy,
    Rater,
    codes_of,
    is_locked,
    key_path,
    open_study,
    read_key,
)
from residency.evals.votes import progress
from residency.pages.desk import Person, desk_of, page
from residency.pages.folders import Missing
from residency.pages.forms import Form, posted
from residency.pages.road import REPORT
from residency.workflows.dialogues import check
from residency.workflows.study import RESULT, end, read_result

router = APIRouter(prefix="/studies")
Posted = Annotated[Form, Depends(posted)]
HOME = "/rate"
"""Where raters begin."""


def folders_of(root: Path) -> Iterator[Path]:
    """The folders of studies: below a folder, or below one of its folders."""
    for pattern in (f"*/{STUDY}", f"*/*/{STUDY}"):
        for path in sorted(root.glob(pattern)):
            if path.resolve().is_relative_to(root):
                yield path.parent


def opened(folder: Path) -> OpenStudy:
    """A study, read once as long as its files stay as they are; raises ``DataError``."""
    stats = [(folder / name).stat() for name in (STUDY, ITEMS) if (folder / name).is_file()]
    return _opened(folder, tuple((one.st_mtime_ns, one.st_size) for one in stats))


@lru_cache(64)
def _opened(folder: Path, _as_it_is: tuple[tuple[int, int], ...]) -> OpenStudy:
    return open_study(folder)


def rater(root: Path, secret: str) -> Person | None:
    """The rater whose code it is, of one of the studies below a folder."""
    code = sha256(secret.encode()).hexdigest()
    for folder in folders_of(root):
        try:
            known = opened(folder).study.raters
        except ResidencyError:  # of a study that was changed nobody is a rater
            continue
        for one in known:
            if hmac.compare_digest(one.code, code):
                place = folder.relative_to(root).as_posix()
                return Person(role="rater", name=one.name, place=place, home=HOME, lang=one.lang)
    return None


def addresses(found: OpenStudy, port: int) -> list[tuple[Rater, str]]:
    """The address of each rater, which lets in whoever has it."""
    codes = codes_of(found)
    at = f"http://127.0.0.1:{port}/?secret="
    return [(one, f"{at}{codes[one.name]}") for one in found.study.raters]


def ready(folder: Path) -> OpenStudy:
    """A study that raters may be let into. Raises ``UserError`` where it is locked, ``DataError``
    where it was changed, or dialogues have no key to tell whom they are held with."""
    found = opened(folder)
    if is_locked(found):
        raise UserError(f"{folder}: is locked; read it with residency study result.")
    if found.study.rounds:
        for system in read_key(key_path(folder), found.study).systems:
            check(system)
    return found


class Listed(Value, frozen=True):
    """A study in the list."""

    id: str
    place: str
    kind: str
    locked: bool
    votes: int
    wanted: int


def _key(found: OpenStudy) -> str:
    return found.study.id[:16]


def _named(request: Request, name: str) -> OpenStudy:
    """A study by the beginning of its hash; raises ``Missing``."""
    for folder in folders_of(desk_of(request).root):
        found = opened(folder)
        if _key(found) == name:
            return found
    raise Missing("There is no such study here.")


def _listed(found: OpenStudy, root: Path) -> Listed:
    return Listed(
        id=_key(found),
        place=found.folder.relative_to(root).as_posix(),
        kind=found.study.kind,
        locked=is_locked(found),
        votes=sum(progress(found).values()),
        wanted=len(found.items) * len(found.study.raters),
    )


@router.get("", name="studies")
def studies(request: Request) -> HTMLResponse:
    """The studies that are here; of one that cannot be read, why."""
    root = desk_of(request).root
    found, broken = [], []
    for folder in folders_of(root):
        try:
            found.append(_listed(opened(folder), root))
        except ResidencyError as error:
            broken.append(str(error).replace(f"{root}/", ""))
    crumbs = ((request.url.path, "Blind studies"),)
    return page(request, "studies", studies=found, broken=broken, crumbs=crumbs)


@router.get("/{name}", name="study")
def study(request: Request, name: str) -> HTMLResponse:
    """How far each rater is, and what can be done next."""
    found = _named(request, name)
    above = request.url_for("studies").path
    return page(
        request,
        "study",
        study=found.study,
        listed=_listed(found, desk_of(request).root),
        items=len(found.items),
        progress=progress(found),
        addresses=addresses(found, request.url.port or 80),
        crumbs=((above, "Blind studies"), (request.url.path, found.folder.name)),
    )


@router.post("/{name}/lock")
def lock(request: Request, name: str, form: Posted) -> Response:
    """End the voting."""
    found = _named(request, name)
    if not form.one("sure"):
        raise UserError("Say that the voting ends for all; nothing was locked.")
    end(found.folder)
    return RedirectResponse(request.url_for("study", name=name).path, 303)


@router.get("/{name}/result")
def result(request: Request, name: str) -> Response:
    """The report of a locked study."""
    found = _named(request, name)
    path = found.folder / RESULT / "report.html"
    if not is_locked(found) or not path.is_file():
        _, path = read_result(found.folder)
    return Response(
        path.read_bytes(),
        media_type="text/html; charset=utf-8",
        headers={"content-security-policy": REPORT},
    )
