"""The verbs that a project begins with."""

from __future__ import annotations

from pathlib import Path
from shlex import quote
from typing import TYPE_CHECKING, Annotated

import typer

from residency.cli.shared import app, argument, option, say, terminal
from residency.cli.training import execute
from residency.core.errors import UserError

if TYPE_CHECKING:
    from residency.recipe import Recipe
    from residency.workflows.columns import Question


@app.command()
def demo(
    overrides: Annotated[
        list[str] | None,
        argument("[KEY=VALUE]...", help="lang=vi (default), zh or en; changes to the recipe."),
    ] = None,
    folder: Annotated[
        Path, typer.Option("--folder", help="Where records, recipe and runs go.")
    ] = Path("demo"),
) -> None:
    """From an invented hospital's database to two measured models.

    Extraction, de-identification, split, LoRA, evaluation and report, for a classifier that finds
    entities; then a generative model that answers questions. With the bundled models: no network,
    no GPU, a few minutes. base=e5-small: a real encoder for the entities.
    """
    import os

    from residency.cli.records import deid
    from residency.evals.report import answers_table
    from residency.recipe import Recipe
    from residency.workflows.finished import finished_facts
    from residency.workflows.init import demo_key, write_demo, write_demo_questions

    changes = list(overrides or [])
    langs = [text for text in changes if text.startswith("lang=")]
    lang = langs[-1].removeprefix("lang=") if langs else "vi"
    others = [text for text in changes if text not in langs]
    hospital = write_demo(folder, lang)
    say(
        f"An invented hospital ({lang}), its database full of names, and a recipe are in "
        f"{hospital.parent}/.",
    )
    os.environ.setdefault("RESIDENCY_KEY", demo_key(folder))
    deid(hospital)
    recipe = Recipe.load(hospital, others)
    if recipe.label is not None:
        _rehearse_labelling(recipe)
    finished = execute(recipe, folder / "runs")
    asked = Recipe.load(
        write_demo_questions(folder, lang),
        [text for text in others if not text.startswith(of_notes(recipe))],
    )
    say("\nNow a model that answers: invented questions, the bundled causal model.")
    answering = execute(asked, folder / "runs")
    if (answers := answers_table(finished_facts(answering))) is not None:
        say("\nTwo questions that it had not seen, before and after:\n")
        terminal().print(answers)
    say(
        "\nNext, on your own data:\n"
        "  residency init my-project                write a commented recipe, and folders to fill\n"
        "  residency check my-project/recipe.yaml   read all data, report every problem\n"
        f"  residency predict {quote(str(finished.folder))} --input notes.jsonl --output "
        f"answers.jsonl\n  residency chat {quote(str(answering.folder))}",
    )


def of_notes(recipe: Recipe) -> tuple[str, ...]:
    """How changes begin that are of the recipe of notes alone: its data, and a base that cannot
    write."""
    from residency.models.base import resolve

    base = resolve(recipe.base, recipe.root, weights=False)
    return ("data.",) if base.architecture == "causal" else ("data.", "base=", "base.")


def _rehearse_labelling(recipe: Recipe) -> None:
    from residency.workflows.label import rehearse

    agreement, page, outcome = rehearse(recipe)
    alpha, strict = agreement.alpha[0], agreement.pooled[0]
    by_majority = sum(one.how == "majority" for one in outcome.decisions)
    say(
        f"Three invented annotators labelled {agreement.notes} of them: alpha {alpha.value:.3f}, "
        f"strict F1 {strict.value:.3f}; "
        f"{by_majority} differences settled by majority, {len(outcome.open)} left to "
        f"decide.\nreport  {page}\n",
    )


@app.command()
def init(
    folder: Annotated[Path, argument("DIR", help="A new folder.")],
    more: Annotated[
        list[Path] | None,
        argument("[FILE]...", help="More files of --data, as a shell lists them."),
    ] = None,
    hospital: Annotated[
        str | None,
        option(
            "--hospital", help="vi, zh or en: with an invented hospital's database to start from."
        ),
    ] = None,
    data: Annotated[
        list[Path] | None,
        option("--data", help="Files or folders of notes: the recipe is filled in for them."),
    ] = None,
    answer: Annotated[
        list[str] | None,
        option("--answer", help="KEY=VALUE: what the files leave open, e.g. text=note, lang=vi."),
    ] = None,
) -> None:
    """Begin a project: a commented recipe, and folders to fill. Overwrites nothing.

    With --data, looks at the files (format, encoding, language, columns, tags) and writes the
    recipe that reads them, with what was found and why; asks where they leave something open. Notes
    that name people become a source, which residency deid reads first.
    """
    from residency.core.errors import allowed
    from residency.workflows.init import write_hospital_project, write_project

    if hospital not in (None, "vi", "zh", "en"):
        raise UserError(
            f"--hospital: {hospital!r} is not known; {allowed(('vi', 'zh', 'en'), hospital)}."
        )
    if folder.is_file():
        raise UserError(f"{folder}: is a file; name the new folder first: init DIR --data FILE.")
    if data:
        if hospital:
            raise UserError("--hospital: brings its own notes; leave it out, or --data.")
        _init_for([*data, *(more or [])], folder, answer or [])
        return
    if more or answer:
        raise UserError(f"{'--answer' if answer else more[0] if more else ''}: needs --data FILE.")
    written = write_hospital_project(folder, hospital) if hospital else write_project(folder)
    for path in written:
        say(f"wrote {path}")
    recipe = quote(str(folder / "recipe.yaml"))
    if hospital:
        say(
            f"Next: export RESIDENCY_KEY=$(openssl rand -hex 32), then: residency deid {recipe}",
        )
        return
    say(
        f"Put your notes into {folder / 'data'} (its README.md says how), then: residency check "
        f"{recipe}",
    )


def _init_for(files: list[Path], folder: Path, given: list[str]) -> None:
    """Write the recipe for files, and say what was found."""
    import sys

    from residency.workflows.columns import Answers
    from residency.workflows.init import write_for

    if bad := [text for text in given if not all(text.partition("="))]:
        raise UserError(f"--answer {bad[0]}: is no answer; write KEY=VALUE, e.g. text=note.")
    said = dict(text.split("=", 1) for text in given)
    written, found = write_for(files, folder, Answers(said, _ask if sys.stdin.isatty() else None))
    for one in found.settings:
        say(f"{one.key:<10} {one.value}{f' ({one.why})' if one.why else ''}")
    say(f"{'card':<10} {found.card} ({found.why})")
    for path in written:
        say(f"wrote {path}")
    if found.source:
        say("\nFirst: export RESIDENCY_KEY=$(openssl rand -hex 32), kept apart from the data")
    verb = "label open" if found.unlabelled else "check"
    verb = "deid" if found.source else verb
    say(f"\nNext: residency {verb} {quote(str(folder / 'recipe.yaml'))}")


def _ask(question: Question) -> str:
    """An answer from the terminal, asked for until it is one."""
    shown = f" [{', '.join(question.choices)}]" if question.choices else ""
    while True:
        answer = str(typer.prompt(f"{question.words}?{shown}")).strip()
        if answer in question.choices or not question.choices:
            return answer


@app.command(name="import")
def import_(
    tool: Annotated[str, argument("TOOL", help="llamafactory")],
    file: Annotated[
        Path,
        argument("FILE", help="Its training configuration (YAML)."),
    ],
    info: Annotated[
        Path | None,
        typer.Option(
            "--dataset-info", help="dataset_info.json, where it does not lie beside its data."
        ),
    ] = None,
    base: Annotated[
        str | None, typer.Option("--base", help="Another base, e.g. bundled:tiny-lm.")
    ] = None,
    ignore: Annotated[
        list[str] | None, typer.Option("--ignore", help="A key that may be left out.")
    ] = None,
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="The recipe; beside FILE if not given.")
    ] = None,
) -> None:
    """Turn another tool's configuration into a recipe.

    Says of every key where it went, or that it has no counterpart. Overwrites nothing.
    """
    from residency.core.errors import allowed
    from residency.core.files import write_text
    from residency.workflows import llamafactory

    if tool != "llamafactory":
        raise UserError(f"import: {tool!r} is not known; {allowed(('llamafactory',), tool)}.")
    target = output or file.with_name(f"{file.stem}.residency.yaml")
    if target.exists():
        raise UserError(f"{target}: is there already; name another file with --output.")
    if target.parent.resolve() != file.parent.resolve():
        raise UserError(
            f"{target}: must lie beside {file.name}: the recipe's paths are relative to its folder."
        )
    recipe, fates = llamafactory.import_recipe(file, info, base, tuple(ignore or ()))
    write_text(target, llamafactory.recipe_text(recipe))
    for fate in fates:
        say(f"{fate.key:<32} {fate.became}")
    say(f"\nwrote {target}; next: residency check {quote(str(target))}")


@app.command()
def ui(
    folder: Annotated[Path, argument("[FOLDER]", help="Folder of projects; this one.")] = Path(),
    port: Annotated[
        int, typer.Option("--port", min=0, max=65535, help="Of this machine; 0: any that is free.")
    ] = 8765,
    behind: Annotated[
        Path | None,
        option("--behind", help="Settings of residency serve (YAML): its tokens say who asks."),
    ] = None,
    host: Annotated[
        str, typer.Option("--host", help="With --behind: the address to answer on.")
    ] = "127.0.0.1",
) -> None:
    """Open the workbench in the browser: from files to a measured model, in pages.

    Prints an address that holds the key of this start. Answers only this machine, until Ctrl-C;
    runs that were started go on. With --behind each request needs a token of the server's identity
    provider: with the scope admin all pages, with diagnose or extract the doctor's.
    """
    from secrets import token_urlsafe

    from residency.pages.gate import of_settings
    from residency.pages.launch import HOST, listen, serve

    if not folder.is_dir():
        raise UserError(f"{folder}: is no folder; name one in which projects lie, or will.")
    if (folder / "recipe.yaml").is_file():
        raise UserError(f"{folder}: is a project itself; name the folder that it lies in.")
    if behind is None and host != HOST:
        raise UserError("--host: without --behind only this machine is answered; name a server.")
    secret, gate = token_urlsafe(32), of_settings(behind, host) if behind else None
    with listen(port, host) as socket:
        shown = f"[{host}]" if ":" in host else host
        end = "" if gate else f"?secret={secret}"
        print(f"http://{shown}:{socket.getsockname()[1]}/{end}", flush=True)
        serve(folder, secret, socket, gate=gate)


@app.command()
def schema() -> None:
    """Print the JSON Schema of recipes, for editors."""
    import json

    from residency.recipe import json_schema

    print(json.dumps(json_schema(), indent=2, ensure_ascii=False))
