"""Graphs of others, read: HPO with Orphanet's annotations, tables of triples, ``medical.json``,
GraphML, OBO, RDF, and our own YAML.

A row that cannot be taken is left out, counted by its reason and told with its line; what can be
taken is.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import msgspec

from residency.core.errors import DataError, UserError, allowed
from residency.core.files import csv_records, enumerate_lines, read_text
from residency.knowledge.graph import KINDS, RELATIONS, Fact
from residency.knowledge.ontologies import read_graphml, read_hpo, read_obo, read_rdf
from residency.knowledge.reading import DATA, EXTRAS, Given, Reading, plain, relation_words


def read_source(source: str, form: str, given: Given) -> Reading:
    """Read ``hpo``, ``hepatobiliary`` or a file, whose form its ending tells where ``form`` is
    empty.

    Raises ``UserError`` for what is not there or has no known form, ``DataError`` for a file that
    is broken as a whole.
    """
    if source == "hpo":
        return read_hpo(given)
    path = DATA / "hepatobiliary.yaml" if source == "hepatobiliary" else Path(source)
    if not path.is_file():
        raise UserError(f"{source}: there is no such file; allowed: a file, hpo, hepatobiliary.")
    form = form or ENDINGS.get(path.suffix.lower(), "")
    if form not in FORMS:
        raise UserError(f"{path}: --format: {allowed(FORMS, form)}.")
    given = msgspec.structs.replace(given, source=given.source or path.name)
    reading = Reading(given, path)
    FORMS[form](path, reading)
    return reading


# --- tables of triples, and medical.json


def read_triples(path: Path, reading: Reading) -> None:
    """A CSV or JSON lines file with a row for each fact: ``subject``, ``relation``, ``object``, and
    where they are at hand ``subject_kind``, ``object_kind``, ``subject_id``, ``object_id``,
    ``value``, ``unit``, ``frequency``, ``negated``, ``source``, ``evidence``. Where there is a
    column ``decision``, rows are taken whose decision is ``accept`` or ``mend``."""
    for line, row in _rows(path, reading):
        if row.get("decision", "accept").casefold() not in ("accept", "mend"):
            reading.leave(line, "not accepted")
            continue
        relation, kind = relation_words().get(plain(row.get("relation", "")), ("", ""))
        if not row.get("subject") or not row.get("object"):
            reading.leave(line, "no end", "subject or object is empty")
            continue
        if not relation:
            reading.leave(line, "unknown relation", allowed(RELATIONS, row.get("relation")))
            continue
        above = relation == "is_a"
        default = reading.given.kind or ("finding" if above else RELATIONS[relation][0][0])
        kinds = row.get("subject_kind") or default, row.get("object_kind") or kind
        if above and not row.get("object_kind"):
            kinds = kinds[0], kinds[0]
        if bad := [one for one in kinds if one not in KINDS]:
            reading.leave(line, "unknown kind", f"{bad[0]!r} ({allowed(KINDS, bad[0])})")
            continue
        ends = [
            reading.named(row[end], kind, row.get(f"{end}_id", ""))
            for end, kind in zip(("subject", "object"), kinds, strict=True)
        ]
        more: dict[str, Any] = {name: row.get(name, "") for name in EXTRAS}
        source = row.get("source") or reading.given.source
        negated = row.get("negated", "").lower() in ("1", "true", "yes", "not")
        reading.fact(Fact(ends[0], relation, ends[1], source, negated=negated, **more), line)


def _rows(path: Path, reading: Reading) -> Iterator[tuple[int, dict[str, str]]]:
    if path.suffix.lower() in (".csv", ".tsv"):
        delimiter = "\t" if path.suffix.lower() == ".tsv" else ","
        yield from csv_records(path, ["subject", "relation", "object"], delimiter=delimiter)
        return
    for line, row in _objects(path, reading):
        yield line, {key: str(value) for key, value in row.items() if value is not None}


def _objects(path: Path, reading: Reading) -> Iterator[tuple[int, dict[str, Any]]]:
    """The JSON objects of a file's lines; other lines are left out."""
    for line, raw in enumerate_lines(path):
        try:
            yield line, msgspec.json.decode(raw.removeprefix(b"\xef\xbb\xbf"), type=dict[str, Any])
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
            reading.leave(line, "is no JSON object")


MEDICAL = {
    "symptom": ("has_finding", "finding"),
    "acompany": ("leads_to", "disease"),
    "cure_department": ("treated_in", "department"),
    "cure_way": ("treated_by", "procedure"),
    "common_drug": ("treated_by", "drug"),
    "recommand_drug": ("treated_by", "drug"),
    "check": ("examined_by", "test"),
    "do_eat": ("eats", "food"),
    "recommand_eat": ("eats", "food"),
    "not_eat": ("avoids", "food"),
}
"""Lists of ``medical.json`` (QASystemOnMedicalKG) -> relation, kind. Its free text, prices and
package names of drugs are no facts."""


def read_medical(path: Path, reading: Reading) -> None:
    """The layout of ``medical.json``: one disease a line, with lists of names."""
    for line, row in _objects(path, reading):
        name = row.get("name")
        if not isinstance(name, str) or not name.strip():
            reading.leave(line, "no end", "name is empty")
            continue
        disease = reading.named(name.strip(), "disease")
        for field, (relation, kind) in MEDICAL.items():
            found = row.get(field) or []
            if not isinstance(found, list):
                reading.leave(line, "is no list", field)
                continue
            for one in found:
                if isinstance(one, str) and one.strip():
                    object = reading.named(one.strip(), kind)
                    fact = Fact(disease, relation, object, reading.given.source)
                    reading.fact(fact, line)


# --- our own YAML

ITEM = re.compile(
    r"(?P<no>not )?(?P<id>[\w.-]+)(?: \((?P<frequency>[a-z ]+)\))?"
    r"(?: (?P<value>[<>]=? ?[\d.]+|[\d.]+ ?- ?[\d.]+) ?(?P<unit>\S+)?)?"
)


def read_yaml(path: Path, reading: Reading) -> None:
    """Nodes, sources and facts in the layout of ``data/hepatobiliary.yaml``; names of one language
    are parted by semicolons, the usual one first."""
    import yaml

    try:
        found = yaml.safe_load(read_text(path))
    except yaml.YAMLError:
        raise DataError(f"{path}: is not YAML; check its indents and quotes.") from None
    if not isinstance(found, dict) or not {"nodes", "facts", "sources"} <= set(found):
        raise DataError(f"{path}: has no nodes, facts and sources; see data of the guide's graph.")
    for kind, nodes in found["nodes"].items():
        if kind not in KINDS:
            reading.leave("nodes", "unknown kind", f"{kind!r} ({allowed(KINDS, kind)})")
            continue
        for id, about in nodes.items():
            names = {lang: about[lang].split(";") for lang in ("vi", "zh", "en") if lang in about}
            codes = [("ICD-10", about["icd10"])] if "icd10" in about else []
            reading.node(id, kind, names, codes)
    for key, subjects in found["facts"].items():
        source = found["sources"].get(key, "")
        for subject, relations in subjects.items():
            for relation, items in relations.items():
                for item in items:
                    _item(str(item), (subject, relation, source), reading)


def _item(item: str, about: tuple[str, str, str], reading: Reading) -> None:
    subject, relation, source = about
    where, one = f"{subject}.{relation}", ITEM.fullmatch(item)
    if one is None:
        reading.leave(where, "is no fact", "allowed: [not ]NODE[ (FREQUENCY)][ >= NUMBER UNIT]")
        return
    fact = Fact(
        subject,
        relation,
        one["id"],
        source,
        value=(one["value"] or "").replace(" ", ""),
        unit=one["unit"] or "",
        frequency=one["frequency"] or "",
        negated=bool(one["no"]),
        evidence="guideline",
    )
    reading.fact(fact, where)


FORMS: dict[str, Callable[[Path, Reading], None]] = {
    "yaml": read_yaml,
    "triples": read_triples,
    "medical": read_medical,
    "graphml": read_graphml,
    "obo": read_obo,
    "rdf": read_rdf,
}
ENDINGS = {
    ".yaml": "yaml",
    ".yml": "yaml",
    ".csv": "triples",
    ".tsv": "triples",
    ".jsonl": "triples",
    ".json": "medical",
    ".graphml": "graphml",
    ".obo": "obo",
    ".ttl": "rdf",
    ".rdf": "rdf",
    ".owl": "rdf",
    ".nt": "rdf",
}
