"""A graph of knowledge: made from files of others, checked, looked at, and asked about."""

from __future__ import annotations

import csv
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from io import StringIO
from itertools import islice
from pathlib import Path

import msgspec

from residency.core.errors import DataError, UserError, allowed
from residency.core.files import (
    NO_JSON,
    enumerate_lines,
    reason,
    whole_folder,
    write_bytes,
    write_json,
)
from residency.core.progress import Silent, Tracker
from residency.core.types import PARTS, Note, Value
from residency.corpus.write import write_jsonl
from residency.knowledge import graph_file
from residency.knowledge.cases import CaseBook
from residency.knowledge.graph import Fact, Graph
from residency.knowledge.graph_answers import AnswerCheck
from residency.knowledge.grounding import plain
from residency.knowledge.imports import FORMS, read_source
from residency.knowledge.ontologies import read_labels
from residency.knowledge.questions import EXAM, Asker, row
from residency.knowledge.reading import TOLD, Given
from residency.knowledge.records import COLUMNS, LEAST, Counts, LabelledNote


class Imported(Value, frozen=True):
    """What an import brought."""

    nodes: int
    facts: int
    again: int
    """Facts that stood there before."""
    left: dict[str, int]
    """Rows that were left out, by reason."""
    told: tuple[str, ...]
    """One sentence for each of the first of them."""
    named: dict[str, int]
    """Language -> nodes that got a name from a table of labels."""
    faults: tuple[str, ...]
    """Rules that do not hold in what was written."""


def import_graph(
    source: str,
    out: Path,
    form: str = "",
    lang: str = "en",
    kind: str = "",
    cited: str = "",
    labels: Mapping[str, Path] | None = None,
    add: bool = False,
) -> Imported:
    """Write a graph from ``hpo``, ``hepatobiliary`` or a file; rows that cannot be taken are left
    out and told.

    ``lang``, ``kind``, ``cited``: language of names, kind of nodes, source of facts, where the file
    does not say them; ``labels``: language -> a table of names in it. Raises ``UserError`` where
    ``out`` is there and nothing is to be added, ``DataError`` where nothing at all could be taken.
    """
    if form and form not in FORMS:
        raise UserError(f"--format: {allowed(FORMS, form)}.")
    if out.exists() and not add:
        raise UserError(f"{out}: is there already; add to it with --add, or name another file.")
    reading = read_source(source, form, Given(lang, kind, cited))
    tables = (labels or {}).items()
    named = {one: read_labels(path, one, reading) for one, path in tables}
    if not reading.nodes:
        first = f" {reading.told[0]}" if reading.told else ""
        raise DataError(f"{source}: holds nothing of a graph.{first}")
    done = graph_file.write(out, reading.nodes.values(), reading.facts, reading.about, add)
    return Imported(
        done.nodes,
        done.facts,
        done.again,
        dict(reading.left.most_common()),
        tuple(reading.told),
        named,
        tuple(fault.sentence for fault in graph_file.read(out).faults),
    )


class Overview(Value, frozen=True):
    """A graph in counts."""

    kinds: dict[str, int]
    relations: dict[str, int]
    negated: int
    lacking: dict[str, dict[str, int]]
    """Language -> kind -> nodes without a name in it."""
    about: dict[str, str]


def overview(path: Path) -> Overview:
    """A graph in counts, with what it lacks in each language."""
    graph = graph_file.read(path)
    kinds = Counter(node.kind for node in graph.nodes.values())
    facts = graph.every.values()
    return Overview(
        dict(kinds.most_common()),
        dict(Counter(fact.relation for fact in facts).most_common()),
        sum(fact.negated for fact in facts),
        {lang: dict(graph.lacking(lang).most_common()) for lang in ("vi", "zh", "en")},
        {key: value for key, value in graph.about.items() if key != "format"},
    )


def lacking(path: Path, lang: str) -> list[tuple[str, str, str]]:
    """(id, kind, a name in another language) of nodes without a name in a language."""
    graph = graph_file.read(path)
    return [
        (node.id, node.kind, next((one[0] for one in node.names.values() if one), ""))
        for node in graph.nodes.values()
        if not node.names.get(lang)
    ]


def facts_of(path: Path, word: str, lang: str) -> tuple[str, list[tuple[str, str, Fact]]]:
    """The node of an id, code or name, and (subject, object, fact) of its facts, each called as in
    a language, or by its id where it has no name there."""
    graph = graph_file.read(path)
    found = [
        node.id
        for node in graph.nodes.values()
        if word == node.id
        or any(word == code for _, code in node.codes)
        or any(word.casefold() == one.casefold() for names in node.names.values() for one in names)
    ]
    if not found:
        raise UserError(f"{path}: has no node with this id, code or name.")

    def called(id: str) -> str:
        return (graph.name(id, lang) if id in graph.nodes else "") or id

    facts = [
        (called(fact.subject), called(fact.object), fact)
        for fact in graph.every.values()
        if fact.subject == found[0] or (fact.object == found[0] and fact.relation == "is_a")
    ]
    return called(found[0]), facts


def check(path: Path) -> list[str]:
    """One sentence for each rule that does not hold."""
    return [fault.sentence for fault in graph_file.read(path).faults]


class Answers(Value, frozen=True):
    """What a check of answers found."""

    rows: int
    kinds: dict[str, int]
    """Kind of fault -> rows; of rows with several the first."""
    told: tuple[str, ...]
    """File, line and kind of the first faults of each kind; never the text."""


def check_answers(
    path: Path,
    answers: Sequence[Path],
    held_out: Sequence[Path] = (),
    tracker: Tracker | None = None,
) -> Answers:
    """Check rows (of ``write_questions``, also worded by others) against the facts that they cite;
    find repeated questions, and those that share a question or a fact with ``held_out``, which a
    model is measured by."""
    tracker = tracker or Silent()
    graph = graph_file.read(path)
    checks = dict[str, AnswerCheck]()
    found, told, seen = Counter[str](), list[str](), set[str]()
    measured = [
        _answer(raw, f"{file}:{line}") for file in held_out for line, raw in enumerate_lines(file)
    ]
    asked = {plain(row.whole) for row in measured}
    kept = {number for row in measured for number in row.facts}
    rows = 0

    def note(kind: str, place: str) -> None:
        found[kind] += 1
        if found[kind] <= TOLD:
            told.append(f"{place}: {kind}")

    tracker.start("answers", 0)
    for file in answers:
        for line, raw in enumerate_lines(file):
            row, rows = _answer(raw, f"{file}:{line}"), rows + 1
            check = checks.setdefault(row.lang, AnswerCheck(graph, row.lang))
            if faults := check.faults(row.asked, row.said, row.facts, row.before):
                note(faults[0].kind, f"{file}:{line}")
            question = plain("\n".join([row.whole, *row.options.values()]))
            if question in seen:
                note("repeated", f"{file}:{line}")
            seen.add(question)
            if kept.intersection(row.facts) or plain(row.whole) in asked:
                note("leaked", f"{file}:{line}")
            if rows % 1000 == 0:
                tracker.update(rows)
    tracker.end(f"{rows} answers")
    return Answers(rows, dict(found.most_common()), tuple(told))


class _Row(Value, frozen=True):
    facts: tuple[int, ...]
    lang: str
    instruction: str = ""
    output: str = ""
    question: str = ""
    answer: str = ""
    options: dict[str, str] = {}
    history: tuple[tuple[str, str], ...] = ()

    @property
    def before(self) -> list[str]:
        return [text for turn in self.history for text in turn]

    @property
    def asked(self) -> str:
        return self.instruction or self.question

    @property
    def whole(self) -> str:
        return "\n".join([*self.before, self.asked])

    @property
    def said(self) -> str:
        return self.output or self.options.get(self.answer, self.answer)


def _answer(raw: bytes, where: str) -> _Row:
    try:
        return msgspec.json.decode(raw, type=_Row)
    except NO_JSON as error:
        raise DataError(f"{where}: {reason(error)}") from None


class Asked(Value, frozen=True):
    """What became of the facts of a graph."""

    pairs: int
    asked_for: int
    kinds: dict[str, int]
    parts: dict[str, int]
    covered: dict[str, tuple[int, int]]
    """Relation -> facts that were asked about, facts that can be asked about."""
    faults: int
    """Facts that were left out because they break a rule."""


def write_questions(
    path: Path,
    out: Path,
    count: int,
    langs: Sequence[str] = ("en",),
    seed: int = 0,
    kinds: Sequence[str] = (),
    relations: Sequence[str] = (),
    tracker: Tracker | None = None,
    missed_by: Sequence[Path] = (),
) -> Asked:
    """Write questions about a graph into a new folder: ``qa.PART.jsonl`` (format alpaca),
    ``exam.PART.jsonl`` (format exam), ``coverage.json``. Every language has an equal share; rows
    are written as they are made.

    ``missed_by``: rows as ``check_answers`` reads them, with a model's answers; the facts of those
    that do not hold are asked about first, in every form of words."""
    tracker = tracker or Silent()
    graph = graph_file.read(path)
    missed = _missed(graph, missed_by)
    if out.exists() and any(out.iterdir()):
        raise UserError(f"{out}: is there already and not empty; name another folder.")
    askers = [Asker(graph, lang, seed, kinds, relations) for lang in dict.fromkeys(langs)]
    told, parts, used = Counter[str](), Counter[str](), set[int]()
    encoder = msgspec.json.Encoder()
    tracker.start("questions", count)
    with whole_folder(out) as folder, ExitStack() as stack:
        files = {
            (form, part): stack.enter_context((folder / f"{form}.{part}.jsonl").open("wb"))
            for form in ("qa", "exam")
            for part in PARTS
        }
        for number, asker in enumerate(askers):
            share = (count + number) // len(askers)
            for question in islice(asker.ask(missed), share):
                form = "exam" if question.kind in EXAM else "qa"
                files[form, question.part].write(encoder.encode(row(question)) + b"\n")
                told[question.kind] += 1
                parts[question.part] += 1
                used.update(question.facts)
                if told.total() % 1000 == 0:
                    tracker.update(told.total())
        if not told:
            said = f"nothing can be asked of it in {', '.join(langs)}{_why(askers)}"
            raise UserError(f"{path}: {said}.")
        asked = Asked(
            told.total(),
            count,
            dict(told.most_common()),
            {part: parts[part] for part in PARTS},
            _covered(graph, askers, used),
            len(graph.every) - len(graph.facts),
        )
        write_json(folder / "coverage.json", asked)
    tracker.end(f"{asked.pairs} questions")
    return asked


def _missed(graph: Graph, answers: Sequence[Path]) -> set[int]:
    checks, found = dict[str, AnswerCheck](), set[int]()
    for file in answers:
        for line, raw in enumerate_lines(file):
            row = _answer(raw, f"{file}:{line}")
            check = checks.setdefault(row.lang, AnswerCheck(graph, row.lang))
            if check.faults(row.asked, row.said, row.facts, row.before):
                found.update(row.facts)
    return found


def _why(askers: Iterable[Asker]) -> str:
    unnamed = [asker.lang for asker in askers if not asker.names]
    return f": no node has a name in {', '.join(unnamed)}" if unnamed else ""


def _covered(graph: Graph, askers: Iterable[Asker], used: set[int]) -> dict[str, tuple[int, int]]:
    found = defaultdict[str, set[int]](set)
    for asker in askers:
        for (_, relation), facts in asker.units.items():
            found[relation].update(fact.id for fact in facts)
    for number in used:
        found[graph.facts[number].relation].add(number)
    return {name: (len(ids & used), len(ids)) for name, ids in sorted(found.items())}


class Told(Value, frozen=True):
    """What became of the diseases of a graph."""

    cases: int
    diseases: int
    findings: int
    """Spans of findings that are there."""
    absent: int
    """Spans of findings that are not."""
    unnamed: int
    """Findings of these diseases that have no name in the language."""


def write_cases(
    path: Path,
    out: Path,
    count: int,
    lang: str = "en",
    diseases: Sequence[str] = (),
    seed: int = 0,
) -> Told:
    """Write invented cases of rare diseases as notes with spans (format jsonl), the diseases in
    turn; all whose age is known where none is named."""
    book = CaseBook(graph_file.read(path), lang, seed)
    chosen = [book.disease(id) for id in dict.fromkeys(diseases)] or book.diseases()
    if not chosen:
        raise UserError(f"{path}: no disease has a name in {lang}, an age and findings; see docs.")
    spans = Counter[bool]()

    def counted() -> Iterator[Note]:
        for note in book.cases(chosen, count):
            spans.update("negated" in one.attributes for one in note.spans if one.by)
            yield note

    written = write_jsonl(counted(), out)
    unnamed = sum(disease.unnamed for disease in chosen)
    return Told(written, len(chosen), spans[False], spans[True], unnamed)


class Proposed(Value, frozen=True):
    """What a department's records suggest."""

    patients: int
    notes: int
    proposals: int


def propose(
    notes: Sequence[Path],
    out: Path,
    least: int = LEAST,
    labels: Mapping[str, str] | None = None,
) -> Proposed:
    """Write facts that the labelled, de-identified notes of at least so many patients suggest, as a
    table for a person to decide on; what is accepted ``import_graph`` takes.

    ``labels``: label of a span -> kind of node, beside the usual ones. Raises ``UserError`` where
    ``out`` is there, ``DataError`` for a note that names no patient.
    """
    if out.exists():
        raise UserError(f"{out}: is there already, perhaps with decisions; name another file.")
    counts, number = Counts(labels), 0
    for path in notes:
        for line, raw in enumerate_lines(path):
            try:
                note = msgspec.json.decode(raw, type=LabelledNote)
            except NO_JSON as error:
                raise DataError(f"{path}:{line}: {reason(error)}") from None
            counts.add(note, f"{path}:{line}")
            number += 1
    found = list(counts.proposals(least))
    source = f"records of {len(counts.everybody)} patients"
    table = StringIO(newline="")
    writer = csv.writer(table)
    writer.writerow(COLUMNS)
    writer.writerows(one.row(source) for one in found)
    write_bytes(out, table.getvalue().encode("utf-8-sig"), private=True)
    return Proposed(len(counts.everybody), number, len(found))
