"""The verbs of evaluation: what a model answers, how well, how fast, and beside what."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal, cast

import typer

from residency.cli.shared import (
    Overrides,
    RecipePath,
    RunPath,
    Runs,
    app,
    argument,
    group,
    load,
    option,
    say,
    table,
    terminal,
    tracking,
)
from residency.cli.training import print_result
from residency.core.errors import UserError, allowed

if TYPE_CHECKING:
    from rich.table import Table

    from residency.core.types import RunFacts


@app.command()
def predict(
    run: RunPath,
    input: Annotated[
        Path,
        option("--input", "-i", help="Notes: JSON lines, one note a line."),
    ],
    output: Annotated[
        Path,
        option("--output", "-o", help="Answers: JSON lines, one per note."),
    ],
    text_field: Annotated[str, typer.Option("--text", help="Field that holds the text.")] = "text",
    id_field: Annotated[
        str, typer.Option("--id", help="Field that holds the id; line numbers where it is missing.")
    ] = "id",
) -> None:
    """Answer a file of notes with a run's model.

    In constant memory; the output appears when it is whole, and an interrupted command goes on
    where it was cut off.
    """
    from residency.workflows.predict import predict_file

    _warn_of_erased(run)
    with tracking() as tracker:
        count = predict_file(run, input, output, text_field, id_field, tracker)
    say(f"{count} note{'' if count == 1 else 's'} answered in {output}")


@app.command(name="eval")
def evaluate(
    run: RunPath,
    overrides: Annotated[
        list[str] | None,
        argument(
            "[KEY=VALUE]...",
            help="Changes to the run's recipe, e.g. evaluate.bootstrap=2000, or "
            "data.NAME.test=FILE "
            "(relative to the recipe's folder).",
        ),
    ] = None,
) -> None:
    """Measure a run's model again.

    With other settings or on other data; nothing is trained. The report goes into a folder of its
    own in the run.
    """
    from residency.workflows.evaluate import evaluate

    with tracking() as tracker:
        facts, folder = evaluate(run, overrides or [], tracker)
    print_result(facts, folder)


@app.command()
def report(
    run: RunPath,
    lang: Annotated[
        str | None,
        option("--lang", help="en, vi or zh; that of the run's own report where not given."),
    ] = None,
    show: Annotated[
        bool, typer.Option("--show", help="With the text of notes, for those who may read them.")
    ] = False,
) -> None:
    """Write a run's report again.

    In another language, or with examples that quote notes: these go into report-with-notes/ of the
    run, which is its owner's alone and says what it holds. Nothing is trained or scored again.
    """
    from residency.workflows.report import report as written

    with tracking() as tracker:
        path = written(run, lang, show, tracker)
    say(f"report  {path}")


@app.command()
def chat(
    run: RunPath,
    only: Annotated[str | None, option("--only", help="Talk to tuned or base alone.")] = None,
    system: Annotated[
        str | None,
        typer.Option("--system", help="What the model is told first; the card's where not given."),
    ] = None,
) -> None:
    """Talk to a run's model, its base beside it.

    A question a line, from the terminal or a pipe; answers appear as they are written. Nothing is
    kept on disk.
    """
    from residency.workflows import chat as talks

    if only not in (None, "tuned", "base"):
        raise UserError(f"--only: {only!r} is not known; {allowed(('tuned', 'base'), only)}.")
    chosen = cast(Literal["tuned", "base"] | None, only)
    _warn_of_erased(run)
    talking = talks.sides(run, chosen, system)

    def say(piece: str) -> None:
        sys.stdout.write(piece)
        sys.stdout.flush()

    if sys.stdin.isatty():
        say(talks.NOTICE + "\n")
    talks.converse(talking, _questions(), say)


def _warn_of_erased(run: Path) -> None:
    """One line where notes that the model learned from were erased."""
    from residency.models.erased import warning
    from residency.workflows.finished import artefact_of

    if words := warning(artefact_of(run)):
        print(f"residency: warning: {words}", file=sys.stderr)


def _questions() -> Iterator[str]:
    """Lines from the terminal, with a prompt, or from a pipe; until they end or nobody answers any
    more."""
    terminal = sys.stdin.isatty()
    while True:
        if terminal:
            sys.stdout.write("> ")
            sys.stdout.flush()
        try:
            line = sys.stdin.readline()
        except UnicodeDecodeError:
            raise UserError("the questions are not UTF-8; convert them first.") from None
        if not line:
            return
        yield line


@app.command()
def compare(
    systems: Annotated[
        list[str],
        argument(
            "SYSTEM... [KEY=VALUE]...",
            help="Folders of runs, base, api:NAME (an entry of evaluate.apis); then changes to the "
            "first run's recipe.",
        ),
    ],
    runs: Runs = Path("runs"),
) -> None:
    """Compare systems on the same items.

    The test items of the first run are put to every system; every pair is tested, p corrected for
    their number. The report shows scores with intervals, answers side by side, and what each system
    takes.
    """
    from residency.workflows.compare import contest_of, hold

    named = [text for text in systems if "=" not in text]
    contest = contest_of(named, [text for text in systems if "=" in text], runs)
    with tracking(contest.wanted.inputs.folder) as tracker:
        facts, folder = hold(contest, tracker)
    terminal().print()
    terminal().print(_systems(facts))
    terminal().print(_pairs(facts))
    say(f"\nreport  {folder / 'report.html'}")


@app.command()
def bench(
    run: RunPath,
    tokens: Annotated[
        int,
        typer.Option("--tokens", help="Length of an input, or of question and answer together."),
    ] = 1024,
    batches: Annotated[str, typer.Option("--batches", help="Batch sizes, with commas.")] = "1,4,16",
    times: Annotated[int, typer.Option("--times", help="Measurements at each batch size.")] = 10,
) -> None:
    """Measure how fast a run's model is.

    Latency, throughput and memory, beside the same weights in plain transformers, in turn. Writes
    bench/report.html and bench/bench.json below the run.
    """
    from residency.workflows.bench import bench as measured

    try:
        sizes = [int(size) for size in batches.split(",")]
    except ValueError:
        raise UserError(
            f"--batches: {batches!r} is no list of numbers; write for example 1,4,16."
        ) from None
    with tracking() as tracker:
        speed, path = measured(run, tokens, sizes, times, tracker)
    latencies = ("p50, ms", "p95, ms", "first token, ms", "ms per 100 tokens")
    figures = (*latencies, "tokens/s", "J per 100 tokens")
    shown = table("batch", "system", *figures, right=figures)
    for one in speed.timings:
        first = f"{one.first_ms:.1f}" if one.first_ms else ""
        latency = (f"{one.p50_ms:.1f}", f"{one.p95_ms:.1f}", first, f"{one.ms_per_100:.1f}")
        speed_of = (f"{one.tokens_per_second:,.0f}", one.joules_per_100)
        shown.add_row(str(one.batch), one.system, *latency, *speed_of)
    terminal().print(shown)
    say("times are taken after two answers to warm up")
    say(f"memory of a process that answers: {speed.memory_mb:,.0f} MB")
    say(f"\nreport  {path}")


def _systems(facts: RunFacts) -> Table:
    """What each system reaches and takes."""
    from residency.evals import formats, verdicts

    metric = verdicts.main_metric(facts.reports)
    title = f"{formats.metric_title(metric)}\n[95 % interval]"
    figures = (title, "n", "trained", "training", "ms per\n100 tokens")
    shown = table("system", *figures, right=figures)
    for report, cost in zip(facts.reports, facts.costs, strict=True):
        score = next((one for one in report.scores if one.metric == metric), None)
        shown.add_row(
            cost.system,
            f"{formats.number(score.value)} {formats.interval(score.low, score.high)}"
            if score
            else formats.NONE,
            formats.count(report.n),
            formats.count(cost.trainable) if cost.trainable else formats.NONE,
            formats.duration(cost.train_seconds) if cost.train_seconds else formats.NONE,
            f"{cost.ms_per_100_tokens:.1f}" if cost.ms_per_100_tokens is not None else formats.NONE,
        )
    return shown


def _pairs(facts: RunFacts) -> Table:
    """Which differences are real."""
    from residency.evals import formats

    figures = ("\ndifference [95 % interval]", "\np, corrected")
    listed = table("\npair", *figures, right=figures)
    for test in (test for report in facts.reports for test in report.comparisons):
        shown = f"{formats.signed(test.difference)} {formats.interval(test.low, test.high)}"
        p = formats.probability(test.p if test.p_corrected is None else test.p_corrected)
        listed.add_row(f"{test.b} minus {test.a} ({test.metric})", shown, p)
    return listed


@app.command()
def curve(
    recipe: RecipePath,
    overrides: Overrides = None,
    runs: Runs = Path("runs"),
    sizes: Annotated[str, typer.Option("--sizes", help="Numbers of records.")] = "100,200,350,500",
    seeds: Annotated[int, typer.Option("--seeds", min=1, help="Runs of each size.")] = 3,
    full: Annotated[
        bool, typer.Option(help="Also every weight trained, on the largest size.")
    ] = True,
) -> None:
    """Measure with fewer records: are these enough?

    Each point is an ordinary run, kept and found again. Says what 100 more records would bring,
    with its uncertainty.
    """
    from residency.workflows import curve as curves

    wanted = [int(text) for text in sizes.split(",") if text.strip().isdigit()]
    if not wanted or len(wanted) != len(sizes.split(",")) or min(wanted) < 1:
        raise UserError(
            f"--sizes: {sizes!r} is no list of numbers; write for example 100,200,350,500."
        )
    loaded = load(recipe, overrides)
    with tracking() as tracker:
        found = curves.curve(loaded, runs, wanted, seeds, full, tracker)
    written = curves.write(found, runs / f"{loaded.name}-curve")
    say(f"\n{curves.answer(found)}\npage  {written}")


rating = group("Have written answers marked by people or by a judge model.")
app.add_typer(rating, name="ratings")
RatedTask = Annotated[
    str,
    typer.Option(
        "--task", help="Whose answers; safety: those to the questions about harm, marked 0 to 2."
    ),
]


@rating.command()
def sheet(
    run: RunPath,
    raters: Annotated[list[str], option("--rater", help="Who marks; once for each.")],
    output: Annotated[Path, option("--output", "-o", help="Folder for the sheets.")],
    task: RatedTask = "",
    lang: Annotated[str, typer.Option("--lang", help="Only items in this language.")] = "",
    most: Annotated[
        int | None,
        typer.Option(
            "--most",
            min=1,
            max=100,
            help="The best mark; else the recipe's evaluate.most_mark (10).",
        ),
    ] = None,
    count: Annotated[
        int | None, typer.Option("--count", min=1, help="Only so many items, the same for all.")
    ] = None,
    form: Annotated[
        Literal["csv", "xlsx"], typer.Option("--format", help="csv, or xlsx: a workbook.")
    ] = "csv",
) -> None:
    """Write a sheet for each rater.

    CSV that Excel opens as it is, or a workbook that offers the marks of the scale. Blind: ids say
    neither system nor item, and each rater has an order of their own. Write a mark into each row,
    and a comment where there is something to say.
    """
    from residency.workflows import ratings

    for path in ratings.sheets(run, raters, output, task, lang, most, count, form):
        say(str(path))


@rating.command()
def read(
    run: RunPath,
    sheets: Annotated[list[Path], argument("SHEET...", help="Sheets that came back.")],
) -> None:
    """Take the marks of sheets into the run's report.

    All sheets are checked before anything is written. A rater's sheet takes the place of an earlier
    one.
    """
    from residency.workflows import ratings

    _say_ratings(ratings.take(run, sheets), run)


@rating.command(name="judge")
def judge_(
    run: RunPath,
    api: Annotated[str, argument("API", help="An entry of evaluate.apis.")],
    overrides: Overrides = None,
    task: RatedTask = "",
) -> None:
    """Have a model mark the answers.

    Any server that speaks OpenAI's chat completions, e.g. with evaluate.apis.big={url: ..., model:
    ...}. Its marks carry its name and never join those of people.
    """
    from residency.workflows import ratings

    facts, unread = ratings.judge(run, api, overrides or [], task)
    if unread:
        say(f"{unread} answers were given no mark that can be read; they are left out.")
    _say_ratings(facts, run)


def _say_ratings(facts: RunFacts, run: Path) -> None:
    """The marks in the terminal, and where the report is."""
    from residency.evals.report import ratings_tables, summary_table

    for shown in ratings_tables(facts):
        terminal().print(shown)
    if judged := [one for one in facts.reports if one.task.startswith("safety, judged")]:
        terminal().print(summary_table(judged))
    say(f"\nreport  {run / 'report.html'}")


study = group("Have answers compared blind by people.")
app.add_typer(study, name="study")
StudyPath = Annotated[Path, argument("STUDY", help="A study's folder.")]
DelaySeconds = Annotated[
    float | None,
    typer.Option(
        "--delay",
        min=0.1,
        max=600,
        help="Of dialogues: seconds until an answer is shown; measured where not given.",
    ),
]


@study.command()
def new(
    systems: Annotated[
        list[str],
        argument(
            "SYSTEM...",
            help="RUN (one: all of its systems; several: the trained one of each), RUN:SYSTEM, or "
            "NAME=FILE: answers of residency predict. Of dialogues: RUN, RUN:base, or a served "
            "model as NAME=URL#MODEL (#VARIABLE: where the server's key is).",
        ),
    ],
    output: Annotated[Path, option("--output", "-o", help="Folder for the study.")],
    raters: Annotated[
        str, typer.Option("--raters", help="Names with commas; ann:vi has a form in Vietnamese.")
    ] = "",
    patients: Annotated[
        str, typer.Option("--patients", help="Raters who are patients; they get a form of theirs.")
    ] = "",
    items: Annotated[int, typer.Option("--items", help="Questions, the same for all.")] = 100,
    kind: Annotated[
        Literal["compare", "short", "dialogue"],
        typer.Option("--kind", help="short: marks 0 to 10 by points; dialogue: ten rounds."),
    ] = "compare",
    by: Annotated[
        Literal["marks", "preference"] | None,
        option("--by", help="Of compare; where not given, a preference between two, else marks."),
    ] = None,
    task: Annotated[str, typer.Option("--task", help="Whose answers, of several tasks.")] = "",
    lang: Annotated[str, typer.Option("--lang", help="Only items in this language.")] = "",
    questions: Annotated[
        Path | None,
        option(
            "--questions",
            help="Of answers in files, and of dialogues: JSON lines with id, "
            "question, points, patient.",
        ),
    ] = None,
    seed: Annotated[
        int | None, option("--seed", help="Of what is drawn; a secret one where not given.")
    ] = None,
    delay: DelaySeconds = None,
) -> None:
    """Fix items, systems, order and raters.

    Each rater sees every item, each system equally often at each place. Which answer is whose is
    sealed in STUDY.key.json beside the folder, its hash in the study: keep it from raters. Says
    what such a study can find.
    """
    from residency.evals.study import key_path
    from residency.workflows import study as studies

    doctors, people = _names(raters), _names(patients)
    made = studies.new(
        systems, output, doctors, people, items, kind, by or "", task, lang, questions, seed, delay
    )
    if made.left_out:
        say(f"{made.left_out} questions have an answer that names a system; they are left out")
    say(studies.expected(made, len(doctors) + len(people)))
    if made.delay:
        say(studies.common_delay(made))
    say(f"study  {output}\nkey    {key_path(output)}")


def _names(text: str) -> list[str]:
    return [one for one in text.split(",") if one.strip()]


@study.command(name="open")
def open_(
    folder: StudyPath,
    port: Annotated[
        int, typer.Option("--port", min=0, max=65535, help="Of this machine; 0: any that is free.")
    ] = 8765,
) -> None:
    """Open a study in the browser, for its raters and you.

    Prints an address for each rater, which is theirs alone and stays the same with the port, and
    one of yours: progress, the lock, the result. Answers only this machine, until Ctrl-C; whoever
    stopped goes on from their address.
    """
    from secrets import token_urlsafe

    from residency.pages.launch import listen, serve
    from residency.pages.studies import addresses, ready

    place = folder.resolve()
    found = ready(place)
    secret = token_urlsafe(32)
    with listen(port) as socket:
        number = socket.getsockname()[1]
        for rater, address in addresses(found, number):
            print(f"{rater.name}  {address}")
        print(f"you  http://127.0.0.1:{number}/?secret={secret}", flush=True)
        serve(place.parent, secret, socket)


@study.command()
def form(
    folder: StudyPath,
    output: Annotated[Path, option("--output", "-o", help="Folder for the forms.")],
) -> None:
    """Write a form for each rater.

    One HTML file that needs no network: whoever fills it in saves a file and sends it back.
    """
    from residency.workflows import study as studies

    for path in studies.forms(folder, output):
        say(str(path))


@study.command()
def take(
    folder: StudyPath,
    files: Annotated[list[Path], argument("FILE...", help="Files that forms saved.")],
) -> None:
    """Take the votes of forms.

    What is whole is taken, the rest is named; a file that is taken again changes nothing, a later
    vote on an item takes the place of the earlier one.
    """
    from residency.workflows import study as studies

    for file in files:
        taken = studies.take(folder, file)
        lacking = f"; lacking: {', '.join(taken.lacking)}" if taken.lacking else ""
        say(f"{taken.rater}: {taken.votes} votes, {taken.new} new or changed{lacking}")


@study.command()
def lock(
    folder: StudyPath,
    key: Annotated[
        Path | None, option("--key", help="The key, where it is not beside the study.")
    ] = None,
) -> None:
    """End the voting and open the key.

    From here on no vote is taken, and the result can be read.
    """
    from residency.workflows import study as studies

    for name, votes in studies.end(folder, key)[1].items():
        say(f"{name}: {votes} votes")


@study.command()
def result(folder: StudyPath) -> None:
    """Read a locked study: who is preferred.

    Win rates, strengths with ties, marks, agreement, effects of order and length, harmful answers;
    intervals are over items and raters. A model with a harmful answer is not promoted from here
    on.
    """
    from residency.workflows import study as studies

    found, path = studies.read_result(folder)
    for one in found.preferences:
        bounds = "" if one.share.low is None else f" [{one.share.low:.3f}, {one.share.high:.3f}]"
        say(f"{one.verdict} ({one.scale}); {one.a} is preferred in {one.share.value:.3f}{bounds}")
    for harm in found.harmful:
        if harm.value:
            say(f"{harm.name}: {round(harm.value * harm.n)} of {harm.n} answers called harmful")
    say(f"\nreport  {path}")


benchmark = typer.Typer(name="cblue", help="Make and score a submission to PromptCBLUE.")


app.add_typer(benchmark)

Asked = Annotated[
    Path,
    argument("ROWS", help="Rows of the benchmark: input, target, type, ..."),
]


@benchmark.command()
def submit(
    rows: Asked,
    answers: Annotated[
        Path,
        argument("ANSWERS", help="What residency predict answered to them."),
    ],
    output: Annotated[Path, option("--output", "-o", help="The submission.")],
) -> None:
    """Put a model's answers into the layout of the benchmark.

    Predict the rows before with: residency predict RUN --text input --id sample_id.
    """
    from residency.corpus.promptcblue_rows import write_submission

    count = write_submission(rows, answers, output)
    say(f"{count} row{'' if count == 1 else 's'} in {output}")


@benchmark.command()
def score(
    gold: Annotated[
        Path,
        argument("GOLD", help="Rows with the right targets."),
    ],
    predictions: Annotated[
        Path,
        argument("PREDICTIONS", help="The same rows with a model's targets."),
    ],
    mode: Annotated[
        str,
        typer.Option(
            "--mode",
            help="official: its numbers and its oddities; safe: what cannot be read counts as "
            "wrong.",
        ),
    ] = "official",
) -> None:
    """Score predictions in the benchmark's layout, task by task, and over all 18 where all are
    there."""
    from residency.corpus import promptcblue_rows

    if mode not in ("official", "safe"):
        raise UserError(f"--mode: {mode!r} is not known; {allowed(('official', 'safe'), mode)}.")
    scored = promptcblue_rows.score(gold, predictions, "official" if mode == "official" else "safe")
    figures = ("score", "rows", "unreadable", "repaired")
    shown = table("task", "metric", *figures, right=figures)
    for one in scored:
        counts = map(str, (one.rows, one.unread, one.repaired))
        shown.add_row(one.task, one.metric, f"{one.score:.4f}", *counts)
    terminal().print(shown)
    found = promptcblue_rows.overall_of(scored)
    if found is not None:
        say(f"overall, mean of 18 tasks ({mode}): {found:.4f}")
    else:
        say(f"{len(scored)} of 18 tasks; an overall score is over all of them.")
