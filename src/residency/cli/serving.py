"""The verbs of handing a model on: to another runtime, or over HTTP."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from residency.cli.shared import RunPath, app, argument, option, say, tracking
from residency.core.errors import UserError

if TYPE_CHECKING:
    from residency.serve.settings import Serve

exports = typer.Typer(help="Write a run's model for another runtime.", rich_markup_mode=None)


app.add_typer(exports, name="export")


@exports.command()
def onnx(
    run: RunPath,
    out: Annotated[
        Path,
        option("--out", help="Folder to write; must not hold anything."),
    ],
) -> None:
    """Write a run's encoder for OpenVINO and ONNX Runtime.

    The model in 32 bits, checked to equal torch's within 1e-4, and in bfloat16 and 8 bits where the
    score on the run's stop part (its test part where it has none) falls by at most 0.2 points.
    onnx.json in the folder holds the decisions and the hash of every file.
    """
    from residency.core.errors import ResidencyError
    from residency.export.onnx import export, exportable
    from residency.models.base import silent
    from residency.workflows.evaluate import examples_of_run
    from residency.workflows.finished import artefact_of

    artefact = artefact_of(run)
    exportable(artefact)
    try:
        # what is reported decides only where there is nothing else
        held_out = examples_of_run(run, "dev") or examples_of_run(run, "test")
    # an artefact alone, or a run whose data has moved: fewer bits cannot be measured, and are not
    # kept
    except ResidencyError:
        held_out = []
    with tracking() as tracker:
        tracker.start("exporting")
        with silent():
            made = export(artefact, out, held_out)
        tracker.end(f"logits within {made.equal_within:.1e} of torch's")
    for name, fewer in (("bfloat16", made.bf16), ("8 bits", made.int8)):
        say(f"{name}: {'kept' if fewer.kept else 'not kept'}; {fewer.reason}")
    say(f"\nexport  {out}")


@exports.command()
def crf(
    run: RunPath,
    out: Annotated[
        Path,
        option("--out", help="Folder to write; must not hold anything."),
    ],
) -> None:
    """Write a run's CRF for CRFsuite.

    The model file of CRFsuite, its features and dictionaries, its outputs and the hash of every
    file as JSON, and a README that says how to use them. The files hold words of notes.
    """
    from residency.export.crf import export
    from residency.workflows.finished import artefact_of

    for name in export(artefact_of(run), out):
        say(name)
    say(f"\nexport  {out}")


@exports.command()
def merged(
    run: RunPath,
    out: Annotated[
        Path,
        option("--out", help="Folder to write; must not hold anything."),
    ],
) -> None:
    """Write a run's model as plain weights, its adapters merged.

    safetensors, configuration and tokenizer, as transformers and other tools load them. Loaded
    again, its log-probabilities must be those of base and adapter (1e-3 in 32 bits). Windows, legal
    tags and a CRF beside an encoder are not part of it.
    """
    from residency.export.merged import export
    from residency.models.base import silent
    from residency.workflows.finished import artefact_of

    with tracking() as tracker:
        tracker.start("exporting")
        with silent():
            made = export(artefact_of(run), out)
        tracker.end(f"log-probabilities within {made.equal_within:.1e} of base and adapter's")
    say(f"\nexport  {out}")


@exports.command()
def gguf(
    run: RunPath,
    out: Annotated[
        Path,
        option("--out", help="Folder to write; must not hold anything."),
    ],
    numbers: Annotated[
        Literal["f32", "bf16", "f16", "q8_0", "q4_0"],
        option("--numbers", help="What weights are held in: 32, 16, 8 or 4 bits."),
    ] = "f32",
) -> None:
    """Write a run's model that writes as GGUF, for llama.cpp.

    By llama.cpp's own converter. The greedy tokens that llama.cpp writes after fixed texts are
    compared with those of transformers, and must be equal in 32 bits.
    """
    from residency.export.gguf import export
    from residency.models.base import silent
    from residency.workflows.finished import artefact_of

    with tracking() as tracker:
        tracker.start("exporting")
        with silent():
            made = export(artefact_of(run), out, numbers)
        tracker.end(
            f"{made.equal} of {made.compared} answers token by token, log-probabilities within "
            f"{made.furthest:.1e}"
        )
    if made.prompts == "token ids":
        say(
            "llama.cpp has no rule that splits texts as this tokenizer does: send prompts as token "
            "ids of the tokenizer in the folder, not as text."
        )
    say(f"\nexport  {out}")


@exports.command()
def triton(
    run: RunPath,
    out: Annotated[
        Path,
        option("--out", help="Model repository; made where it is not there."),
    ],
    name: Annotated[
        str | None,
        option("--name", help="Name of the model in it; the run's recipe's where not given."),
    ] = None,
) -> None:
    """Write a run's model into a model repository of Triton Inference Server.

    Base and adapter, tokenizer, card, and a Python backend that answers as residency predict does:
    TEXT in, ANSWER out (JSON), which names the model's digest. python scripts/triton_server.py
    serves it.
    """
    from residency.export.triton import export
    from residency.workflows.finished import artefact_of

    digest = export(artefact_of(run), out, name or _recipe_name(run))
    say(f"digest  {digest}")
    say(f"\nexport  {out}")


EXPORTS = ("onnx.json", "gguf.json")
"""Files that say that a folder is an export, which is served as it is."""
NAME = re.compile(r"[A-Za-z0-9_.-]{1,64}")


@app.command()
def serve(
    arguments: Annotated[
        list[str],
        argument(
            "RUN... [KEY=VALUE]...",
            help="Runs' folders, each under its recipe's name or as NAME=RUN, or names of the "
            "model ledger; and settings, e.g. port=9000.",
        ),
    ],
    config: Annotated[
        Path | None,
        option("--config", help="Settings of the server (YAML)."),
    ] = None,
    ledger: Annotated[Path, typer.Option("--models", help="Folder of the model ledger.")] = Path(
        "models"
    ),
) -> None:
    """Serve models of runs over HTTP.

    OpenAI's routes, /diagnose, /extract, /deidentify. Prints a command for each kind of model that
    works as it stands. Answers this machine alone unless auth.kind is oidc. Ends in order on Ctrl-C
    or SIGTERM: what runs is answered first.
    """
    models, settings = read_arguments(arguments, config, ledger)
    from residency.serve.launch import serve as start

    start(models, settings, say, ledger if ledger.is_dir() else None)


def read_arguments(
    arguments: list[str], config: Path | None, ledger: Path = Path("models")
) -> tuple[dict[str, Path], Serve]:
    """The models by their names, and the settings; raises ``UserError``."""
    from residency.core.part import parse
    from residency.recipe import override, read_yaml
    from residency.serve.settings import Serve
    from residency.workflows.finished import artefact_of

    changes = [one for one in arguments if _is_setting(one, set(Serve.model_fields))]
    value: dict[str, Any] = read_yaml(config) if config is not None else {}
    settings: Serve = parse(Serve, override(value, changes), str(config or "serve"))
    models: dict[str, Path] = {}
    for one in arguments:
        if one in changes:
            continue
        name, equals, path = one.partition("=")
        if not equals or Path(one).exists():
            name, path = "", one
        if not Path(path).exists() and (found := _promoted(ledger, path)) is not None:
            folder, name = found, name or path
        else:
            exported = any((Path(path) / file).is_file() for file in EXPORTS)
            folder = Path(path) if exported else artefact_of(path)
            name = name or _recipe_name(Path(path))
        if not NAME.fullmatch(name):
            raise UserError(
                f"{name}: is no name of a model; use letters, digits, points, hyphens: NAME=RUN."
            )
        if name in models:
            raise UserError(
                f"{path}: a model named {name} is served already; give it another name: "
                f"NAME={path}."
            )
        models[name] = folder
    if not models:
        raise UserError(
            "serve: no run is given; name at least one folder, e.g. residency serve "
            "runs/demo-vi-3f9a1c20."
        )
    return models, settings


def _is_setting(text: str, names: set[str]) -> bool:
    key, equals, _ = text.partition("=")
    return bool(equals) and re.split(r"[.\[]", key)[0] in names


def _promoted(ledger: Path, name: str) -> Path | None:
    """The model that a name of the ledger points to."""
    from residency.ops.model_ledger import ModelLedger

    if not ledger.is_dir():
        return None
    found = ModelLedger(ledger)
    return found.path(found.resolve(name).digest) if name in found.aliases() else None


def _recipe_name(run: Path) -> str:
    """The name that a run's recipe gives it; of an artefact alone its folder's."""
    from residency.recipe import read_yaml

    if (run / "recipe.yaml").is_file():
        return str(read_yaml(run / "recipe.yaml").get("name", run.name))
    return run.resolve().name
