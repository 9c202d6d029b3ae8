"""A tuned model as one folder of plain weights, its adapters merged, that transformers and every
tool that reads its format load without Residency."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from residency.core.errors import UserError
from residency.core.files import file_digest, whole_folder, write_json
from residency.core.types import Value
from residency.models import artefact as artefacts
from residency.models import fingerprint
from residency.models.predictors import kind_of

FILE = "export.json"


class Exported(Value, frozen=True):
    """What an export says of where it comes from."""

    artefact: str
    """SHA-256 of the artefact that it was made of."""
    base: str
    base_digest: str
    method: str
    card: dict[str, Any]
    profile: str
    files: dict[str, str]
    """File name -> SHA-256."""


class Merged(Exported, frozen=True):
    """What an export of merged weights says of itself."""

    dtype: str
    equal_within: float
    """Largest difference of a log-probability on the fixed texts between the base with its adapter
    apart and the exported files loaded again, in units of the larger of 1 and the value."""
    tolerance: float


def export(artefact: Path, out: Path) -> Merged:
    """Write an artefact's model to a new folder, whole or not at all: ``model.safetensors``, its
    configuration, the tokenizer with its chat template, ``export.json``.

    Raises ``UserError`` for models that cannot be merged without loss, for files that do not answer
    as the base with its adapter does, and a folder that holds something.
    """
    found = mergeable(artefact, "merged")
    check_new(out)
    head, kind = found.head, kind_of(found)
    reader = kind.reader(found, artefact)
    ids = fingerprint.rows(reader)
    # one after the other, so that two are never in memory
    apart = fingerprint.measure(artefacts.load_model(found, artefact, merge=False), ids, head)
    with whole_folder(out) as partial:
        model = kind.model(found, artefact)
        loader, dtype = type(model), fingerprint.numbers(model, found.base)
        if model.can_generate():  # its template's ends are not those of the base
            own = model.generation_config.eos_token_id
            own = own if isinstance(own, list) else [] if own is None else [own]
            model.generation_config.eos_token_id = sorted({*reader.ends, *own})
        model.save_pretrained(partial)
        reader.tokenizer.save_pretrained(partial)
        del model
        again = loader.from_pretrained(partial, dtype=dtype).eval()
        distance = fingerprint.furthest(apart, fingerprint.measure(again, ids, head))
        tolerance = fingerprint.TOLERANCES[f"process {dtype}"]
        if not distance <= tolerance:
            raise UserError(
                f"{artefact}: merged, its log-probabilities are {distance:.1e} away from those of "
                f"base and adapter, more than {tolerance:.0e}; serve it in process."
            )
        made = Merged(
            artefact=file_digest(artefact / artefacts.FILE),
            base=found.base.id,
            base_digest=found.base.digest,
            method=found.kinds,
            card=found.card,
            profile=found.profile,
            dtype=dtype,
            equal_within=distance,
            tolerance=tolerance,
            files={path.name: file_digest(path) for path in sorted(partial.iterdir())},
        )
        write_json(partial / FILE, made)
    return made


def mergeable(folder: Path, use: str) -> artefacts.Artefact:
    """An artefact whose model is weights alone, once merged; raises ``UserError`` with the reason
    where it is not, or ``use`` is nothing for its kind."""
    found = artefacts.read(folder)
    kind_of(found).check_able(use, folder)
    if "prefix" in found.kinds.split(", "):
        raise UserError(
            f"{folder}: a trained prefix is added inside every attention layer, which the weights "
            "of the base do not hold; "
            "serve it in process, or tune with lora, freeze or full."
        )
    if found.base.quantise != "none":
        raise UserError(
            f"{folder}: its base is quantised ({found.base.quantise}), which is not exported; "
            "serve it in process."
        )
    return found


def check_new(out: Path) -> None:
    """Raise ``UserError`` for a folder that holds something."""
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise UserError(
            f"{out}: already holds something; name a new folder with --out, or remove it."
        )
