"""The one artefact: what training saves is what evaluation, prediction, serving and export load."""

from __future__ import annotations

import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import msgspec

from residency.core.errors import UserError
from residency.core.files import file_digest, read_json, write_json
from residency.core.part import parse
from residency.core.types import Calibration, Profile, Value
from residency.models import erased
from residency.models.adapters import Configured, Full, Method, Methods, method_of
from residency.models.base import (
    Base,
    BaseModelSettings,
    load_tokenizer,
    locate,
    silent,
    weights_digest,
)
from residency.models.chat_template import ChatTokeniser
from residency.models.generation import Generation, TokenLimits
from residency.models.tokens import Tokeniser
from residency.models.weights import bare, load_weights
from residency.tasks.card import Card
from residency.tasks.families import head_of
from residency.tasks.heads import Head

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

SCHEMA = 1
FILE = "artefact.json"
EARLIER = "earlier"
"""Folder of an artefact with what the stages before it trained."""
BASE = "base"
"""Folder of an artefact that was exported together with its base."""


Output = Literal["head", "text"]
"""How a model answers: ``head``, a classifier with a head on its states; ``text``, a generative
model, in words."""


class Earlier(Value, frozen=True):
    """A stage that an artefact's own stage started from: what it trained lies in a folder of the
    artefact."""

    folder: str
    """``earlier/1-prefix``"""
    method: dict[str, Any]

    def tuning(self) -> Method:
        """The method that trained it."""
        return method_of(parse(Methods, self.method, FILE))


class Artefact(Value, frozen=True):
    """What a folder with a trained model holds, and how it must be used: a base by its hash, and
    what every stage changed."""

    schema: int
    base: Base
    method: dict[str, Any]
    card: dict[str, Any]
    profile: Profile
    """The least protected profile among the notes that it learned from."""
    files: dict[str, str]
    """File name -> SHA-256."""
    earlier: tuple[Earlier, ...] = ()
    """The stages before this one, in their order."""
    weights: tuple[str, ...] = ()
    """Those of the files that hold what this stage trained."""
    more: tuple[dict[str, Any], ...] = ()
    """Generative models: the cards of other tasks that they learned."""
    output: Output = "head"
    limits: dict[str, Any] = {}
    generate: dict[str, Any] = {}
    """Generative models: how."""
    template: str = ""
    """Generative models: hash of what the chat template made of a fixed conversation."""
    calibration: Calibration | None = None

    def task(self) -> Card:
        """The task's card, labels fixed."""
        return parse(Card, self.card, FILE)

    @property
    def head(self) -> Head:
        """What answers its task."""
        return head_of(self.task(), self.output)

    @property
    def kind(self) -> str:
        """What kind of model it is: that of its head, or ``lexical`` where it has no base."""
        return self.head.kind if self.tuning().needs_base else "lexical"

    def others(self) -> list[Card]:
        """The cards of other tasks that it learned."""
        return [parse(Card, card, FILE) for card in self.more]

    def tuning(self) -> Method:
        """The method that made it."""
        return method_of(parse(Methods, self.method, FILE))

    @property
    def chain(self) -> list[Method]:
        """The methods of the stages before."""
        return [one.tuning() for one in self.earlier]

    @property
    def kinds(self) -> str:
        """``prefix, freeze``: the methods of all stages."""
        return ", ".join(
            str(one["kind"]) for one in (*(each.method for each in self.earlier), self.method)
        )

    def generation(self) -> Generation:
        """How a generative model writes."""
        return parse(Generation, self.generate, FILE)


def fresh(base: Base, card: Card, output: Output = "head", methods: Sequence[Method] = ()) -> Any:
    """The base as it is tuned for a card: with an untrained head, or as it writes; held as
    ``methods`` need it.

    Raises ``UserError`` where a method cannot work on it.
    """
    in_place = any(method.in_place for method in methods)
    head = head_of(card, output)
    whole = _whole(base, head, methods) if base.quantise != "none" else ()
    return load_weights(base, head, card, in_place=in_place, whole=whole)


def _whole(base: Base, head: Head, methods: Sequence[Method]) -> list[str]:
    """Modules of a quantised base that keep their numbers: its output layer, and what methods train
    whole."""
    import torch

    with silent(), torch.device("meta"):
        model = _bare(Path(base.path), head)
    last = model.get_output_embeddings()
    names = [name for name, module in model.named_modules() if last is not None and module is last]
    return [*names, *(name for method in methods for name in method.unquantised(model))]


def begin(base: Base, card: Card, output: Output, method: Method, start: Path | None = None) -> Any:
    """What a stage of a method trains: the base, or what the stage in ``start`` made of it.

    Raises ``UserError`` where that was trained on another base, or answers in another way.
    """
    if start is None:
        return fresh(base, card, output, [method])
    before = read(start)
    if before.base.digest != base.digest:
        raise UserError(
            f"stages.start: {start} was trained on another base ({before.base.id}) than this "
            f"recipe's {base.id}; name that base, or start: base."
        )
    outputs = head_of(card, output).outputs(card)
    if (before.output, before.head.outputs(before.task())) != (output, outputs):
        raise UserError(
            f"stages.start: {start} answers card {before.task().name}, whose outputs are not those "
            f"of card {card.name}; start from a stage of the same card, or start: base."
        )
    tunings = [*before.chain, before.tuning()]
    if base.quantise != "none" and any(one.merges for one in tunings):
        raise UserError(
            f"stages.start: {start} holds a LoRA adapter, which does not merge into quantised "
            "weights without loss; put it last, or set base.quantise: none."
        )
    return _assembled(before, start, base, [method], merge=True)


def chat(base: Base, limits: TokenLimits, folder: Path | None = None) -> ChatTokeniser:
    """The tokenizer of a base, or as an artefact carries it, with its chat template."""
    tokenizer = load_tokenizer(folder or Path(base.path))
    if base.chat_template:
        tokenizer.chat_template = base.chat_template
    return ChatTokeniser(tokenizer, base.window, limits, where=f"base: {base.id}")


def tokeniser(base: Base, folder: Path | None = None) -> Tokeniser:
    """The tokeniser of a base, or as an artefact carries it."""
    return Tokeniser(load_tokenizer(folder or Path(base.path)), base.segmenter, base.window)


class GenerativeSettings(Value, frozen=True):
    """How a model writes, as an artefact keeps it."""

    chat: ChatTokeniser
    generation: Generation


def save(
    folder: Path,
    model: Any,
    base: Base,
    card: Card,
    method: Configured,
    profile: Profile,
    writing: GenerativeSettings | None = None,
    start: Path | None = None,
    more: Sequence[Card] = (),
    calibration: Calibration | None = None,
) -> None:
    """Write a trained model with everything that its use needs but its fingerprint
    (``predictors.remember``); ``method`` as it is configured, ``start`` the artefact of the stage
    that it began from, ``more`` the cards of other tasks that it learned."""
    method_of(method).save(model, folder)
    weights = tuple(
        path.name for path in sorted(folder.iterdir()) if path.is_file() and path.suffix != ".jsonl"
    )
    earlier = _take_along(start, folder) if start is not None else ()
    tokenizer: PreTrainedTokenizerBase = (
        writing.chat.tokenizer if writing else load_tokenizer(Path(base.path))
    )
    tokenizer.save_pretrained(folder)
    artefact = Artefact(
        schema=SCHEMA,
        base=base,
        method=method.model_dump(mode="json"),
        card=card.model_dump(mode="json"),
        profile=profile,
        files={},
        earlier=earlier,
        weights=weights,
        more=tuple(one.model_dump(mode="json") for one in more),
        calibration=calibration,
    )
    if writing:
        artefact = msgspec.structs.replace(
            artefact,
            output="text",
            limits=writing.chat.limits.model_dump(mode="json"),
            generate=writing.generation.model_dump(mode="json"),
            template=writing.chat.digest,
        )
    seal(folder, artefact)


def seal(folder: Path, artefact: Artefact) -> None:
    """Write what an artefact says of itself, with the hash of every file that lies there, but the
    marks of erasures, which may come later."""
    inside = [*folder.iterdir(), *(folder / EARLIER).rglob("*")]
    files = {
        path.relative_to(folder).as_posix(): file_digest(path)
        for path in sorted(inside)
        if path.is_file() and path.name not in (FILE, erased.FILE)
    }
    write_json(folder / FILE, msgspec.structs.replace(artefact, files=files))


@contextmanager
def sealed_again(folder: Path) -> Iterator[None]:
    """While files of an artefact are changed; afterwards it is whole if it was before."""
    try:
        before = read(folder)
    except UserError:  # it was changed by somebody else, and is to be seen to be
        yield
        return
    yield
    seal(folder, before)


def _take_along(start: Path, folder: Path) -> tuple[Earlier, ...]:
    """Copy what earlier stages trained into an artefact, so that it can be used alone."""
    before = read(start)
    for one in before.earlier:
        shutil.copytree(start / one.folder, folder / one.folder)
    own = Earlier(
        folder=f"{EARLIER}/{len(before.earlier) + 1}-{before.method['kind']}", method=before.method
    )
    (folder / own.folder).mkdir(parents=True)
    for name in before.weights or [name for name in before.files if "/" not in name]:
        shutil.copy2(start / name, folder / own.folder / name)
    return (*before.earlier, own)


def read(folder: Path) -> Artefact:
    """What an artefact says of itself, every file checked against its hash.

    Raises ``UserError`` where a file is missing or was changed, or the schema is of another
    version.
    """
    if not (folder / FILE).is_file():
        raise UserError(
            f"{folder}: holds no artefact ({FILE} is missing); give the run's folder, or train "
            "first."
        )
    artefact = read_json(folder / FILE, Artefact)
    if artefact.schema != SCHEMA:
        raise UserError(
            f"{folder}: artefact schema {artefact.schema} is not read by this version, which reads "
            f"{SCHEMA}."
        )
    for name, expected in artefact.files.items():
        path = folder / name
        if not path.is_file() or file_digest(path) != expected:
            raise UserError(
                f"{path}: is missing or was changed after training; restore it, or remove its "
                "folder and run the recipe again."
            )
    return artefact


def load(folder: Path, *, merge: bool = True) -> tuple[Artefact, Any, Tokeniser]:
    """The trained model of an artefact that answers with a head, on the CPU and ready to answer.

    Raises ``UserError`` where the base on this machine is not the one that it was trained on.
    """
    artefact = read(folder)
    return artefact, _model(artefact, folder, merge), tokeniser(artefact.base, folder)


def load_chat(folder: Path, *, merge: bool = True) -> tuple[Artefact, Any, ChatTokeniser]:
    """The same of an artefact that answers in words.

    Raises ``UserError`` also where the chat template no longer writes what it wrote in training.
    """
    artefact = read(folder)
    speaker = chat_of(artefact, folder)
    return artefact, _model(artefact, folder, merge), speaker


def load_model(artefact: Artefact, folder: Path, *, merge: bool = True) -> Any:
    """The trained model alone, merged as it is served, or its adapter apart; raises as ``load``."""
    return _model(artefact, folder, merge)


def chat_of(artefact: Artefact, folder: Path) -> ChatTokeniser:
    """An artefact's tokenizer with its template and limits, checked to write what it wrote in
    training."""
    if not artefact.template:  # nothing that a question could be put into was learned
        raise UserError(
            f"{folder}: its model is a classifier, not a generative model; use residency predict."
        )
    found = ChatTokeniser(
        load_tokenizer(folder),
        artefact.base.window,
        parse(TokenLimits, artefact.limits, FILE),
        where=str(folder),
    )
    if found.digest != artefact.template:
        raise UserError(
            f"{folder}: the chat template writes another prompt than in training (its file or the "
            "library that fills it has changed); restore it, or train again."
        )
    return found


def _model(artefact: Artefact, folder: Path, merge: bool) -> Any:
    own = isinstance(([*artefact.chain, artefact.tuning()])[0], Full)
    base = artefact.base if own else same_base(artefact.base, folder)
    model = _assembled(artefact, folder, base, [], merge=merge and base.quantise == "none")
    model.eval()
    return model


def _assembled(
    artefact: Artefact, folder: Path, base: Base, more: Sequence[Method], *, merge: bool
) -> Any:
    """The base with what every stage of an artefact trained, held as these stages and ``more``
    methods need it.

    Adapters of earlier stages are merged, as they were when the next stage began; the last one's
    where ``merge`` says so.
    """
    parts = [(one.tuning(), folder / one.folder) for one in artefact.earlier] + [
        (artefact.tuning(), folder)
    ]
    if isinstance(parts[0][0], Full):
        model = _bare(parts[0][1], artefact.head)
    else:
        methods = [*(method for method, _ in parts), *more]
        model = fresh(base, artefact.task(), artefact.output, methods)
    for number, (method, where) in enumerate(parts, start=1):
        model = method.load(model, where, merge=merge or number < len(parts))
    return model.requires_grad_(False)


def same_base(base: Base, folder: Path) -> Base:
    """The base as it lies on this machine, checked to be the one that was trained on."""
    beside = folder / BASE
    path = beside if beside.is_dir() else Path(base.path)
    if path != beside and (base.id.startswith("bundled:") or not path.is_dir()):
        settings = BaseModelSettings(
            id=base.id, revision=base.revision or None, allow_pickle=base.allow_pickle
        )
        path, _ = locate(settings, folder)
    if weights_digest(path) != base.digest:
        raise UserError(
            f"{folder}: its base {base.id} is another one than it was trained on; restore it, or "
            "train again."
        )
    return msgspec.structs.replace(base, path=str(path))


def _bare(folder: Path, head: Head) -> Any:
    """A model built from the configuration in a folder."""
    import transformers

    return bare(transformers.AutoConfig.from_pretrained(folder), head)
