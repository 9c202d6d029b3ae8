"""The one artefact: what training saves is what evaluation, prediction, serving and export load."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import msgspec

from residency.core.errors import UserError
from residency.core.files import file_digest, read_json, write_json
from residency.core.part import parse
from residency.core.types import Profile, Value
from residency.models.adapters import ExternalMethod, Full, Lora, Method, Methods, method_of
from residency.models.base import (
    Base,
    BaseModelSettings,
    load_causal,
    load_tokenizer,
    load_weights,
    locate,
    weights_digest,
)
from residency.models.chat import Chat
from residency.models.settings import Generation, Limits
from residency.models.tokens import Tokeniser
from residency.tasks.card import Card
from residency.tasks.spans import tag_names

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

SCHEMA = 1
FILE = "artefact.json"


Output = Literal["head", "text"]
"""How a model answers: with a head on its states, or in words."""


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
    output: Output = "head"
    limits: dict[str, Any] = {}
    generate: dict[str, Any] = {}
    """Models that write: how."""
    template: str = ""
    """Models that write: hash of what the chat template made of a fixed conversation."""

    def task(self) -> Card:
        """The task's card, labels fixed."""
        return parse(Card, self.card, FILE)

    def tuning(self) -> Method:
        """The method that made it."""
        return method_of(parse(Methods, self.method, FILE))

    def generation(self) -> Generation:
        """How it writes."""
        return parse(Generation, self.generate, FILE)


def outputs(card: Card) -> tuple[str, ...]:
    """Names of the model's outputs for a task."""
    return tag_names(card.names) if card.family == "spans" else card.names


def fresh(base: Base, card: Card, output: Output = "head") -> Any:
    """The base as it is tuned for a card: with an untrained head, or as it writes."""
    if output == "text":
        return load_causal(base)
    return load_weights(base, card.family, outputs(card), card.multiple)


def chat(base: Base, limits: Limits, folder: Path | None = None) -> Chat:
    """The tokenizer of a base, or as an artefact carries it, with its chat template."""
    tokenizer = load_tokenizer(folder or Path(base.path))
    if base.chat_template:
        tokenizer.chat_template = base.chat_template
    return Chat(tokenizer, base.window, limits, where=f"base: {base.id}")


def tokeniser(base: Base, folder: Path | None = None) -> Tokeniser:
    """The tokeniser of a base, or as an artefact carries it."""
    return Tokeniser(load_tokenizer(folder or Path(base.path)), base.segmenter, base.window)


class Writing(Value, frozen=True):
    """How a model writes, as an artefact keeps it."""

    chat: Chat
    generation: Generation


def save(
    folder: Path,
    model: Any,
    base: Base,
    card: Card,
    method: Lora | Full | ExternalMethod,
    profile: Profile,
    writing: Writing | None = None,
) -> None:
    """Write a trained model with everything that its use needs; ``method`` as it is configured."""
    method_of(method).save(model, folder)
    tokenizer: PreTrainedTokenizerBase = writing.chat.tokenizer if writing else load_tokenizer(Path(base.path))
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
    if writing:
        artefact = msgspec.structs.replace(
            artefact,
            output="text",
            limits=writing.chat.limits.model_dump(mode="json"),
            generate=writing.generation.model_dump(mode="json"),
            template=writing.chat.digest,
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
    """The trained model of an artefact that answers with a head, on the CPU and ready to answer.

    Raises ``UserError`` where the base on this machine is not the one that it was trained on.
    """
    artefact = read(folder)
    return artefact, _model(artefact, folder, merge), tokeniser(artefact.base, folder)


def load_chat(folder: Path, *, merge: bool = True) -> tuple[Artefact, Any, Chat]:
    """The same of an artefact that answers in words.

    Raises ``UserError`` also where the chat template no longer writes what it wrote in training.
    """
    artefact = read(folder)
    speaker = chat_of(artefact, folder)
    return artefact, _model(artefact, folder, merge), speaker


def chat_of(artefact: Artefact, folder: Path) -> Chat:
    """An artefact's tokenizer with its template and limits, checked to write what it wrote in training."""
    if artefact.output != "text":
        raise UserError(f"{folder}: its model marks notes and does not write; use residency predict.")
    found = Chat(load_tokenizer(folder), artefact.base.window, parse(Limits, artefact.limits, FILE), where=str(folder))
    if found.digest != artefact.template:
        raise UserError(
            f"{folder}: the chat template writes another prompt than in training (its file or the library that fills it "
            "has changed); restore it, or train again."
        )
    return found


def _model(artefact: Artefact, folder: Path, merge: bool) -> Any:
    method, card = artefact.tuning(), artefact.task()
    if isinstance(method, Full):
        model = _bare(folder, "answers" if artefact.output == "text" else card.family)
    else:
        model = fresh(same_base(artefact.base, folder), card, artefact.output)
    model = method.load(model, folder, merge=merge)
    model.eval()
    return model


def same_base(base: Base, folder: Path) -> Base:
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
        "answers": transformers.AutoModelForCausalLM,
    }
    return kinds[family].from_config(config, dtype=torch.float32)
