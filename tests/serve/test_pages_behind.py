"""The pages behind the server's guard: the token of each request says who asks, and each sees the pages
of their role and no other; the doctor's questions are the server's, with the doctor's own token."""

from __future__ import annotations

import json
import re
import socket
from collections.abc import Iterator
from html import unescape
from pathlib import Path
from typing import Any

import pytest
import yaml
from fastapi.routing import APIRoute
from provider import AUDIENCE, Provider
from serve_tools import Server
from starlette.testclient import TestClient

from residency.core.errors import GateRefused, UserError
from residency.pages import app as pages
from residency.pages.app import ROUTERS, create_app
from residency.pages.desk import Person
from residency.pages.gate import Gate, of_settings
from residency.serve import app as server
from residency.serve.auth import make_tokens
from residency.serve.auth.rate import Rate
from residency.serve.engines.in_process import load
from residency.serve.guard import Guard
from residency.serve.records.monitoring import Users
from residency.serve.settings import Oidc, Serve

HERE = "https://residency.hospital.example"
SECRET = "s" * 43
KEY = "5a" * 32
FORM = {"route": "diagnose", "patient": "Nam, 62 tuổi", "complaint": "ho khan", "history": "",
        "examination": "", "tests": ""}  # fmt: skip


@pytest.fixture(scope="module")
def provider() -> Iterator[Provider]:
    found = Provider()
    found.rsa("one")
    yield found
    found.close()


@pytest.fixture(scope="module")
def settings(provider: Provider, tmp_path_factory: pytest.TempPathFactory) -> Serve:
    auth = Oidc(kind="oidc", issuer=provider.issuer, audience=AUDIENCE, jwks=provider.jwks)
    logs = {"folder": str(tmp_path_factory.mktemp("logs"))}
    return Serve.model_validate({"auth": auth, "logs": logs})


@pytest.fixture
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("RESIDENCY_LOG_KEY", KEY)
    (tmp_path / "zzproject").mkdir()
    (tmp_path / "zzproject/.begun").touch()
    (tmp_path / "zzproject/data").mkdir()
    return tmp_path


@pytest.fixture
def gate(root: Path, settings: Serve) -> Gate:
    return Gate(settings, "0.0.0.0")


class As(TestClient):
    """A browser whose proxy adds a person's token to each request."""

    def __init__(self, root: Path, gate: Gate, token: str = "") -> None:
        super().__init__(create_app(root, SECRET, gate=gate), base_url=HERE)
        self.headers["accept-language"] = "en"
        if token:
            self.headers["authorization"] = f"Bearer {token}"


def routes(*roles: str) -> set[tuple[str, str]]:
    """Method and address of the pages of roles."""
    return {
        (method, re.sub(r"{\w+}", "x", route.path))
        for router, of in ROUTERS
        for route in router.routes
        if isinstance(route, APIRoute) and {*of} & {*roles}
        for method in route.methods
    }


@pytest.mark.parametrize("header", ["", "Bearer rubbish", "Basic YTpi", "Bearer "])
def test_nobody_without_a_valid_token_is_answered(root: Path, gate: Gate, header: str) -> None:
    client = As(root, gate)
    if header:
        client.headers["authorization"] = header
    for path in ("/", "/doctor", "/projects/zzproject", "/static/pages.css", f"/?secret={SECRET}"):
        answer = client.get(path)
        assert answer.status_code == 401, path
        assert answer.headers["www-authenticate"].startswith("Bearer")
        assert "zzproject" not in answer.text


def test_a_token_of_another_key_or_past_its_end_is_none(
    root: Path, gate: Gate, provider: Provider
) -> None:
    for token in (
        provider.token("one", exp=1000, scope="admin"),
        provider.token("one", aud="another", scope="admin"),
        provider.token("one", scope="admin")[:-4] + "AAAA",
    ):
        assert As(root, gate, token).get("/").status_code == 401


@pytest.mark.parametrize("scope", ["diagnose", "extract", "diagnose extract chat"])
def test_a_doctor_sees_the_doctors_page_and_no_other(
    root: Path, gate: Gate, provider: Provider, scope: str
) -> None:
    client = As(root, gate, provider.token("one", scope=scope))
    first = client.get("/", follow_redirects=False)
    assert (first.status_code, first.headers["location"]) == (303, "/doctor")
    page = client.get("/doctor").text
    assert ('id="consultation"' in page) == ("diagnose" in scope)
    assert ('id="extraction"' in page) == ("extract" in scope)
    assert ">Projects<" not in page and "zzproject" not in page
    theirs = routes("doctor")
    assert {path for _, path in theirs} == {"/doctor", "/doctor/feedback"}
    others = routes("owner", "rater", "annotator", "adjudicator") - theirs - {("GET", "/")}
    assert len(others) > 15
    for method, path in sorted(others):
        answer = client.request(method, path)
        assert answer.status_code == 403, path
        assert "zzproject" not in answer.text


def test_the_scope_admin_sees_the_projects(root: Path, gate: Gate, provider: Provider) -> None:
    page = As(root, gate, provider.token("one", scope="admin")).get("/").text
    assert "zzproject" in page
    assert "of this hospital" in page


def test_who_has_an_address_of_their_own_needs_a_token_too(
    root: Path, gate: Gate, provider: Provider, monkeypatch: pytest.MonkeyPatch
) -> None:
    code = "c" * 43
    rater = Person(role="rater", name="ann", home="/static/pages.css")
    monkeypatch.setattr(pages, "DOORS", (lambda root, said: rater if said == code else None,))
    assert As(root, gate).get("/", params={"secret": code}).status_code == 401
    client = As(root, gate, provider.token("one", scope="chat"))
    refused = client.get("/")
    assert refused.status_code == 403 and "opens no page" in refused.text
    assert client.get("/", params={"secret": "d" * 43}).status_code == 403
    first = client.get("/", params={"secret": code}, follow_redirects=False)
    assert (first.status_code, first.headers["location"]) == (303, rater.home)
    assert "secure" in first.headers["set-cookie"].lower()
    assert client.get("/static/pages.css").status_code == 200
    assert client.get("/doctor").status_code == 403
    assert client.get("/projects/zzproject").status_code == 403


@pytest.fixture
def models(artefacts: dict[str, Path], settings: Serve, gate: Gate) -> Iterator[Server]:
    """The server that the pages stand behind."""
    engines = {"triage": load(artefacts["triage"], "triage"), "ner": load(artefacts["ner"], "ner")}
    tokens = make_tokens(settings.auth, Path(settings.logs.folder))
    guard = Guard(settings, engines, tokens, Rate(settings.limits), Users(bytes.fromhex(KEY)))
    found = Server(server.create_app(guard))
    gate.server = found.address
    yield found
    found.end()


def field(page: str, name: str) -> str:
    found = re.search(rf'name="{name}" value="([^"]*)"', page)
    assert found is not None, page
    return unescape(found[1])


def test_the_doctors_questions_are_asked_of_the_server_with_the_doctors_token(
    root: Path, gate: Gate, provider: Provider, models: Server
) -> None:
    client = As(root, gate, provider.token("one", scope="diagnose", sub="dr-lan"))
    sent = {"token": field(client.get("/doctor").text, "token"), **FORM}
    page = client.post("/doctor", data=sent)
    assert page.status_code == 200 and "It abstains" in page.text, page.text
    given = {name: field(page.text, name) for name in ("token", "answered", "seal")}
    said = client.post("/doctor/feedback", data=given | {"verdict": "wrong", "comment": "J45"})
    assert "Thank you" in said.text
    [row] = [json.loads(line) for line in (root / "feedback.jsonl").read_text("utf-8").splitlines()]
    assert row["who"] == Users(bytes.fromhex(KEY)).hashed("dr-lan"), "as the audit log has them"
    assert "dr-lan" not in json.dumps(row)
    wanted = client.post("/doctor", data=sent | {"department": "nobody"})
    assert wanted.status_code == 400, "the server serves no such model"


def test_a_server_that_is_down_is_said(root: Path, gate: Gate, provider: Provider) -> None:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        gate.server = f"http://127.0.0.1:{found.getsockname()[1]}"
        client = As(root, gate, provider.token("one", scope="diagnose"))
        sent = {"token": field(client.get("/doctor").text, "token"), **FORM}
        assert "does not answer" in client.post("/doctor", data=sent).text


def test_a_form_of_another_person_or_site_is_refused(
    root: Path, gate: Gate, provider: Provider
) -> None:
    mine = As(root, gate, provider.token("one", scope="diagnose", sub="dr-lan"))
    other = As(root, gate, provider.token("one", scope="diagnose", sub="dr-minh"))
    token = field(other.get("/doctor").text, "token")
    assert mine.post("/doctor", data=FORM | {"token": token}).status_code == 403
    own = field(mine.get("/doctor").text, "token")
    assert own != token
    for headers in (
        {"origin": "https://evil.example"},
        {"origin": "https://residency.hospital.example.evil.example"},
        {"sec-fetch-site": "cross-site"},
        {"sec-fetch-site": "same-site"},
    ):
        answer = mine.post("/doctor", data=FORM | {"token": own}, headers=headers)
        assert answer.status_code == 403, headers
    fine = mine.post("/doctor", data=FORM | {"token": own}, headers={"origin": HERE})
    assert fine.status_code == 400, "let in, and no server answers"


def test_other_machines_are_answered_only_where_real_tokens_are_checked(
    tmp_path: Path, provider: Provider, monkeypatch: pytest.MonkeyPatch
) -> None:
    from typer.testing import CliRunner

    from residency.cli import app

    monkeypatch.setenv("RESIDENCY_LOG_KEY", KEY)
    monkeypatch.chdir(tmp_path)
    file = tmp_path / "serve.yaml"
    file.write_text("port: 8080\n", "utf-8")
    with pytest.raises(GateRefused, match="reached from other machines"):
        of_settings(file, "0.0.0.0")
    assert of_settings(file, "127.0.0.1").server == "http://127.0.0.1:8080"
    auth = {"kind": "oidc", "issuer": provider.issuer, "audience": AUDIENCE}
    file.write_text(yaml.safe_dump({"auth": auth, "host": "0.0.0.0", "port": 9000}), "utf-8")
    assert of_settings(file, "0.0.0.0").server == "http://127.0.0.1:9000"
    with pytest.raises(UserError, match="is no file"):
        of_settings(tmp_path / "none.yaml", "127.0.0.1")
    said: Any = CliRunner().invoke(app, ["ui", str(tmp_path), "--host", "0.0.0.0"])
    assert isinstance(said.exception, UserError) and "--behind" in str(said.exception)
