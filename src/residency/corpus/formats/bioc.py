"""BioC in XML and JSON: documents of passages with annotations."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal

import msgspec

from residency.core.errors import DataError
from residency.core.files import NO_JSON, read_text
from residency.core.types import Value
from residency.core.xml_files import xml_root
from residency.corpus.json_records import identifier
from residency.corpus.reader import Row, Source
from residency.corpus.span_repair import Raw


class _Mention(Value, frozen=True):
    id: str
    infons: dict[str, str]
    text: str
    places: tuple[tuple[int, int], ...]
    """(offset in the document, length)"""


class _Passage(Value, frozen=True):
    offset: int
    text: str
    mentions: tuple[_Mention, ...]


class BioC(Source):
    """BioC XML or JSON: a document is a note and a group, its passages stand at their offsets, with
    a line end and blanks between them. An annotation's label is one of its infons, its quote proves
    its place; one of several locations is a discontinuous span.

    Relations are read between two annotations, with their infon ``type``.
    """

    format: Literal["bioc"]
    label: str = "type"
    """Infon that holds the label."""
    code: str = "identifier"
    """Infon that holds the code in a terminology."""

    def suffixes(self) -> tuple[str, ...]:
        return (".xml", ".json")

    def rows(self, path: Path) -> Iterator[Row]:
        is_xml = read_text(path).lstrip()[:1] == "<"
        for number, (id, passages, (relations, others)) in enumerate(
            _of_xml(path) if is_xml else _of_json(path), 1
        ):
            text = ""
            for one in passages:
                gap = one.offset - len(text)
                text += ("\n" + " " * (gap - 1) if gap > 0 else "") if text else " " * gap
                text += one.text
            spans = tuple(self._raw(mention) for one in passages for mention in one.mentions)
            not_taken = {"relation of other than two spans not taken": others} if others else {}
            yield Row(
                line=number,
                id=id,
                group=id,
                text=text,
                spans=spans,
                relations=relations,
                not_taken=not_taken,
            )

    def _raw(self, mention: _Mention) -> Raw:
        label = mention.infons.get(self.label, "")
        places = tuple((offset, offset + length) for offset, length in mention.places)
        fault = (
            "" if label and places else "span has no label" if places else "span has no location"
        )
        return Raw(
            fragments=places,
            label=label,
            quote=mention.text,
            code=mention.infons.get(self.code) or None,
            key=mention.id,
            fault=fault,
        )


Document = tuple[str, list[_Passage], tuple[tuple[tuple[str, str, str], ...], int]]


def _of_json(path: Path) -> Iterator[Document]:
    try:
        found = msgspec.json.decode(read_text(path))
        given = found if isinstance(found, list) else [found]  # of collections, or of documents
        for document in (one for part in given for one in part.get("documents", [part])):
            passages = [_passage(one) for one in document["passages"]]
            relations = [
                (infons.get("type", ""), [node.get("refid") for node in one.get("nodes", [])])
                for holder in (document, *document["passages"])
                for one in holder.get("relations", [])
                for infons in [one.get("infons", {})]
            ]
            yield identifier(document.get("id")), passages, _pairs(relations)
    except (*NO_JSON, KeyError, TypeError, AttributeError, ValueError):
        raise DataError(
            f"{path}: is no BioC JSON: documents with passages of offset, text and annotations."
        ) from None


def _passage(one: dict[str, Any]) -> _Passage:
    inside = one.get("sentences") or []
    given = [
        *one.get("annotations", []),
        *(a for part in inside for a in part.get("annotations", [])),
    ]
    text, offset = one.get("text") or "", int(one["offset"])
    for part in inside if not text else ():
        text += " " * (int(part["offset"]) - offset - len(text)) + part["text"]
    mentions = tuple(
        _Mention(
            id=identifier(a.get("id")),
            infons={key: str(value) for key, value in a["infons"].items()},
            text=a.get("text") or "",
            places=tuple((int(place["offset"]), int(place["length"])) for place in a["locations"]),
        )
        for a in given
    )
    return _Passage(offset=offset, text=text, mentions=mentions)


def _of_xml(path: Path) -> Iterator[Document]:
    try:
        for document in xml_root(path, "collection").iterfind("document"):
            passages = [_passage(_as_json(one)) for one in document.iterfind("passage")]
            relations = [
                (_infons(one).get("type", ""), [node.get("refid") for node in one.iterfind("node")])
                for one in document.iter("relation")
            ]
            yield document.findtext("id") or "", passages, _pairs(relations)
    except (KeyError, TypeError, ValueError):
        raise DataError(
            f"{path}: is no BioC XML: documents with passages of offset, text and annotations."
        ) from None


def _as_json(element: Any) -> dict[str, Any]:
    """A passage or sentence of XML as JSON has it."""
    return {
        "offset": element.findtext("offset"),
        "text": element.findtext("text"),
        "sentences": [_as_json(one) for one in element.iterfind("sentence")],
        "annotations": [
            {
                "id": one.get("id"),
                "infons": _infons(one),
                "text": one.findtext("text"),
                "locations": [dict(place.attrib) for place in one.iterfind("location")],
            }
            for one in element.iterfind("annotation")
        ],
    }


def _infons(element: Any) -> dict[str, str]:
    return {one.get("key", ""): one.text or "" for one in element.iterfind("infon")}


def _pairs(
    relations: list[tuple[str, list[Any]]],
) -> tuple[tuple[tuple[str, str, str], ...], int]:
    """Relations between two annotations, and how many there are of other kinds."""
    pairs = tuple(
        (str(nodes[0]), str(nodes[1]), name)
        for name, nodes in relations
        if len(nodes) == 2 and None not in nodes
    )
    return pairs, len(relations) - len(pairs)
