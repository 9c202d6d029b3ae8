"""PubMed: its XML, and a search against a stand-in for NCBI's server. All articles are invented."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest

from residency.core.errors import DataError, UserError
from residency.core.files import read_jsonl
from residency.corpus.abstracts import Abstract
from residency.ingest.pubmed import AGAIN, NONE, read_xml
from residency.workflows.literature import convert, fetch

ARTICLE = """<PubmedArticle><MedlineCitation><PMID Version="1">{pmid}</PMID><Article><Journal><JournalIssue><PubDate>
<Year>2024</Year></PubDate></JournalIssue><ISOAbbreviation>J Invented</ISOAbbreviation></Journal>
<ArticleTitle>{title}</ArticleTitle>{abstract}<Language>eng</Language></Article></MedlineCitation></PubmedArticle>"""
PARTS = """<Abstract><AbstractText Label="METHODS">We treated 120 patients with <i>invented</i>mab.</AbstractText>
<AbstractText Label="CONCLUSIONS">It helped in 30&#37; of them.</AbstractText></Abstract>"""


def document(*articles: str) -> str:
    return f'<?xml version="1.0"?><PubmedArticleSet>{"".join(articles)}</PubmedArticleSet>'


def article(pmid: int, title: str = "Does inventedmab help?", abstract: str = PARTS) -> str:
    return ARTICLE.format(pmid=pmid, title=title, abstract=abstract)


def test_an_article_is_read_with_its_parts(tmp_path: Path) -> None:
    file = tmp_path / "pubmed.xml"
    file.write_text(document(article(7), article(8, "[A translated title].")), "utf-8")
    one, other = read_xml(file)
    assert (one.id, one.title, one.journal, one.year) == (
        "7",
        "Does inventedmab help?",
        "J Invented",
        "2024",
    )
    assert one.sections == (
        ("METHODS", "We treated 120 patients with inventedmab."),
        ("CONCLUSIONS", "It helped in 30% of them."),
    )
    assert one.text.splitlines() == [
        "Does inventedmab help?",
        "METHODS: We treated 120 patients with inventedmab.",
        "CONCLUSIONS: It helped in 30% of them.",
    ]
    assert other.title == "A translated title"


def test_articles_without_abstract_are_left_out(tmp_path: Path) -> None:
    file = tmp_path / "pubmed.xml"
    file.write_text(document(article(1, abstract=""), article(2)), "utf-8")
    assert [one.id for one in read_xml(file)] == ["2"]


def test_abstracts_in_other_languages_are_kept_beside_the_english_one(tmp_path: Path) -> None:
    others = (
        '<OtherAbstract Type="Publisher" Language="chi"><AbstractText Label="结论">有效。'
        '</AbstractText></OtherAbstract><OtherAbstract Type="Publisher" Language="spa">'
        '<AbstractText>Ayuda.</AbstractText></OtherAbstract><OtherAbstract Language="eng"'
        ' Type="plain-language-summary"><AbstractText>It helps.</AbstractText></OtherAbstract>'
    )
    both = article(7).replace("</MedlineCitation>", f"{others}</MedlineCitation>")
    both = both.replace("<Language>", "<VernacularTitle>有效吗？</VernacularTitle><Language>")
    only = article(8, abstract="").replace("</MedlineCitation>", f"{others}</MedlineCitation>")
    file, left = tmp_path / "pubmed.xml", Counter[str]()
    file.write_text(document(both, only, article(9, abstract="")), "utf-8")
    found = list(read_xml(file, left))
    assert [(one.id, one.pmid, one.lang) for one in found] == [
        ("7", "7", "en"),
        ("7-zh", "7", "zh"),
        ("7-spa", "7", "spa"),
        ("8-zh", "8", "zh"),
        ("8-spa", "8", "spa"),
        ("8", "8", "en"),
    ]
    assert found[1].text == "有效吗？\n结论: 有效。" and found[1].group == "7"
    assert left == {AGAIN: 1, NONE: 1}


def test_an_external_entity_is_not_followed(tmp_path: Path) -> None:
    secret = tmp_path / "secret.txt"
    secret.write_text("do not read me", "utf-8")
    file = tmp_path / "pubmed.xml"
    head = f'<!DOCTYPE x [<!ENTITY e SYSTEM "{secret.as_uri()}">]>'
    body = document(
        article(3, abstract="<Abstract><AbstractText>before &e; after</AbstractText></Abstract>")
    )
    file.write_text(body.replace("<PubmedArticleSet>", head + "<PubmedArticleSet>"), "utf-8")
    assert "do not read me" not in "".join(one.text for one in read_xml(file))


@pytest.mark.parametrize("content", ["<html><body/></html>", document(article(1))[:-40], "no xml"])
def test_a_file_that_is_no_pubmed_xml_is_refused(tmp_path: Path, content: str) -> None:
    file = tmp_path / "pubmed.xml"
    file.write_text(content, "utf-8")
    with pytest.raises(DataError, match=r"pubmed\.xml: .*[Ee]xport it from PubMed"):
        convert(file, tmp_path / "out.jsonl")
    assert not (tmp_path / "out.jsonl").exists()


class Ncbi(ThreadingHTTPServer):
    """Answers a search with ``ids`` and hands out their articles; ``fails`` of the fetches are
    answered with 500."""

    ids: list[int] = []
    fails: set[int] = set()
    fetches: list[list[str]] = []


class Answers(BaseHTTPRequestHandler):
    server: Ncbi

    def do_GET(self) -> None:
        self._answer(parse_qs(urlsplit(self.path).query))

    def do_POST(self) -> None:
        self._answer(parse_qs(self.rfile.read(int(self.headers["Content-Length"])).decode()))

    def _answer(self, asked: dict[str, list[str]]) -> None:
        if "esearch" in self.path:
            most = int(asked["retmax"][0])
            inside = "".join(f"<Id>{one}</Id>" for one in self.server.ids[:most])
            self._say(200, f"<eSearchResult><IdList>{inside}</IdList></eSearchResult>")
            return
        ids = asked["id"][0].split(",")
        self.server.fetches.append(ids)
        if len(self.server.fetches) in self.server.fails:
            self._say(400, "no")
        else:
            self._say(200, document(*(article(int(one)) for one in ids)))

    def _say(self, status: int, words: str) -> None:
        self.send_response(status)
        self.send_header("Content-Type", "text/xml")
        self.end_headers()
        self.wfile.write(words.encode())

    def log_message(self, *words: object) -> None:
        pass


@pytest.fixture
def ncbi(monkeypatch: pytest.MonkeyPatch) -> Iterator[Ncbi]:
    from urllib.request import urlopen

    from Bio import Entrez

    server = Ncbi(("127.0.0.1", 0), Answers)
    server.ids, server.fails, server.fetches = list(range(1, 451)), set(), []
    Thread(target=server.serve_forever, daemon=True).start()

    def to_stand_in(request: Any) -> Any:
        host = f"127.0.0.1:{server.server_address[1]}"
        request.full_url = request.full_url.replace(
            "https://eutils.ncbi.nlm.nih.gov", f"http://{host}"
        )
        return urlopen(request)

    monkeypatch.setattr(Entrez, "urlopen", to_stand_in)
    monkeypatch.setattr(Entrez, "sleep_between_tries", 0)
    yield server
    server.shutdown()
    server.server_close()


def test_what_a_search_finds_is_fetched_in_batches_and_in_its_order(
    ncbi: Ncbi, tmp_path: Path
) -> None:
    ncbi.ids = [9, 3, 5, *range(100, 400)]
    out = tmp_path / "abstracts.jsonl"
    assert fetch("invented disease", out, "someone@example.org", most=250) == 250
    assert [one.id for one in read_jsonl(out, Abstract)] == [str(one) for one in ncbi.ids[:250]]
    assert [len(one) for one in ncbi.fetches] == [200, 50]


def test_a_fetch_that_broke_off_goes_on_where_it_was(ncbi: Ncbi, tmp_path: Path) -> None:
    ncbi.fails = {2}
    out = tmp_path / "abstracts.jsonl"
    with pytest.raises(
        UserError, match=r"PubMed does not answer \(status 400\).*goes on from there"
    ):
        fetch("invented disease", out, "someone@example.org", most=450)
    assert not out.exists()
    ncbi.fails = set()
    assert fetch("invented disease", out, "someone@example.org", most=450) == 450
    assert [len(one) for one in ncbi.fetches] == [
        200,
        200,
        200,
        50,
    ]  # the first 200 were not asked for again
    assert not list(tmp_path.glob("*.partial"))


@pytest.mark.parametrize(
    ("email", "most", "words"), [("nobody", 5, "--email"), ("a@b.org", 20_000, "--most")]
)
def test_what_ncbi_would_refuse_is_said_before(
    tmp_path: Path, email: str, most: int, words: str
) -> None:
    with pytest.raises(UserError, match=words):
        fetch("x", tmp_path / "out.jsonl", email, most)


def test_nothing_found_is_said(ncbi: Ncbi, tmp_path: Path) -> None:
    ncbi.ids = []
    with pytest.raises(UserError, match="finds nothing"):
        fetch("x", tmp_path / "out.jsonl", "a@b.org")


ENTRY = (
    "<PubmedArticle><MedlineCitation><PMID Version='{version}'>{pmid}</PMID><Article>"
    "<ArticleTitle>Invented fever.</ArticleTitle><Abstract><AbstractText>{text}</AbstractText>"
    "</Abstract><PublicationTypeList><PublicationType>{kind}</PublicationType>"
    "</PublicationTypeList></Article>{more}</MedlineCitation></PubmedArticle>"
)


def test_what_was_retracted_is_left_out_and_each_pmid_stands_once(tmp_path: Path) -> None:
    from collections import Counter

    from residency.workflows.literature import convert

    plain = {"version": 1, "kind": "Journal Article", "more": ""}
    comment = (
        "<CommentsCorrectionsList><CommentsCorrections RefType='RetractionIn'/>"
        "</CommentsCorrectionsList>"
    )
    rows = [
        ENTRY.format(pmid=1, text="first words", **plain),
        ENTRY.format(pmid=2, text="gone", **{**plain, "kind": "Retracted Publication"}),
        ENTRY.format(pmid=3, text="gone too", **{**plain, "more": comment}),
        ENTRY.format(pmid=4, text="a notice", **{**plain, "kind": "Retraction of Publication"}),
        ENTRY.format(pmid=1, text="corrected words", **{**plain, "version": 2}),
    ]
    path, left = tmp_path / "export.xml", Counter[str]()
    path.write_text(f"<PubmedArticleSet>{''.join(rows)}</PubmedArticleSet>", "utf-8")
    assert convert(path, tmp_path / "out.jsonl", left) == 1
    written = (tmp_path / "out.jsonl").read_text("utf-8")
    assert "corrected words" in written and "first words" not in written
    assert left == {
        "retracted article": 2,
        "notice of a retraction": 1,
        "the same PMID again": 1,
    }
