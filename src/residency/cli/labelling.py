"""The verbs of labelling: from notes to labels that several people agree on."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from residency.cli.shared import (
    Overrides,
    RecipePath,
    RunPath,
    app,
    argument,
    group,
    load,
    option,
    say,
    tracking,
)
from residency.core.errors import UserError

if TYPE_CHECKING:
    from residency.label.agreement import TimeEstimate
    from residency.label.annotations import Pulled

label = group("Have notes labelled by several people, blind.")


app.add_typer(label, name="label")


@label.command()
def push(recipe: RecipePath, overrides: Overrides = None) -> None:
    """Give the notes out, to each in another order.

    For the browser (residency label open does it too), by file, or into a Label Studio project on
    each one's own server. Doing it again adds what is new and puts up again what was deleted.
    """
    from residency.workflows import label

    for one in label.push(load(recipe, overrides)):
        say(f"{one.annotator}: {one.tasks} notes in {one.where}")


@label.command(name="open")
def open_(
    recipe: RecipePath,
    overrides: Overrides = None,
    port: Annotated[
        int, typer.Option("--port", min=0, max=65535, help="Of this machine; 0: any that is free.")
    ] = 8766,
) -> None:
    """Label in the browser: give the notes out, and serve each person their pages.

    Prints an address for each annotator, for the adjudicator, and for you: how far they are, what
    they ask. Codes are made once and kept in the labelling's folder. Answers only this machine,
    until Ctrl-C; every step of everybody is saved at once.
    """
    from secrets import token_urlsafe

    from residency.pages.launch import listen, serve
    from residency.workflows import label_open

    loaded = load(recipe, overrides)
    known = label_open.give_out(loaded, recipe, overrides or ())
    secret = token_urlsafe(32)
    with listen(port) as socket:
        address = f"http://127.0.0.1:{socket.getsockname()[1]}/?secret="
        for name, code in {**known.codes, "you": secret}.items():
            print(f"{name:<12} {address}{code}", flush=True)
        out = loaded.label.out if loaded.label else ""
        serve(loaded.root / out, secret, socket, "/labelling/this")


@label.command()
def pull(recipe: RecipePath, overrides: Overrides = None) -> None:
    """Take back what annotators have done so far.

    Every span is checked; what is new or changed is taken over, the rest stays. Exits with 1 where
    something must be mended.
    """
    from residency.workflows import label

    pulled, times = label.pull(load(recipe, overrides))
    _say_pulled(pulled)
    _say_times(times)
    if any(one.trouble or one.faulty for one in pulled):
        raise UserError(
            f"{recipe}: something must be mended, see above; what could be taken was taken."
        )


@label.command()
def agreement(recipe: RecipePath, overrides: Overrides = None) -> None:
    """Measure how far the annotators agree.

    Alpha on characters, F1 of spans, by label and annotator, confusion, drift and the worst
    disagreements, on one page.
    """
    from residency.workflows import label

    found, page = label.agreement(load(recipe, overrides))
    for one in (found.alpha[0], *(score for score in found.pooled if "/" not in score.metric)):
        between = (
            "" if one.low is None or one.high is None else f" ({one.low:.3f} to {one.high:.3f})"
        )
        value = "does not apply" if one.value is None else f"{one.value:.3f}"
        say(f"{one.metric:<12} {value}{between}")
    say(f"report  {page}")


@label.command()
def adjudicate(recipe: RecipePath, overrides: Overrides = None) -> None:
    """Settle what annotators differ on.

    By majority where one agrees exactly; the rest goes out to be decided. Candidates are shown
    without names. The same command takes the decisions back; gold.jsonl and audit.jsonl say what
    came of it.
    """
    from residency.workflows import label

    loaded = load(recipe, overrides)
    outcome, sent, taken = label.adjudicate(loaded)
    if taken is not None:
        _say_pulled([taken])
    how = [one.how for one in outcome.decisions]
    for name in ("unanimous", "majority", "adjudicator"):
        say(f"{name:<12} {how.count(name)} places")
    say(f"open         {len(outcome.open)} places" + (f", in {sent.where}" if sent else ""))
    for reason in sorted(set(outcome.waiting.values())):
        say(f"waiting      {list(outcome.waiting.values()).count(reason)} notes: {reason}")
    for fault in outcome.refused:
        say(f"refused      {fault.reason}")
    folder = loaded.root / (loaded.label.out if loaded.label else "")
    say(f"gold         {len(outcome.gold)} notes in {folder / 'gold.jsonl'}")


@label.command()
def practice(
    recipe: RecipePath,
    gold: Annotated[
        Path,
        option("--gold", help="JSON lines of notes whose labels are known."),
    ],
    overrides: Overrides = None,
) -> None:
    """Ten notes whose labels are known, before the real ones.

    The first time they are given out; after that they are taken back, and each annotator gets a
    page with every difference.
    """
    from residency.workflows import label

    sent, told = label.practice(load(recipe, overrides), gold)
    for one in sent:
        say(f"{one.annotator}: {one.tasks} notes in {one.where}")
    for back in told:
        say(
            f"{back.annotator}: {back.notes} notes, strict F1 {back.strict:.3f}, relaxed F1 "
            f"{back.relaxed:.3f}",
        )
    if not sent and not told:
        raise UserError(
            "practice: nobody has labelled a note yet; run the command again when they have."
        )


@label.command()
def guideline(
    recipe: RecipePath,
    lang: Annotated[str, typer.Option("--lang", help="en, vi or zh.")] = "en",
    overrides: Overrides = None,
) -> None:
    """Write the card's guideline, to print.

    Definitions, examples, counter-examples, rules for the border.
    """
    from residency.workflows import label

    page = label.guideline(load(recipe, overrides), lang)
    say(f"guideline  {page}")


@label.command(name="next")
def next_(
    run: RunPath,
    pool: Annotated[Path, option("--pool", help="JSON lines of unlabelled notes.")],
    output: Annotated[Path, option("--output", "-o", help="Where the chosen ones go.")],
    count: Annotated[int, typer.Option("--count", help="How many.", min=1)] = 100,
    by: Annotated[
        Literal["random", "model"],
        typer.Option("--by", help="random: all at random; model: what the model is unsure of."),
    ] = "random",
    at_random: Annotated[
        float,
        typer.Option(
            "--random",
            help="With --by model: share that is drawn from the whole pool.",
            min=0,
            max=1,
        ),
    ] = 0.2,
) -> None:
    """Choose what to label next.

    At random, since nothing else was shown to teach more for the same reading (docs/benchmarks.md);
    or what a run's model is unsure of and has not seen the like of, with a share at random so that
    estimates made on it are honest: the order does not tell which.
    """
    from residency.workflows import suggest

    with tracking() as tracker:
        chosen = suggest.next_notes(
            run, pool, output, count, 1.0 if by == "random" else at_random, tracker
        )
    say(
        f"{len(chosen)} notes in {output}, {sum(one.how == 'random' for one in chosen)} of them "
        "drawn at random",
    )


@label.command()
def errors(
    recipe: RecipePath,
    overrides: Overrides = None,
    share: Annotated[
        float, typer.Option("--share", help="Length of the list, of all labelled spans.", min=0)
    ] = 0.03,
    folds: Annotated[int, typer.Option("--folds", help="Models that are trained.", min=2)] = 5,
    output: Annotated[
        Path, typer.Option("--output", "-o", help="Folder for list and page.")
    ] = Path("label-errors"),
) -> None:
    """List labels that are likely wrong.

    Where models that did not learn from a note are sure of something else. Trains on the recipe's
    training part, a fold at a time, with the recipe's base and first stage.
    """
    from residency.workflows import suggest

    with tracking() as tracker:
        found, page = suggest.label_errors(load(recipe, overrides), output, share, folds, tracker)
    say(f"{len(found)} places to look at in {page}")


@label.command()
def mend(
    recipe: RecipePath,
    errors: Annotated[
        Path, argument("ERRORS", help="errors.jsonl of residency label errors, with decisions.")
    ],
    output: Annotated[
        Path, typer.Option("--output", "-o", help="JSON lines of notes, for data of a recipe.")
    ] = Path("mended.jsonl"),
    overrides: Overrides = None,
) -> None:
    """Write the notes with the labels that were decided on.

    Each line of ERRORS has a decision: accept (the labels become what the model says), mend (they
    become those in mended), reject (they stay). residency ui shows the lines as a queue.
    """
    from residency.workflows import suggest

    decided, waiting = suggest.mend_labels(load(recipe, overrides), errors, output)
    say(f"{decided} places decided on, {waiting} wait; the notes are in {output}")


def _say_pulled(pulled: list[Pulled]) -> None:
    for one in pulled:
        if one.trouble:
            say(f"{one.annotator}: {one.trouble}")
        elif not one.done:
            say(f"{one.annotator}: nothing labelled yet, 0 of {one.of}")
        else:
            gone = f", {one.gone} no longer there (kept)" if one.gone else ""
            strange = f", {one.unknown} that were never given out (left)" if one.unknown else ""
            say(
                f"{one.annotator}: {one.done} of {one.of}; {one.new} new, {one.changed} changed, "
                f"{one.same} as before{gone}{strange}",
            )
        for fault in one.faults:
            say(f"  {fault}")


def _say_times(times: list[TimeEstimate]) -> None:
    for one in times:
        if one.left:
            say(
                f"{one.annotator}: {one.median:.0f} s a note; the {one.left} left take about "
                f"{one.hours:.1f} hours "
                f"({one.low:.1f} to {one.high:.1f})",
            )
