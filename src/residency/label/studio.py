"""Label Studio over its HTTP API: one project per person and round, on a server of that person's
own."""

from __future__ import annotations

import ipaddress
import json
import os
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from residency.core.errors import GateRefused, UserError
from residency.core.types import SHOWABLE, Profile, Span
from residency.corpus.formats.label_studio import regions
from residency.corpus.records import identifier
from residency.label.annotations import Annotation, Given, LabellingTask
from residency.label.campaign import Server
from residency.label.interface import OWN, Code, interface, items
from residency.tasks.card import Card

if TYPE_CHECKING:
    import httpx2

BATCH = 100
"""Tasks in one request."""
SECONDS = 120
"""Longest wait for an answer."""
VERSION = "suggested"
"""What the interface calls what was marked beforehand."""
TEXT = "text at the server is not the one that was given out; offsets may have moved"


def local(url: str) -> bool:
    """Whether a server is on this machine."""
    host = urlsplit(url).hostname or ""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def check_profile(server: Server, profile: Profile, where: str) -> None:
    """Raises ``GateRefused`` where notes of a profile may not leave for a server."""
    if profile not in SHOWABLE and not local(server.url) and not server.inside:
        raise GateRefused(
            f"{where}: notes of profile {profile} do not leave this machine, and {server.url} is "
            "another; set inside: true where "
            "that server stands in your institution, or de-identify further."
        )


class Project:
    """One person's project of one round."""

    def __init__(
        self,
        server: Server,
        where: str,
        title: str,
        card: Card,
        hints: Mapping[str, str],
        codes: Sequence[Code] = (),
        decides: bool = False,
        transport: httpx2.BaseTransport | None = None,
    ) -> None:
        self.server, self.where, self.title, self.card, self.hints, self.codes = (
            server,
            where,
            title,
            card,
            hints,
            codes,
        )
        self.decides, self.transport = decides, transport

    def push(self, tasks: Sequence[LabellingTask], known: Mapping[str, Annotation]) -> str:
        """Create the project, or complete it; returns its address.

        Tasks that are there already are left as they are. Where the project was deleted, it is made
        anew with the annotations that had been pulled (``known``). Raises ``UserError`` where the
        server cannot be reached or refuses the token.
        """
        with self._client() as client:
            project = self._find(client)
            if project is None:
                project = self._create(client)
            there = {identifier(row["data"].get("note")) for row in self._tasks(client, project)}
            missing = [task for task in tasks if task.id not in there]
            for start in range(0, len(missing), BATCH):
                rows = [
                    self._row(task, known.get(task.id)) for task in missing[start : start + BATCH]
                ]
                self._ask(client, "POST", f"/api/projects/{project}/import", json=rows)
        return f"{self.server.url.rstrip('/')}/projects/{project}"

    def pull(self, tasks: Mapping[str, LabellingTask]) -> Iterator[Given]:
        """What its annotator has finished, newest of several annotations of a task; drafts and
        predictions do not count.

        Raises ``UserError`` where the project is gone, the server cannot be reached or refuses the
        token.
        """
        with self._client() as client:
            project = self._find(client)
            if project is None:
                raise UserError(
                    f"{self.where}: the project {self.title!r} is not at {self.server.url} any "
                    "more; what was pulled before is kept, "
                    "and residency label push puts it up again with it."
                )
            rows = self._ask(
                client, "GET", f"/api/projects/{project}/export", params={"exportType": "JSON"}
            )
        for row in rows if isinstance(rows, list) else []:
            annotations = [one for one in row.get("annotations") or [] if isinstance(one, Mapping)]
            if annotations:
                latest = max(
                    annotations,
                    key=lambda one: (not one.get("was_cancelled"), str(one.get("updated_at"))),
                )
                yield _given(row, latest, tasks)

    def check(self) -> None:
        """Raises ``UserError`` where the server cannot be reached or refuses the token."""
        with self._client() as client:
            self._ask(client, "GET", "/api/projects", params={"page_size": 1})

    def _client(self) -> httpx2.Client:
        import httpx2

        name = self.server.token.removeprefix("env:")
        token = os.environ.get(name, "")
        if not token:
            raise UserError(
                f"{self.where}.token: the environment variable {name} is not set; put the access "
                "token of the account on "
                f"{self.server.url} into it."
            )
        return httpx2.Client(
            base_url=self.server.url.rstrip("/"),
            headers={"Authorization": f"Token {token}"},
            timeout=SECONDS,
            transport=self.transport,
            trust_env=False,
        )

    def _ask(self, client: httpx2.Client, method: str, path: str, **given: Any) -> Any:
        import httpx2

        try:
            reply = client.request(method, path, **given)
        except httpx2.HTTPError as error:
            raise UserError(
                f"{self.where}: {self.server.url} does not answer ({type(error).__name__}); start "
                "it (scripts/label_studio.py "
                "start), or correct its url."
            ) from None
        if reply.status_code in (401, 403):
            raise UserError(
                f"{self.where}.token: {self.server.url} refuses the token in "
                f"{self.server.token.removeprefix('env:')} "
                f"({reply.status_code}); copy the access token of an account there that may create "
                "projects."
            )
        if reply.is_error:
            raise UserError(
                f"{self.where}: {self.server.url} answered {reply.status_code} to {method} {path}; "
                "its own log says why."
            )
        return reply.json() if reply.content else None

    def _find(self, client: httpx2.Client) -> int | None:
        """The project of this title, if the account sees one."""
        page = 1
        while True:
            found = self._ask(
                client, "GET", "/api/projects", params={"page": page, "page_size": 100}
            )
            rows = found["results"] if isinstance(found, Mapping) else found
            for row in rows:
                if row["title"] == self.title:
                    return int(row["id"])
            if not isinstance(found, Mapping) or not found.get("next"):
                return None
            page += 1

    def _create(self, client: httpx2.Client) -> int:
        plain = interface(self.card, self.hints, "", self.decides)
        settings = {
            "title": self.title,
            "label_config": plain,
            "expert_instruction": _instruction(self.card, self.hints),
            "show_instruction": True,
            "show_skip_button": True,
            "enable_empty_annotation": True,
            "maximum_annotations": 1,
            "sampling": "Sequential sampling",
            "show_collab_predictions": True,
            "model_version": VERSION,
        }
        project = int(self._ask(client, "POST", "/api/projects", json=settings)["id"])
        if self.codes and any(label.coded for label in self.card.labels):
            text = json.dumps(items(self.codes), ensure_ascii=False).encode()
            sent = self._ask(
                client,
                "POST",
                f"/api/projects/{project}/import",
                params={"commit_to_project": "false"},
                files={"codes.json": ("codes.json", text, "application/json")},
            )
            upload = self._ask(
                client, "GET", f"/api/import/file-upload/{sent['file_upload_ids'][0]}"
            )
            url = f"{self.server.url.rstrip('/')}/data/upload/{project}/{str(upload['file']).rpartition('/')[2]}"
            with_codes = interface(self.card, self.hints, url, self.decides)
            self._ask(
                client, "PATCH", f"/api/projects/{project}", json={"label_config": with_codes}
            )
        return project

    def _tasks(self, client: httpx2.Client, project: int) -> Iterator[Mapping[str, Any]]:
        page = 1
        while True:
            found = self._ask(
                client,
                "GET",
                "/api/tasks",
                params={"project": project, "page": page, "page_size": 500, "fields": "all"},
            )
            yield from found["tasks"]
            if page * 500 >= int(found["total"]):
                return
            page += 1

    def _row(self, task: LabellingTask, known: Annotation | None) -> dict[str, Any]:
        """A task as the server takes it."""
        data: dict[str, Any] = {"note": task.id, "text": task.text}
        row: dict[str, Any] = {"data": data}
        if self.decides:
            data["about"] = task.about
            data["candidates"] = [
                *(
                    {"value": str(number), "html": _shown(version)}
                    for number, version in enumerate(task.suggestions, 1)
                ),
                {"value": OWN, "html": "none of these: marked below"},
            ]
        elif task.suggestions:
            row["predictions"] = [{"model_version": VERSION, "result": result(task.suggestions[0])}]
        if known is not None and not known.skipped:
            row["annotations"] = [
                {"result": result(known.spans), "lead_time": known.seconds or 0.0}
            ]
        return row


def result(spans: Sequence[Span]) -> list[dict[str, Any]]:
    """Spans as regions of the interface."""
    found: list[dict[str, Any]] = []
    for number, span in enumerate(spans):
        place = {"start": span.start, "end": span.end, "text": span.quote}
        common = {"id": f"r{number}", "to_name": "text"}
        found.append(
            common
            | {"from_name": "label", "type": "labels", "value": place | {"labels": [span.label]}}
        )
        if span.attributes:
            chosen = place | {"choices": list(span.attributes)}
            found.append(common | {"from_name": "attributes", "type": "choices", "value": chosen})
        if span.code:
            found.append(
                common
                | {
                    "from_name": "code",
                    "type": "taxonomy",
                    "value": place | {"taxonomy": [[span.code]]},
                }
            )
    return found


def _given(
    row: Mapping[str, Any], annotation: Mapping[str, Any], tasks: Mapping[str, LabellingTask]
) -> Given:
    data = row.get("data") or {}
    id = identifier(data.get("note"))
    found = annotation.get("result")
    found = found if isinstance(found, list) else []
    decision = next(
        (
            identifier((one["value"].get("choices") or [""])[0])
            for one in found
            if isinstance(one, Mapping)
            and one.get("from_name") == "decision"
            and isinstance(one.get("value"), Mapping)
        ),
        "",
    )
    seconds = annotation.get("lead_time")
    changed = id in tasks and data.get("text") != tasks[id].text
    return Given(
        task=id,
        spans=tuple(regions(found, None)),
        at=str(annotation.get("updated_at") or ""),
        seconds=float(seconds) if isinstance(seconds, int | float) else None,
        skipped=bool(annotation.get("was_cancelled")),
        fault=TEXT if changed else "",
        choice=int(decision) if decision.isdecimal() else None,
    )


def _shown(version: Sequence[Span]) -> str:
    """A candidate in a line; the interface takes HTML here, so what notes hold is escaped."""
    from markupsafe import escape

    said = []
    for span in version:
        extra = [*span.attributes, *([span.code] if span.code else [])]
        said.append(
            f"<b>{escape(span.label)}</b> {escape(span.quote)}"
            + (f" ({escape(', '.join(extra))})" if extra else "")
        )
    return "; ".join(said) or "nothing is marked here"


def _instruction(card: Card, hints: Mapping[str, str]) -> str:
    """The labels with their definitions, as HTML."""
    from markupsafe import escape

    rows = (
        f"<li><b>{escape(label.name)}</b>: {escape(hints.get(label.name, label.definition))}</li>"
        for label in card.labels
    )
    return f"<p>{escape(card.description)}</p><ul>{''.join(rows)}</ul>"
