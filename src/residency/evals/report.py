"""The run's report: one HTML page that needs nothing else, a Markdown summary and a model card."""

from __future__ import annotations

import re
import shlex
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from residency.core.files import write_text
from residency.core.page import CONTROL, cleaned, escape_markdown, style
from residency.core.page import environment as page_environment
from residency.core.types import RunFacts, Value
from residency.evals import formats, plain, plots, report_view, verdicts
from residency.evals.report_view import TaskView
from residency.evals.words import ENGLISH, Words, words_of

if TYPE_CHECKING:
    from jinja2 import Environment
    from rich.table import Table

    from residency.core.types import Report

TEMPLATES = Path(__file__).parent / "templates"
SHOW_TEXT = "evaluate.show_text=true"
"""The override that asks for texts where the profile withholds them."""


class Plot(Value, frozen=True):
    """A chart of the report."""

    file: str
    """Relative to the report's folder."""
    svg: str
    label: str
    """What a reader who cannot see it is told."""
    inline: str


def render(facts: RunFacts, folder: Path) -> tuple[Path, ...]:
    """Write report.html, report.md, model_card.md and plots/*.svg, each whole or not at all; equal
    facts, equal bytes.

    All are in ``facts.language``, but the card only its first lines: the rest of it is read by
    registries, in English. Error texts and the mask sample are written only where
    ``facts.show_text`` is true. Raises ``UserError`` where the folder cannot be written.
    """
    words = words_of(facts.language)
    values = _values(facts, words)
    drawn = [
        plot for plot in (*values["task_plots"], *values["stage_plots"], *values["curves"]) if plot
    ]
    leads = [line for task in values["tasks"] for line in _lead(task)]
    card = {**values, "tasks": report_view.task_views(facts), "leads": leads}
    files = {
        "report.html": _html(words).get_template("report.html.jinja").render(values),
        "report.md": _markdown(words).get_template("report.md.jinja").render(values),
        "model_card.md": _markdown(ENGLISH)
        .get_template("model_card.md.jinja")
        .render(card, front_matter=_front_matter(facts)),
        **{plot.file: plot.svg for plot in drawn},
    }
    for name, text in files.items():
        write_text(folder / name, text)
    return tuple(folder / name for name in files)


def _lead(task: TaskView) -> list[str]:
    """What a task's results say, in sentences."""
    return [task.verdict, *(one.words for one in task.judged)]


def _caveats(facts: RunFacts) -> list[str]:
    """The caveats that no verdict of the page says."""
    judged = [one.words for one in verdicts.judgements(facts.reports)]
    judged += [verdicts.too_few_steps(stage) for stage in facts.stages]
    return [one for one in facts.caveats if one not in judged]


def _values(facts: RunFacts, words: Words) -> dict[str, Any]:
    """What the templates show."""
    from markupsafe import Markup

    tasks = report_view.task_views(facts, words)
    task_plots, stage_plots, curves = _plots(facts, tasks, words)
    return {
        "facts": facts,
        "tasks": tasks,
        "caveats": _caveats(facts),
        "short": [said for stage in facts.stages if (said := verdicts.too_few_steps(stage, words))],
        "terms": plain.terms(facts, words),
        "not_for": plain.not_for(facts, words),
        "ledgers": [report_view.ledger_view(data) for data in facts.data],
        "stage_tables": report_view.stage_table(tasks, facts.stages, words),
        "ratings": report_view.ratings_tables(facts, words),
        "task_plots": task_plots,
        "stage_plots": stage_plots,
        "curves": curves,
        "languages": sorted(
            {code.strip() for data in facts.data for code in data.lang.split(",") if code.strip()}
        ),
        "profiles": sorted({data.profile for data in facts.data}),
        "ask": SHOW_TEXT,
        "run_argument": Markup(shlex.quote(_clean(facts.folder) or "RUN")),
    }


def summary_table(facts_or_reports: RunFacts | Iterable[Report]) -> Table:
    """One row for each task and system, 80 columns wide: the main metric with its interval, a
    second one, the paired test.

    The second metric is the relaxed one for spans, exact match or accuracy for labels.
    """
    from rich.table import Table
    from rich.text import Text

    reports = (
        facts_or_reports.reports if isinstance(facts_or_reports, RunFacts) else facts_or_reports
    )
    tasks = verdicts.by_task(reports)
    heads = [_main_and_second(each) for each in tasks.values()]
    table = Table(box=None, pad_edge=False, header_style="dim")
    for name in ("task", "system"):
        table.add_column(name, overflow="fold", min_width=6)
    for position, name in enumerate(("main metric", "second metric")):
        metrics = {pair[position] for pair in heads}
        title = formats.metric_title(metrics.pop()) if len(metrics) == 1 else name
        table.add_column(
            title.replace(" ", "\n", 1) if position else f"{title}\n[95 % interval]",
            justify="right",
            no_wrap=True,
        )
    table.add_column("n", justify="right", no_wrap=True)
    baselines = {
        test.a for each in tasks.values() for report in each for test in report.comparisons
    }
    if baselines:
        table.add_column(
            f"difference\nto {baselines.copy().pop() if len(baselines) == 1 else 'another'} (p)",
            no_wrap=True,
        )
    for (task, each), (main, second) in zip(tasks.items(), heads, strict=True):
        tests = [test for report in each for test in report.comparisons if test.metric == main]
        for report in each:
            cells = _summary_cells(report, main, second)
            if baselines:
                cells.append(
                    "\n".join(
                        f"{formats.signed(test.difference)} ({formats.probability(test.p)})"
                        + (f" to {test.a}" if len(baselines) > 1 else "")
                        for test in tests
                        if test.b == report.system.name
                    )
                )
            cells.insert(0, task if report is each[0] else "")
            table.add_row(*(Text(_clean(cell)) for cell in cells))
        table.add_section()
    return table


def ratings_tables(facts: RunFacts) -> Iterator[Table]:
    """The marks of a run, for the terminal."""
    from rich.table import Table
    from rich.text import Text

    for one in report_view.ratings_tables(facts):
        table = Table(
            box=None, pad_edge=False, header_style="dim", title=one.title, title_justify="left"
        )
        for name in (one.head, *one.systems, "marks", "items"):
            table.add_column(name, justify="left" if name == one.head else "right", no_wrap=True)
        for row in one.rows:
            cells = [
                f"{formats.metric_value(s.value)} {formats.interval(s.low, s.high)}" if s else ""
                for s in row.scores
            ]
            table.add_row(*(Text(_clean(cell)) for cell in (row.name, *cells, row.n, row.groups)))
        yield table


def _summary_cells(report: Report, main: str, second: str) -> list[str]:
    """System, main metric with its interval, second metric, and on how many examples."""
    scores = {score.metric: score for score in verdicts.main_scores(report)}
    first, other = scores.get(main), scores.get(second)
    value = formats.NONE
    if first:
        interval = formats.interval(first.low, first.high)
        value = f"{formats.metric_value(first.value)} {interval}".rstrip()
    other_value = formats.metric_value(other.value) if other else ""
    return [report.system.name, value, other_value, formats.count(first.n if first else report.n)]


def answers_table(facts: RunFacts, most: int = 2, length: int = 200) -> Table | None:
    """Questions with the answers of every system, for the terminal; ``None`` where there are none
    that may be shown."""
    from rich.table import Table
    from rich.text import Text

    found = [one for task in report_view.task_views(facts) for one in task.answers[:most]]
    if not found:
        return None
    table = Table(box=None, pad_edge=False, show_header=False, padding=(0, 2, 0, 0))
    table.add_column(style="dim", no_wrap=True)
    table.add_column(overflow="fold")

    def cut(text: str) -> Text:
        line = " ".join(_clean(text).split())
        return Text(line if len(line) <= length else line[: length - 1] + "…")

    for one in found:
        table.add_row("question", cut(one.input))
        table.add_row("reference", cut(one.gold))
        for system, answer, failure in one.answers:
            table.add_row(system, cut(answer or f"({failure or 'no answer'})"))
        table.add_section()
        table.add_row("", "")
    return table


def _main_and_second(reports: list[Report]) -> tuple[str, str]:
    """The metric that decides, and the one that is most telling beside it; empty where there is no
    other."""
    main = verdicts.main_metric(reports)
    names = dict.fromkeys(
        score.metric
        for report in reports
        for score in verdicts.main_scores(report)
        if score.metric != main
    )
    preferred = ("loss", "span_f1_relaxed", "accuracy", "exact_match", "span_f1")
    return main, next((name for name in (*preferred, *names) if name in names), "")


def _plots(
    facts: RunFacts, tasks: Iterable[TaskView], words: Words
) -> tuple[list[Plot | None], list[Plot | None], list[Plot | None]]:
    """A chart of scores for each task, of the training for each stage, and of calibration for each
    task, where there is something to draw."""
    used: set[str] = set()
    of_tasks = [_plot("scores", task.name, *_score_chart(task, words), used) for task in tasks]
    of_stages = [
        _plot(
            "training",
            stage.name,
            plots.training_plot(stage, words),
            words(
                "Training loss and {metric} on the dev part over the stage {stage}",
                metric=formats.metric_in_sentence(stage.metric, words),
                stage=stage.name,
            ),
            used,
        )
        for stage in facts.stages
    ]
    curves = [
        _plot(
            "reliability",
            task.name,
            plots.reliability_plot(task.tuned.calibration, words, task.tuned.uncalibrated),
            words(
                "Reliability curve of {system} on {task}: stated chance against the share that was "
                "right",
                system=words(task.tuned.system.name),
                task=task.name,
            ),
            used,
        )
        for task in tasks
    ]
    return of_tasks, of_stages, curves


def _score_chart(task: TaskView, words: Words) -> tuple[str | None, str]:
    """The main metric over all labels and for each, and what it shows."""
    overall = [
        row for row in task.main.rows if row.name == formats.metric_title(task.metric, words)
    ]
    labels = task.labels[0].rows if task.labels else ()
    rows, names = [*overall, *labels], [row.name for row in labels]
    if overall:
        names.insert(0, words("all answers" if task.tuned.references else "all labels"))
    series = [
        (words(system), [row.scores[i] for row in rows])
        for i, system in enumerate(task.main.systems)
    ]
    title = formats.metric_title(task.label_metric or task.metric, words)
    if task.label_metric and task.label_metric != task.metric:
        main = formats.metric_in_sentence(task.metric, words)
        title += words(" (all labels: {metric})", metric=main)
    label = words(
        "{metric} on {task}, one row per label, a dot and its interval for {systems}",
        metric=title,
        task=task.name,
        systems=", ".join(map(words, task.main.systems)),
    )
    return plots.score_plot(names, series, title), label


def _plot(kind: str, name: str, svg: str | None, label: str, used: set[str]) -> Plot | None:
    if svg is None:
        return None
    safe = re.sub(r"[^\w.-]+", "-", name).strip("-.")
    stem = f"{kind}-{safe}".rstrip("-")
    stem = stem if stem not in used else f"{stem}-{len(used) + 1}"
    used.add(stem)
    prefix = f"plot{len(used)}"
    return Plot(
        file=f"plots/{stem}.svg",
        svg=svg,
        label=label,
        inline=plots.inline(svg, prefix, _clean(label)),
    )


def _html(words: Words) -> Environment:
    environment = _environment(cleaned, words)
    environment.globals["style"] = style()
    return environment


def _markdown(words: Words) -> Environment:
    from markupsafe import Markup

    environment = _environment(_markdown_text, words)
    environment.filters["fence"] = lambda text: Markup(_fence(text))
    return environment


def _environment(finalize: Callable[[object], object], words: Words) -> Environment:
    environment = page_environment(TEMPLATES, finalize)
    environment.filters.update(formats.filters(words))
    environment.filters["said"] = words.said
    environment.globals.update(_=words, language=words.code)
    return environment


def _clean(text: str) -> str:
    """Text without control characters."""
    return CONTROL.sub(" ", text)


def _markdown_text(value: object) -> object:
    """Text in a Markdown line or table cell: no markup, link, HTML or line break comes from the
    data."""
    from markupsafe import Markup

    if not isinstance(value, str) or hasattr(value, "__html__"):
        return value
    return Markup(escape_markdown(value))


def _fence(text: str) -> str:
    """A code block that the text cannot close."""
    longest = max((len(run) for run in re.findall(r"`{3,}", text)), default=2)
    ticks = "`" * (longest + 1)
    return f"{ticks}yaml\n{CONTROL.sub(' ', text).rstrip()}\n{ticks}"


def _front_matter(facts: RunFacts) -> object:
    """What model hubs and registries read from the top of a card."""
    import yaml
    from markupsafe import Markup

    languages = sorted(
        {code.strip() for data in facts.data for code in data.lang.split(",") if code.strip()}
    )
    metrics = list(
        dict.fromkeys(s.metric for report in facts.reports for s in verdicts.main_scores(report))
    )
    matter = {
        "model_name": facts.name,
        "language": languages,
        "base_model": facts.base if facts.base != "none" else "",
        "library_name": "residency",
        "tags": list(
            dict.fromkeys(
                ["clinical", *verdicts.by_task(facts.reports), *(s.method for s in facts.stages)]
            )
        ),
        "datasets": [data.name for data in facts.data],
        "metrics": metrics,
    }
    kept = {key: value for key, value in matter.items() if value}
    return Markup(yaml.safe_dump(kept, sort_keys=False, allow_unicode=True))
