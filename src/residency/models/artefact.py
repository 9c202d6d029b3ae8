"""The one artefact: what training saves is what evaluation, prediction, serving and export load."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec

from residency.core.errors import UserError
from residency.core.files import file_digest, read_json, write_json
from residency.core.part import parse
from residency.core.types import Profile, Value
from residency.models.adapters import ExternalMethod, Full, Lora, Method, Methods, method_of
from residency.models.base import Base, BaseModelSettings, load_tokenizer, load_weights, locate, weights_digest
from residency.models.tokens import Tokeniser
from residency.tasks.card import Card
from residency.tasks.spans import tag_names

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

SCHEMA = 1
FILE = "artefact.json"


class Artefact(Value, frozen=True):
    """What a folder with a trained model holds, and how it must be used."""

    schema: int
    base: Base
    method: dict[str, Any]
    card: dict[str, Any]
    profile: Profile
    """The least protected profile among the notes that it learned from."""
    files: dict[str, str]
    """File name -> SHA-256."""

    def task(self) -> Card:
        """The task's card, labels fixed."""
        return parse(Card, self.card, FILE)

    def tuning(self) -> Method:
        """The method that made it."""
        return method_of(parse(Methods, self.method, FILE))


def outputs(card: Card) -> tuple[str, ...]:
    """Names of the model's outputs for a task."""
    return tag_names(card.names) if card.family == "spans" else card.names


def fresh(base: Base, card: Card) -> Any:
    """The base with an untrained head for a card."""
    return load_weights(base, card.family, outputs(card), card.multiple)


def tokeniser(base: Base, folder: Path | None = None) -> Tokeniser:
    """The tokeniser of a base, or as an artefact carries it."""
    return Tokeniser(load_tokenizer(folder or Path(base.path)), base.segmenter, base.window)


def save(
    folder: Path, model: Any, base: Base, card: Card, method: Lora | Full | ExternalMethod, profile: Profile
) -> None:
    """Write a trained model with everything that its use needs; ``method`` as it is configured."""
    method_of(method).save(model, folder)
    tokenizer: PreTrainedTokenizerBase = load_tokenizer(Path(base.path))
    tokenizer.save_pretrained(folder)
    files = {path.name: file_digest(path) for path in sorted(folder.iterdir()) if path.is_file() and path.name != FILE}
    artefact = Artefact(
        schema=SCHEMA,
        base=base,
        method=method.model_dump(mode="json"),
        card=card.model_dump(mode="json"),
        profile=profile,
        files=files,
    )
    write_json(folder / FILE, artefact)


def read(folder: Path) -> Artefact:
    """What an artefact says of itself, every file checked against its hash.

    Raises ``UserError`` where a file is missing or was changed, or the schema is of another version.
    """
    if not (folder / FILE).is_file():
        raise UserError(f"{folder}: holds no artefact ({FILE} is missing); give the run's folder, or train first.")
    artefact = read_json(folder / FILE, Artefact)
    if artefact.schema != SCHEMA:
        raise UserError(
            f"{folder}: artefact schema {artefact.schema} is not read by this version, which reads {SCHEMA}."
        )
    for name, expected in artefact.files.items():
        path = folder / name
        if not path.is_file() or file_digest(path) != expected:
            raise UserError(
                f"{path}: is missing or was changed after training; restore it, or remove its folder and run the recipe again."
            )
    return artefact


def load(folder: Path, *, merge: bool = True) -> tuple[Artefact, Any, Tokeniser]:
    """The trained model of an artefact, on the CPU and ready to answer.

    Raises ``UserError`` where the base on this machine is not the one that it was trained on.
    """
    artefact = read(folder)
    method, card = artefact.tuning(), artefact.task()
    if isinstance(method, Full):
        model = _bare(folder, card.family)
    else:
        model = load_weights(_same_base(artefact.base, folder), card.family, outputs(card), card.multiple)
    model = method.load(model, folder, merge=merge)
    model.eval()
    return artefact, model, tokeniser(artefact.base, folder)


def _same_base(base: Base, folder: Path) -> Base:
    """The base as it lies on this machine, checked to be the one that was trained on."""
    path = Path(base.path)
    if base.id.startswith("bundled:") or not path.is_dir():
        settings = BaseModelSettings(id=base.id, revision=base.revision or None, allow_pickle=base.allow_pickle)
        path, _ = locate(settings, folder)
    if weights_digest(path) != base.digest:
        raise UserError(
            f"{folder}: its base {base.id} is another one than it was trained on; restore it, or train again."
        )
    return msgspec.structs.replace(base, path=str(path))


def _bare(folder: Path, family: str) -> Any:
    """A model built from an artefact's own configuration, its weights still to be loaded."""
    import torch
    import transformers

    config = transformers.AutoConfig.from_pretrained(folder)
    kinds = {
        "spans": transformers.AutoModelForTokenClassification,
        "labels": transformers.AutoModelForSequenceClassification,
    }
    return kinds[family].from_config(config, dtype=torch.float32)
