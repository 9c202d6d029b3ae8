"""Who answers a doctor: the routes of ``residency serve``, in this process around the model of one
run, or on the server that the pages stand behind, which is asked with the doctor's own token."""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import httpx2

from residency.core.files import file_digest
from residency.core.types import Value
from residency.models import artefact as artefacts
from residency.pages.desk import Desk
from residency.serve.engines import Served
from residency.serve.settings import RequestLimits
from residency.workflows.finished import artefact_of

SECONDS = 120.0
"""Longest that an answer is waited for."""
LONG = RequestLimits(input_tokens=8192, context_tokens=8192, work_tokens=65_536)
"""At this machine one person asks, and a note may be long; what a model cannot read is refused."""
NOBODY = "The server of the models does not answer; try again shortly, or ask whoever runs it."


class Said(Value, frozen=True):
    """What a route answered."""

    found: dict[str, Any] = {}
    failure: str = ""
    """Why there is no answer, in a sentence."""


def served_of(run: Path) -> Served:
    """What is known of a run's model without loading it."""
    from residency.serve.engines.in_process import served

    return served(artefact_of(run), artefacts.read(artefact_of(run)).task().name)


def ask_run(desk: Desk, run: Path, route: str, body: Mapping[str, Any]) -> Said:
    """What a run's model answers on a route; it stays loaded until another one is asked."""
    model = artefact_of(run)
    with desk.model:
        app, key = desk.held(
            ("doctor", file_digest(model / artefacts.FILE)), lambda: _routes_of(model)
        )
        return asyncio.run(_ask_app(app, key, route, body))


def ask_server(address: str, authorization: str, route: str, body: Mapping[str, Any]) -> Said:
    """What the server answers to the token of who asks."""
    try:
        answer = httpx2.post(
            f"{address}/{route}",
            json=dict(body),
            headers={"authorization": authorization},
            timeout=SECONDS,
        )
    except httpx2.HTTPError:
        return Said(failure=NOBODY)
    return _read(answer)


def _routes_of(model: Path) -> tuple[Any, str]:
    """The server's application around one model, for this process alone, and its key."""
    from residency.serve.app import create_app
    from residency.serve.auth import LocalTokens
    from residency.serve.auth.rate import Rate
    from residency.serve.guard import Guard
    from residency.serve.launch import load
    from residency.serve.records.monitoring import Users
    from residency.serve.settings import Serve

    settings, key = Serve(limits=LONG), secrets.token_urlsafe(32)
    name = artefacts.read(model).task().name
    engines = {name: load(model, name, settings)}
    users = Users(secrets.token_bytes(32))
    guard = Guard(settings, engines, LocalTokens(key), Rate(settings.limits), users)
    return create_app(guard), key


async def _ask_app(app: Any, key: str, route: str, body: Mapping[str, Any]) -> Said:
    transport = httpx2.ASGITransport(app=app)
    async with httpx2.AsyncClient(transport=transport, base_url="http://127.0.0.1") as client:
        headers = {"authorization": f"Bearer {key}"}
        return _read(await client.post(f"/{route}", json=dict(body), headers=headers))


def _read(answer: httpx2.Response) -> Said:
    """An answer, or the sentence of a refusal."""
    try:
        found = answer.json()
        if answer.status_code == 200:
            return Said(found=found)
        return Said(failure=str(found["error"]["message"]))
    except (ValueError, KeyError, TypeError):
        return Said(failure=NOBODY)
