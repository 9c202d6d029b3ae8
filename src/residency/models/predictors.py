"""The kinds of models, one object each, and which predictor answers for a model.

What differs between the kinds in this room is a method of these objects; ``kind_of`` is where an
artefact's kind is looked up. What cannot be done with a kind is said by the object too
(``cannot``).
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Literal

import msgspec

from residency.core.errors import UserError
from residency.core.files import write_json
from residency.core.part import parse
from residency.models import artefact as artefacts
from residency.models import fingerprint
from residency.models.base import NO_BASE, Base, silent
from residency.models.fingerprint import Fingerprint
from residency.models.generation import TokenLimits
from residency.tasks.card import Card
from residency.tasks.families import check_marks_spans, head_of, of
from residency.tasks.heads import Head

if TYPE_CHECKING:
    from residency.models.artefact import Artefact, Output
    from residency.models.baselines import Baseline
    from residency.models.causal import CausalPredictor
    from residency.models.crf import CrfPredictor
    from residency.models.encoder import EncoderPredictor
    from residency.models.onnx_encoder import OnnxEncoder

    Trained = EncoderPredictor | CausalPredictor | CrfPredictor
    Answering = Trained | Baseline


class ClassifierKind:
    """Encoders with a head. Other kinds say where they depart from it."""

    cannot: ClassVar[Mapping[str, str]] = {
        "chat": "its model marks notes and does not write; use residency predict.",
        "safety": "is about generative models, and this one marks or chooses; set it to false.",
        "shots": "worked examples are for models that are asked in words.",
        "vllm": "its model answers with a head, which vLLM does not serve",
        "crf": "its model is a neural network; use residency export onnx.",
        "gguf": "its model marks notes and does not write; use residency export onnx.",
    }
    """What is not done with the kind, and why, as the end of a sentence."""

    def check_able(self, use: str, where: object) -> None:
        """Raise ``UserError``, which begins with ``where``, for what is not done with it."""
        if use in self.cannot:
            raise UserError(f"{where}: {self.cannot[use]}")

    def trained(
        self, folder: Path, name: str, card: Card | None = None, most: int | None = None
    ) -> Trained:
        """The predictor of an artefact; where it writes it can be asked another ``card``, and have
        at most so many tokens of an answer."""
        from residency.models.encoder import EncoderPredictor

        return EncoderPredictor.from_artefact(folder, name)

    def untuned(
        self, base: Base, card: Card, seed: int, artefact: Path, most: int | None = None
    ) -> Trained:
        """The base as it is, asked as the artefact's model is."""
        from residency.models.encoder import EncoderPredictor

        return EncoderPredictor.untuned(base, card, seed)

    def model(self, artefact: Artefact, folder: Path) -> Any:
        """The trained model alone, merged as it is served; raises ``UserError`` where it would not
        be asked as it was trained."""
        return artefacts.load_model(artefact, folder)

    def reader(self, artefact: Artefact, folder: Path) -> Any:
        """What reads texts for the model, as the artefact carries it."""
        return artefacts.tokeniser(artefact.base, folder)

    def record(self, artefact: Artefact, folder: Path) -> Fingerprint | None:
        """What it says of the fixed texts, loaded again, in all numbers that it may be served in;
        nothing where it cannot be asked."""
        model, reader = self.model(artefact, folder), self.reader(artefact, folder)
        said = fingerprint.record(model, reader, artefact.base, artefact.head)
        return said and msgspec.structs.replace(said, words=self.words(artefact, folder))

    def words(self, artefact: Artefact, folder: Path) -> tuple[tuple[float, ...], ...]:
        """What the CRF beside it says of them, where there is one."""
        from residency.models.blend import Blend

        beside = Blend.of(folder, artefact.task())
        return beside.crf.record().values if beside is not None else ()

    def learned_card(self, artefact: Artefact, now: Card, base: Base) -> Card | None:
        """The card as a model learned it, where it is still ``now``; ``None`` where ``now`` is
        another one that it can be asked. Raises ``UserError`` where it cannot."""
        learned = artefact.task()
        if learned.name != now.name:
            raise UserError(
                f"tasks[0].card: the model answers card {learned.name} with a head and cannot be "
                f"asked {now.name}."
            )
        return learned

    def keeps_words(self, folder: Path) -> bool:
        """Whether a model of the kind below a folder keeps words of notes as they were written;
        weights alone are no words."""
        return False

    def forget(
        self, folder: Path, quotes: Collection[str], own: Sequence[str], others: Sequence[str]
    ) -> None:
        """Take out of the models of the kind below a folder what only one patient's notes say:
        labelled ``quotes``, and words of the patient's ``own`` texts that no other has."""

    def probe(self, model: Any, ids: Sequence[Sequence[int]], head: Head) -> list[Any]:
        """What of a model's work on the fixed texts is compared with that of its base: the states
        below the head, which is new."""
        return fingerprint.states(model, ids)

    def distance(self, before: list[Any], now: list[Any]) -> float:
        """The largest difference between two probes."""
        return max(float((one - other).abs().max()) for one, other in zip(before, now, strict=True))


class GenerativeKind(ClassifierKind):
    """Models that write."""

    cannot: ClassVar = {
        "crf": "its model writes; use residency export merged or gguf.",
        "onnx": "its model writes; ONNX is for encoders. Serve it in process, or with vLLM.",
    }

    def trained(
        self, folder: Path, name: str, card: Card | None = None, most: int | None = None
    ) -> Trained:
        from residency.models.causal import CausalPredictor

        return _limited(CausalPredictor.from_artefact(folder, name, card=card), most)

    def untuned(
        self, base: Base, card: Card, seed: int, artefact: Path, most: int | None = None
    ) -> Trained:
        """With the template and settings of the tuned one."""
        from residency.models.causal import CausalPredictor

        return _limited(CausalPredictor.untuned_of(artefact, card=card), most)

    def model(self, artefact: Artefact, folder: Path) -> Any:
        artefacts.chat_of(artefact, folder)
        return super().model(artefact, folder)

    def reader(self, artefact: Artefact, folder: Path) -> Any:
        limits: TokenLimits = parse(TokenLimits, artefact.limits, str(folder))
        return artefacts.chat(artefact.base, limits, folder)

    def learned_card(self, artefact: Artefact, now: Card, base: Base) -> Card | None:
        learned = artefact.task()
        if learned.name != now.name:
            return None
        parts = ("system", "prompt", "answer")
        changed = [part for part in parts if getattr(learned, part) != getattr(now, part)]
        if artefact.base.chat_template != base.chat_template:
            changed.append("chat_template")
        if changed:
            raise UserError(
                f"card {learned.name}: {' and '.join(changed)} changed after training, so the "
                "model would be asked what it did not learn; restore the file, or train again with "
                "residency run."
            )
        return learned

    def probe(self, model: Any, ids: Sequence[Sequence[int]], head: Head) -> list[Any]:
        """What it says."""
        return fingerprint.measure(model, ids, head)

    def distance(self, before: list[Any], now: list[Any]) -> float:
        return fingerprint.furthest(before, now)


class LexicalKind(ClassifierKind):
    """Models without a base: a CRF over lexical features."""

    cannot: ClassVar = {
        **{use: why for use, why in ClassifierKind.cannot.items() if use != "crf"},
        "gguf": "its model is a CRF; use residency export crf.",
        "merged": "its model is a CRF, which has no base to merge into; use residency export crf.",
        "onnx": "its model is a CRF, which ONNX has no operators for; use residency export crf.",
        "bench": "times a model beside the same weights in transformers, which has no CRF; its "
        "report and residency compare say how long it takes.",
        "vllm": "its model is a CRF, which vLLM does not serve",
    }

    def trained(
        self, folder: Path, name: str, card: Card | None = None, most: int | None = None
    ) -> Trained:
        from residency.models.crf import CrfPredictor

        return CrfPredictor.from_artefact(folder, name)

    def record(self, artefact: Artefact, folder: Path) -> Fingerprint | None:
        from residency.models.crf import CrfPredictor

        return CrfPredictor.from_artefact(folder).record()

    def keeps_words(self, folder: Path) -> bool:
        """A CRF does, also one that lies beside an encoder."""
        from residency.models import crf

        return any(folder.rglob(crf.FEATURES))

    def forget(
        self, folder: Path, quotes: Collection[str], own: Sequence[str], others: Sequence[str]
    ) -> None:
        from residency.models import crf

        crf.forget(folder, quotes, own, others)


KINDS: Mapping[str, ClassifierKind] = {
    "classifier": ClassifierKind(),
    "lexical": LexicalKind(),
    "generative": GenerativeKind(),
}


def kind_of(asked: Artefact | Head) -> ClassifierKind:
    """The kind of a trained model, or of what answers with a head."""
    return KINDS[asked.kind]  # the one place of this room that goes by the kind


def keeps_words(folder: Path) -> bool:
    """Whether a model of any kind below a folder keeps words of notes as they were written."""
    return any(kind.keeps_words(folder) for kind in KINDS.values())


def forget(
    folder: Path, quotes: Collection[str], own: Sequence[str], others: Sequence[str]
) -> None:
    """Take what only one patient's notes say out of the models below a folder, of whatever kind
    they are: also out of one that was changed, which does not say its kind."""
    for kind in KINDS.values():
        kind.forget(folder, quotes, own, others)


def output_of(wanted: Literal["auto", "head", "text"], base: Base, card: Card) -> Output:
    """How a task is answered; raises ``UserError`` where base and card do not go together."""
    able = of(card).classifier is not None
    output: Output = wanted if wanted != "auto" else ("head" if able else "text")
    if output == "text":  # the recipe's word, of which the head is yet to be made
        if base is NO_BASE:
            raise UserError(
                "stages[0].method.kind: crf marks spans and chooses labels, and the answers of "
                f"card {card.name} are to be written; use lora or full."
            )
        if base.architecture != "causal":
            raise UserError(
                f"base: {base.id} is no generative model, and card {card.name} is to be answered "
                "in words; choose a causal model, for example bundled:tiny-lm."
            )
    elif not able:
        raise UserError(
            f"tasks[0].output: head cannot answer card {card.name}, whose answers are written; set "
            "auto or text."
        )
    return output


def trained(
    folder: Path, card: Card | None = None, name: str = "tuned", most: int | None = None
) -> Trained:
    """The predictor of an artefact, for the card that it learned; a generative model can be asked
    another one, and allowed so many tokens of an answer."""
    return kind_of(artefacts.read(folder)).trained(folder, name, card, most)


def record(folder: Path) -> Fingerprint | None:
    """What an artefact says of the fixed texts, loaded again as it will be served; nothing where it
    cannot be asked, or says what is no number."""
    found = artefacts.read(folder)
    with silent():
        return kind_of(found).record(found, folder)


def remember(folder: Path) -> None:
    """Keep that with an artefact which was just saved. Where it cannot be had, the model is kept
    without."""
    try:
        said = record(folder)
    except (UserError, RuntimeError, MemoryError):
        said = None
    if said is not None:
        write_json(folder / fingerprint.FILE, said)
        artefacts.seal(folder, artefacts.read(folder))


def marker(folder: Path, otherwise: str) -> EncoderPredictor | CrfPredictor:
    """The predictor of an artefact that marks spans, and says how sure it is of each token; raises
    ``UserError``, which says ``otherwise``, for other models."""
    found = artefacts.read(folder)
    check_marks_spans(found.head, otherwise)
    predictor: Any = kind_of(found).trained(folder, "tuned")
    return predictor  # type: ignore[no-any-return]


def exported(folder: Path, threads: int | None = None, name: str = "onnx") -> OnnxEncoder:
    """The predictor of an encoder in ONNX, in 8 bits where that answers as well."""
    from residency.models.onnx_encoder import OnnxEncoder

    return OnnxEncoder.from_export(folder, threads=threads, name=name)


def answers(folder: Path, card: Card, output: str) -> bool:
    """Whether an artefact can be asked a card: in words any, with a head only one of the same
    outputs."""
    found, head = artefacts.read(folder), head_of(card, output)
    return found.head is head and head.outputs(found.task()) == head.outputs(card)


def longest_answer(folders: Iterable[Path]) -> int | None:
    """Most tokens of an answer that any of several artefacts was given; None for a single one,
    whose own counts."""
    found = [artefacts.read(folder) for folder in folders]
    counts = [one.generation().max_tokens for one in found]
    return (
        max((count for count in counts if isinstance(count, int)), default=None)
        if len(found) > 1
        else None
    )


def _limited(predictor: CausalPredictor, most: int | None) -> CausalPredictor:
    """A predictor that may write so many tokens, so that systems are compared at one length."""
    if most is not None:
        predictor.generation = predictor.generation.model_copy(update={"max_tokens": most})
    return predictor
