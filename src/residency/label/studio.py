"""Label Studio over its HTTP API: one project per person and round, on a server of that person's
own."""

from __future__ import annotations

import ipaddress
import json
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import count
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from residency.core.errors import GateRefused, UserError
from residency.core.types import SHOWABLE, Profile, Span
from residency.corpus.formats.label_studio import regions
from residency.corpus.json_records import identifier
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


@dataclass(frozen=True)
class Project:
    """One person's project of one round."""

    server: Server
    where: str
    """The key of the recipe that names the server, for messages."""
    title: str
    card: Card
    hints: Mapping[str, str]
    codes: Sequence[Code] = ()
    decides: bool = False
    """Whether disagreements are decided in it."""
    transport: httpx2.BaseTransport | None = None

    @property
    def url(self) -> str:
        """The server's address without a slash at its end."""
        return self.server.url.rstrip("/")

    def push(self, tasks: Sequence[LabellingTask], known: Mapping[str, Annotation]) -> str:
        """Create the project, or complete it; returns its address.

        Tasks that are there already are left as they are, those whose note was amended or is no
        longer given out are taken down. Where the project was deleted, it is made
        anew with the annotations that had been pulled (``known``). Raises ``UserError`` where the
        server cannot be reached or refuses the token.
        """
        with self._client() as client:
            project = self._find(client)
            if project is None:
                project = self._create(client)
            wanted, there = {one.id: one.text for one in tasks}, set[str]()
            for row in list(self._tasks(client, project)):
                note = identifier(row["data"].get("note"))
                if row["data"].get("text", wanted.get(note)) == wanted.get(note, ""):
                    there.add(note)
                else:
                    self._ask(client, "DELETE", f"/api/tasks/{row['id']}")
            rows = [self._row(one, known.get(one.id)) for one in tasks if one.id not in there]
            for start in range(0, len(rows), BATCH):
                batch = rows[start : start + BATCH]
                self._ask(client, "POST", f"/api/projects/{project}/import", json=batch)
        return f"{self.url}/projects/{project}"

    def pull(self, tasks: Mapping[str, LabellingTask]) -> Iterator[Given]:
        """What its annotator has finished, newest of several annotations of a task that are not
        empty; drafts and predictions do not count.

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
            path, wanted = f"/api/projects/{project}/export", {"exportType": "JSON"}
            rows = self._ask(client, "GET", path, params=wanted)
        for row in rows if isinstance(rows, list) else []:
            found = [one for one in row.get("annotations") or [] if isinstance(one, Mapping)]
            if found:
                yield _given(row, max(found, key=_newness), tasks)

    def check(self) -> None:
        """Raises ``UserError`` where the server cannot be reached or refuses the token."""
        with self._client() as client:
            self._ask(client, "GET", "/api/projects", params={"page_size": 1})

    def _client(self) -> httpx2.Client:
        import httpx2

        token = os.environ.get(self._variable, "")
        if not token:
            raise UserError(
                f"{self.where}.token: the environment variable {self._variable} is not set; put "
                f"the access token of the account on {self.server.url} into it."
            )
        return httpx2.Client(
            base_url=self.url,
            headers={"Authorization": f"Token {token}"},
            timeout=SECONDS,
            transport=self.transport,
            trust_env=False,
        )

    @property
    def _variable(self) -> str:
        return self.server.token.removeprefix("env:")

    def _ask(self, client: httpx2.Client, method: str, path: str, **given: Any) -> Any:
        import httpx2

        try:
            reply = client.request(method, path, **given)
        except httpx2.HTTPError as error:
            raise UserError(
                f"{self.where}: {self.server.url} does not answer ({type(error).__name__}); start "
                "it (scripts/label_studio.py start), or correct its url."
            ) from None
        if reply.status_code in (401, 403):
            raise UserError(
                f"{self.where}.token: {self.server.url} refuses the token in {self._variable} "
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
        for page in count(1):
            wanted = {"page": page, "page_size": 100}
            found = self._ask(client, "GET", "/api/projects", params=wanted)
            rows = found["results"] if isinstance(found, Mapping) else found
            for row in rows:
                if row["title"] == self.title:
                    return int(row["id"])
            if not isinstance(found, Mapping) or not found.get("next"):
                break
        return None

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
            path = f"/api/import/file-upload/{sent['file_upload_ids'][0]}"
            file = str(self._ask(client, "GET", path)["file"]).rpartition("/")[2]
            url = f"{self.url}/data/upload/{project}/{file}"
            coded = {"label_config": interface(self.card, self.hints, url, self.decides)}
            self._ask(client, "PATCH", f"/api/projects/{project}", json=coded)
        return project

    def _tasks(self, client: httpx2.Client, project: int) -> Iterator[Mapping[str, Any]]:
        for page in count(1):
            wanted = {"project": project, "page": page, "page_size": 500, "fields": "all"}
            found = self._ask(client, "GET", "/api/tasks", params=wanted)
            yield from found["tasks"]
            if page * 500 >= int(found["total"]):
                return

    def _row(self, task: LabellingTask, known: Annotation | None) -> dict[str, Any]:
        """A task as the server takes it."""
        data: dict[str, Any] = {"note": task.id, "text": task.text}
        row: dict[str, Any] = {"data": data}
        if self.decides:
            versions = enumerate(map(_in_a_line, task.suggestions), 1)
            own = {"value": OWN, "html": "none of these: marked below"}
            data["about"] = task.about
            data["candidates"] = [{"value": str(n), "html": html} for n, html in versions] + [own]
        elif task.suggestions:
            row["predictions"] = [{"model_version": VERSION, "result": result(task.suggestions[0])}]
        if known is not None and not known.skipped:
            done = {"result": result(known.spans), "lead_time": known.seconds or 0.0}
            row["annotations"] = [done]
        return row


def _newness(annotation: Mapping[str, Any]) -> tuple[bool, bool, str]:
    """Of several annotations of a task the newest counts; a cancelled one only where all are, and
    an empty one only where all that are not cancelled are: it is made by opening a task again."""
    marked = bool(annotation.get("result"))
    return not annotation.get("was_cancelled"), marked, str(annotation.get("updated_at"))


def result(spans: Sequence[Span]) -> list[dict[str, Any]]:
    """Spans as regions of the interface."""
    found: list[dict[str, Any]] = []
    for number, span in enumerate(spans):
        place = {"start": span.start, "end": span.end, "text": span.quote}
        chosen: dict[tuple[str, str], list[Any]] = {
            ("label", "labels"): [span.label],
            ("attributes", "choices"): list(span.attributes),
            ("code", "taxonomy"): [[span.code]] if span.code else [],
        }
        for (name, kind), values in chosen.items():
            if values:
                common = {"id": f"r{number}", "to_name": "text", "from_name": name, "type": kind}
                found.append({**common, "value": {**place, kind: values}})
    return found


def _given(
    row: Mapping[str, Any], annotation: Mapping[str, Any], tasks: Mapping[str, LabellingTask]
) -> Given:
    data, found = row.get("data") or {}, annotation.get("result")
    id = identifier(data.get("note"))
    found = found if isinstance(found, list) else []
    decisions = (one for one in found if isinstance(one, Mapping))
    values = (one.get("value") for one in decisions if one.get("from_name") == "decision")
    decided = next((one.get("choices") or [""] for one in values if isinstance(one, Mapping)), [""])
    decision, seconds = identifier(decided[0]), annotation.get("lead_time")
    return Given(
        task=id,
        spans=tuple(regions(found, None)),
        at=str(annotation.get("updated_at") or ""),
        seconds=float(seconds) if isinstance(seconds, int | float) else None,
        skipped=bool(annotation.get("was_cancelled")),
        fault=TEXT if id in tasks and data.get("text") != tasks[id].text else "",
        choice=int(decision) if decision.isdecimal() else None,
    )


def _in_a_line(version: Sequence[Span]) -> str:
    """A candidate in a line; the interface takes HTML here, so what notes hold is escaped."""
    from markupsafe import escape

    found = []
    for span in version:
        extra = ", ".join([*span.attributes, *([span.code] if span.code else [])])
        more = f" ({escape(extra)})" if extra else ""
        found.append(f"<b>{escape(span.label)}</b> {escape(span.quote)}{more}")
    return "; ".join(found) or "nothing is marked here"


def _instruction(card: Card, hints: Mapping[str, str]) -> str:
    """The labels with their definitions, as HTML."""
    from markupsafe import escape

    rows = (
        f"<li><b>{escape(label.name)}</b>: {escape(hints.get(label.name, label.definition))}</li>"
        for label in card.labels
    )
    return f"<p>{escape(card.description)}</p><ul>{''.join(rows)}</ul>"
