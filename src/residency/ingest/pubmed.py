"""PubMed: abstracts by a search at NCBI's E-utilities, or from the XML that PubMed exports, as
public notes.

Structure of the XML: NLM's DTD, https://dtd.nlm.nih.gov/ncbi/pubmed/. Searching is Biopython's,
which keeps NCBI's limits (three requests a second, ten with a key) and repeats what fails in
passing.
"""

from __future__ import annotations

import gzip
import os
import zlib
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from io import BytesIO
from pathlib import Path
from typing import Any, BinaryIO

from residency.core.errors import DataError, UserError
from residency.core.files import reason
from residency.corpus.abstracts import Abstract, abstract
from residency.ingest.decode import DOWN, UP, with_powers

BATCH = 200
"""Abstracts in one answer of the server."""
MOST = 9_999
"""What PubMed gives of one search; more are had by searches over parts, e.g. by year."""
LANGUAGES = {"eng": "en", "chi": "zh", "vie": "vi"}
"""PubMed's codes of the languages that are known here; others stay as they are."""
NONE = "article without an abstract"
AGAIN = "another abstract in the same language"
KEY = "NCBI_API_KEY"
"""Environment variable that may hold a key of NCBI's."""


def read_xml(source: Path | BinaryIO, left: Counter[str] | None = None) -> Iterator[Abstract]:
    """The abstracts of a PubMed XML file (packed as ``.gz`` too), of an article the English one and
    then those in other languages, one at a time; external entities are never followed. Retracted
    articles, notices of retraction and articles without an abstract are left out, and counted in
    ``left``.

    Raises ``DataError`` for a file that is no PubMed XML.
    """
    from lxml import etree

    counted = Counter() if left is None else left
    name = source if isinstance(source, Path) else "the answer of PubMed"
    given: Any = str(source) if isinstance(source, Path) else source
    packed = gzip.open(given) if str(given).endswith(".gz") else None  # noqa: SIM115  (closed below)
    try:
        found = 0
        given = packed or given
        for _, article in etree.iterparse(
            given,
            tag=("PubmedArticle", "PubmedBookArticle"),
            resolve_entities=False,
            no_network=True,
            load_dtd=False,
        ):
            found += 1
            why = _retracted(article)
            abstracts = {} if why else _abstracts(article, counted)
            counted.update({} if abstracts else {why or NONE: 1})
            yield from abstracts.values()
            article.clear()
            while article.getprevious() is not None:  # what was read is not kept
                del article.getparent()[0]
    except (etree.XMLSyntaxError, EOFError, OSError, zlib.error) as error:
        why = reason(error) if isinstance(error, OSError) else "is not whole XML."
        raise DataError(
            f"{name}: {why} Export it from PubMed anew, in the format PubMed (XML)."
        ) from None
    finally:
        if packed:
            packed.close()
    if not found and isinstance(source, Path):
        raise DataError(
            f"{source}: holds no PubMed article; export it from PubMed in the format PubMed (XML)."
        )


def _retracted(article: Any) -> str:
    """Why an article is not to be learned from; empty where nothing of the kind is said of it."""
    kinds = {_words(kind).casefold() for kind in article.findall(".//PublicationType")}
    refs = {one.get("RefType") for one in article.findall(".//CommentsCorrections")}
    if "retracted publication" in kinds or refs & {"RetractionIn", "PartialRetractionIn"}:
        return "retracted article"
    if kinds & {"retraction of publication", "retraction notice"} or "RetractionOf" in refs:
        return "notice of a retraction"
    return ""


def _abstracts(article: Any, left: Counter[str]) -> dict[str, Abstract]:
    """Language -> an article's abstract in it."""
    pmid = (
        article.findtext(".//MedlineCitation/PMID")
        or article.findtext(".//BookDocument/PMID")
        or ""
    )
    title = _words(article.find(".//ArticleTitle"))
    title = title.removeprefix("[").removesuffix(".").removesuffix("]")  # brackets: translated
    own = _words(article.find(".//VernacularTitle"))
    year = article.findtext(".//JournalIssue/PubDate/Year") or (
        article.findtext(".//JournalIssue/PubDate/MedlineDate") or ""
    )
    journal = article.findtext(".//Journal/ISOAbbreviation") or article.findtext(".//Journal/Title")
    found: dict[str, Abstract] = {}
    for whole in (*article.findall(".//Abstract"), *article.findall(".//OtherAbstract")):
        code = whole.get("Language", "eng")
        parts = ((part.get("Label") or "", _words(part)) for part in whole.iter("AbstractText"))
        sections = [(label.strip(), text) for label, text in parts if text]
        if code in found:
            left[AGAIN] += 1
        elif sections and pmid and title:
            found[code] = abstract(
                id=pmid.strip(),
                title=title if code == "eng" else own.removesuffix(".") or title,
                sections=sections,
                journal=journal or "",
                year=year[:4],
                lang=LANGUAGES.get(code, code),
            )
    return found


def _words(element: Any) -> str:
    """Text of an element and what it holds (italics, subscripts), powers as ``10^9``, white space
    as single blanks."""
    if element is None:
        return ""
    out: list[str] = []
    _pieces(element, out)
    return with_powers(" ".join("".join(out).split()))


def _pieces(element: Any, out: list[str]) -> None:
    """Append the texts of an element in order, raised text between two marks."""
    up, down = (UP, DOWN) if element.tag == "sup" else ("", "")
    out += (up, element.text or "")
    for child in element:
        if isinstance(child.tag, str):
            _pieces(child, out)
        out.append(child.tail or "")
    out.append(down)


def search(query: str, email: str, most: int) -> list[str]:
    """PMIDs that a query finds, the most relevant first; raises ``UserError`` where PubMed cannot
    be reached or knows no such query."""
    entrez = _entrez(email)
    from lxml import etree

    with _reachable():
        with entrez.esearch(
            db="pubmed", term=query, retmax=most, retmode="xml", sort="relevance"
        ) as answer:
            root = etree.fromstring(
                answer.read(),
                etree.XMLParser(resolve_entities=False, no_network=True, load_dtd=False),
            )
        return [found.text for found in root.findall(".//IdList/Id")]


def fetch(ids: list[str], email: str) -> Iterator[list[Abstract]]:
    """The abstracts of PMIDs, a batch at a time; those without an abstract are left out."""
    entrez = _entrez(email)
    for start in range(0, len(ids), BATCH):
        with (
            _reachable(),
            entrez.efetch(db="pubmed", id=ids[start : start + BATCH], retmode="xml") as answer,
        ):
            whole = answer.read()
        yield list(read_xml(BytesIO(whole)))


@contextmanager
def _reachable() -> Iterator[None]:
    """Turns what a network does into one sentence."""
    from http.client import HTTPException
    from urllib.error import HTTPError

    from lxml.etree import XMLSyntaxError

    try:
        yield
    except (OSError, HTTPException, XMLSyntaxError) as error:
        why = f"status {error.code}" if isinstance(error, HTTPError) else type(error).__name__
        raise UserError(
            f"PubMed does not answer ({why}); what was fetched is kept, and the same command goes "
            "on from there. Without a network, export the search at PubMed as XML elsewhere and "
            "give it with --file."
        ) from None


def _entrez(email: str) -> Any:
    """Biopython's client, set up."""
    try:
        from Bio import Entrez
    except ModuleNotFoundError:
        raise UserError(
            "biopython is not installed; install it with pip install 'residency[ingest]'."
        ) from None
    Entrez.email, Entrez.tool = email, "residency"
    with suppress(KeyError):
        Entrez.api_key = os.environ[KEY]
    return Entrez
