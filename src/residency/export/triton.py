"""A trained model as a model of Triton Inference Server: base and adapter, tokenizer, card, and a
Python backend that asks them as ``residency predict`` does."""

from __future__ import annotations

import re
import shutil
from pathlib import Path

from residency.core.errors import UserError
from residency.core.files import file_digest, whole_folder, write_json, write_text
from residency.export.triton_backend import ARTEFACT, Answers
from residency.models import artefact as artefacts
from residency.models import erased
from residency.models.adapters import Full
from residency.models.base import silent, weights_digest
from residency.models.fingerprint import TEXTS

CONFIG = "config.pbtxt"
PROOF = "proof.json"
"""What is asked to know that the model answers: the input, and the digest that must come back."""
MOST = 64
"""Requests that are answered together."""
PROOF_TOKENS = 2
NAME = re.compile(r"[A-Za-z0-9_.-]{1,64}")

SETTINGS = """name: "{name}"
backend: "python"
max_batch_size: {most}
input [
  {{ name: "TEXT" data_type: TYPE_STRING dims: [ 1 ] optional: true }},
  {{ name: "MAX_TOKENS" data_type: TYPE_INT32 dims: [ 1 ] optional: true }},
  {{ name: "SURE" data_type: TYPE_BOOL dims: [ 1 ] optional: true }},
  {{ name: "PROMPT" data_type: TYPE_STRING dims: [ 1 ] optional: true }}
]
output [ {{ name: "ANSWER" data_type: TYPE_STRING dims: [ 1 ] }} ]
dynamic_batching {{ }}
# one process, which chooses its device itself
instance_group [ {{ count: 1 kind: KIND_CPU }} ]
parameters [ {{ key: "artefact" value: {{ string_value: "{digest}" }} }} ]
"""

MODEL = '''"""Answers as residency does in process; residency must be importable. Written by residency export
triton."""

import os
import sys

# some builds of Triton start Python without looking at it
sys.path[:0] = [path for path in os.environ.get("PYTHONPATH", "").split(os.pathsep) if path]

from residency.export.triton_backend import TritonPythonModel  # noqa: E402, F401
'''  # noqa: E501


def export(artefact: Path, out: Path, name: str) -> str:
    """Write a model into a model repository, whole or not at all: ``out/name``; its digest.

    Raises ``UserError`` for a name that Triton does not take, a model that is there already, and a
    base that is not the one that was trained on.
    """
    if not NAME.fullmatch(name):
        raise UserError(f"{name}: is no name of a model; use up to 64 of A-Z a-z 0-9 . _ -")
    if (out / name).exists():
        raise UserError(f"{out / name}: is there already; name another with --name, or remove it.")
    found, digest = artefacts.read(artefact), file_digest(artefact / artefacts.FILE)
    with whole_folder(out / name) as partial:
        kept = partial / "1" / ARTEFACT
        for file in [*found.files, artefacts.FILE, erased.FILE]:
            if (artefact / file).is_file():
                (kept / file).parent.mkdir(parents=True, exist_ok=True)
                shutil.copyfile(artefact / file, kept / file)
        if needs_base(found):
            base = artefacts.same_base(found.base, artefact)
            hidden = shutil.ignore_patterns(".*", "*.gguf", "optimizer*")
            shutil.copytree(base.path, kept / artefacts.BASE, ignore=hidden)
            if weights_digest(kept / artefacts.BASE) != found.base.digest:
                raise UserError(f"{base.path}: was changed while it was copied; export again.")
        write_text(partial / CONFIG, SETTINGS.format(name=name, most=MOST, digest=digest))
        write_text(partial / "1" / "model.py", MODEL)
        proof = {"model": name, "text": TEXTS[0], "max_tokens": PROOF_TOKENS, "digest": digest}
        write_json(partial / PROOF, proof)
        with silent():  # what is not answered here would not be there
            Answers(kept).of([(TEXTS[0], PROOF_TOKENS, False)])
    return digest


def exported(folder: Path) -> Path | None:
    """The model of a model repository whose artefact lies in ``folder``; none where in none."""
    model = folder.resolve().parent.parent
    return model if (model / PROOF).is_file() and folder.name == ARTEFACT else None


def needs_base(found: artefacts.Artefact) -> bool:
    """Whether an artefact is used with a base that lies elsewhere."""
    first = [*found.chain, found.tuning()][0]
    return first.needs_base and not isinstance(first, Full)
