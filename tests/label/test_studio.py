"""Label Studio's interface and API as far as they can be checked without it; the real one is tested
in tests/services_all."""

from __future__ import annotations

import json
from pathlib import Path
from xml.etree import ElementTree as Xml

import httpx2
import pytest

from residency.core.errors import DataError, GateRefused, UserError
from residency.core.part import parse
from residency.core.types import RawNote, Span
from residency.label.annotations import releasable
from residency.label.campaign import Label, Server
from residency.label.interface import Code, interface, items, read_codes
from residency.label.studio import Project, check_profile, local, result
from residency.tasks.card import load_card

CARD = load_card("clinical")
SERVER = {"url": "http://127.0.0.1:1", "token": "env:A_TOKEN"}


def test_the_interface_defines_every_label_and_offers_attributes_and_codes_of_a_region() -> None:
    root = Xml.fromstring(interface(CARD, {"drug": "a <medicine> & so on"}, "http://x/codes.json"))
    labels = {one.attrib["value"]: one.attrib for one in root.iter("Label")}
    assert tuple(labels) == CARD.names
    assert labels["drug"]["hint"] == "a <medicine> & so on" and labels["dose"]["hint"].startswith(
        "The strength"
    )
    assert (
        len({one["hotkey"] for one in labels.values()})
        == len({one["background"] for one in labels.values()})
        == 10
    )
    assert [one.attrib["value"] for one in root.iter("Choice")] == [
        "negated",
        "family",
        "uncertain",
    ]
    (code,) = root.iter("Taxonomy")
    assert (
        code.attrib["whenLabelValue"] == "diagnosis,history" and code.attrib["perRegion"] == "true"
    )
    assert not list(Xml.fromstring(interface(CARD, {})).iter("Taxonomy"))


def test_codes_lie_under_their_category(tmp_path: Path) -> None:
    path = tmp_path / "codes.csv"
    path.write_text("code,name\nJ18,Viêm phổi\nJ18.9,không đặc hiệu\nZ99.1,alone\n", "utf-8")
    codes = read_codes(path, ("code", "name"))
    assert codes[1] == Code(code="J18.9", name="không đặc hiệu")
    (first, second) = items(codes)["items"]
    assert (first["alias"], [child["alias"] for child in first["children"]]) == ("J18", ["J18.9"])  # type: ignore[attr-defined]
    assert (second["alias"], second["isLeaf"]) == ("Z99.1", True)


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        ("a,b\n1,2\n", "has no column 'code'"),
        ("code,name\nA,\n", "has no code or no name"),
        ("code,name\nA,x\nA,y\n", "two names"),
    ],
)
def test_a_faulty_list_of_codes_is_named(tmp_path: Path, text: str, fault: str) -> None:
    path = tmp_path / "codes.csv"
    path.write_text(text, "utf-8")
    with pytest.raises(DataError, match=fault):
        read_codes(path, ("code", "name"))


def test_regions_come_back_as_they_went_out() -> None:
    from residency.corpus.formats.label_studio import regions

    span = Span(
        start=2,
        end=5,
        label="diagnosis",
        quote="abc",
        code="J18.9",
        attributes=("family", "negated"),
    )
    (raw,) = regions(result([span]), None)
    assert (raw.fragments, raw.label, raw.quote, raw.code, raw.attributes) == (
        ((2, 5),),
        "diagnosis",
        "abc",
        "J18.9",
        ("family", "negated"),
    )


def test_two_annotators_on_one_server_would_see_each_other_and_are_refused() -> None:
    section = {
        "data": "notes",
        "via": "label_studio",
        "annotators": 2,
        "servers": [SERVER, {**SERVER, "url": "http://127.0.0.1:1/"}],
    }
    with pytest.raises(UserError, match="two have the same address"):
        parse(Label, section, "label")
    with pytest.raises(UserError, match="3 annotators need as many servers, not 1"):
        parse(Label, {"data": "notes", "via": "label_studio", "servers": [SERVER]}, "label")


def test_an_unknown_way_of_labelling_is_answered_with_the_allowed_ones() -> None:
    with pytest.raises(
        UserError, match=r"label.*via.*'paper' is not known; allowed: browser, files, label_studio"
    ):
        parse(Label, {"data": "notes", "via": "paper"}, "label")


def test_only_notes_are_given_out_never_identified_ones() -> None:
    with pytest.raises(GateRefused, match="run residency deid first"):
        list(releasable([RawNote(id="1", patient="p", text="secret")]))


def test_pseudonymised_notes_stay_on_this_machine_unless_the_server_is_inside() -> None:
    away = Server(url="https://labels.example.org", token="env:T")
    with pytest.raises(GateRefused, match="do not leave this machine"):
        check_profile(away, "pseudonymised", "label.servers[0]")
    check_profile(away, "anonymised", "x")
    check_profile(away.model_copy(update={"inside": True}), "pseudonymised", "x")
    check_profile(Server(**SERVER), "pseudonymised", "x")
    assert (
        local("http://localhost:8081")
        and local("http://[::1]:1")
        and not local("http://127.0.0.1.example.org")
    )


def project(monkeypatch: pytest.MonkeyPatch, reply: httpx2.Response | Exception) -> Project:
    monkeypatch.setenv("A_TOKEN", "t")

    def answer(request: httpx2.Request) -> httpx2.Response:
        assert request.headers["Authorization"] == "Token t"
        if isinstance(reply, Exception):
            raise reply
        return reply

    return Project(
        Server(**SERVER),
        "label.servers[0]",
        "ward / label",
        CARD,
        {},
        transport=httpx2.MockTransport(answer),
    )


@pytest.mark.parametrize(
    ("reply", "sentence"),
    [
        (
            httpx2.Response(401),
            r"label.servers\[0\].token: .* refuses the token in A_TOKEN \(401\)",
        ),
        (httpx2.Response(403), r"refuses the token in A_TOKEN \(403\)"),
        (
            httpx2.Response(500, text="a note's text"),
            r"answered 500 to GET /api/projects; its own log says why\.$",
        ),
        (httpx2.ConnectError("no"), r"does not answer \(ConnectError\); start it"),
        (
            httpx2.Response(200, json={"results": [], "next": None}),
            r"is not at http://127.0.0.1:1 any more; what was pulled before is kept",
        ),
    ],
)
def test_trouble_with_a_server_is_one_sentence(
    monkeypatch: pytest.MonkeyPatch, reply: httpx2.Response, sentence: str
) -> None:
    with pytest.raises(UserError, match=sentence):
        list(project(monkeypatch, reply).pull({}))


def test_a_token_that_is_not_set_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("A_TOKEN", raising=False)
    with pytest.raises(UserError, match="the environment variable A_TOKEN is not set"):
        Project(Server(**SERVER), "label.servers[0]", "t", CARD, {}).check()


def test_candidates_are_escaped_where_the_interface_takes_html(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    from residency.label.annotations import LabellingTask

    span = Span(start=0, end=8, label="drug", quote="<script>")
    way = Project(Server(**SERVER), "w", "t", CARD, {}, decides=True)
    row = way._row(LabellingTask(id="p", text="<script>", suggestions=((span,), ())), None)
    assert "<script>" not in json.dumps(row["data"]["candidates"]) and "predictions" not in row
    assert [one["value"] for one in row["data"]["candidates"]] == ["1", "2", "own"]


def test_a_fuller_annotation_is_not_replaced_by_an_empty_one_that_came_later() -> None:
    from residency.label.studio import _newness

    region = {"type": "labels", "value": {"start": 0, "end": 3, "labels": ["diagnosis"]}}
    full = {"result": [region], "updated_at": "2024-05-01T10:00:00Z"}
    empty = {"result": [], "updated_at": "2024-05-02T10:00:00Z"}
    newer = {"result": [region, region], "updated_at": "2024-05-03T10:00:00Z"}
    cancelled = {**newer, "was_cancelled": True, "updated_at": "2024-05-04T10:00:00Z"}
    assert max([full, empty], key=_newness) is full
    assert max([full, empty, newer, cancelled], key=_newness) is newer
    assert max([empty, cancelled], key=_newness) is empty, "nothing found, said on purpose"
