"""What a model answers with: an output for each token, one for the whole text, or words.

A classifier also knows how gold becomes its training targets, and how its scores become an answer.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any, ClassVar, Literal

import msgspec

from residency.core.errors import UserError
from residency.core.types import Answer, Example, Labels, Span, Spans
from residency.metrics.calibration import Claim
from residency.metrics.counts import Counts
from residency.metrics.spans import count
from residency.tasks.bio import best_tags, decode, encode, tag_names

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from residency.tasks.card import Card

    Scores = NDArray[np.float32]
    Slots = Sequence[tuple[int, int]]
    Targets = list[int] | list[float]

IGNORED = -100
"""Target of a token that is not trained."""


class Head:
    """What stands behind the last layer of a model."""

    auto: ClassVar[str]
    """The class of transformers that loads a base with it."""
    title: ClassVar[str]
    """What a model with it is called."""
    pipeline: ClassVar[str]
    """The pipeline of transformers that runs it."""
    kind: ClassVar[Literal["classifier", "generative"]]
    """Which kind of model has it. A room that treats the kinds apart has an object for each, and
    looks it up under this name in one place."""
    by_token: ClassVar[bool]
    """Whether there is a target for each token, not one for the whole text."""
    read_tokens: ClassVar[int]
    """Tokens that a predictor reads at once."""
    says_chances: ClassVar[bool] = False
    """Whether what it answers comes with chances."""
    words_beside: ClassVar[bool] = False
    """Whether a CRF over words can answer beside it, place by place."""

    def outputs(self, card: Card) -> tuple[str, ...]:
        """Names of the outputs for a task."""
        raise NotImplementedError

    def config(self, card: Card) -> dict[str, Any]:
        """What the configuration of a base must say for it."""
        return {}

    def sizes(self, outputs: Sequence[str]) -> dict[str, Any]:
        """What the configuration of a base must say of its shape alone."""
        return {}

    def computed(self, ids: Sequence[int], targets: Sequence[float]) -> int:
        """Of how many tokens of a training row outputs are computed."""
        return len(ids)

    def inputs(self, trained: int) -> dict[str, Any]:
        """What a model is told beside its tokens, so that outputs are computed of ``trained``
        tokens at most."""
        return {}

    def log_probabilities(self, logits: Any, ids: Any) -> Any:
        """Of what a model makes [tokens, outputs] or [outputs] of tokens [tokens]."""
        raise NotImplementedError


class WordsHead(Head):
    """The next token: how a generative model answers any task."""

    auto, title = "AutoModelForCausalLM", "a generative model"
    pipeline = "text-generation"
    kind, by_token, read_tokens = "generative", True, 4096

    def outputs(self, card: Card) -> tuple[str, ...]:
        """None beside the vocabulary."""
        return ()

    def computed(self, ids: Sequence[int], targets: Sequence[float]) -> int:
        """Of the trained ones."""
        return sum(target != IGNORED for target in targets)

    def inputs(self, trained: int) -> dict[str, Any]:
        """To leave out the words behind other tokens, and to keep nothing for further ones."""
        return {"logits_to_keep": trained, "use_cache": False}

    def log_probabilities(self, logits: Any, ids: Any) -> Any:
        """Of each token but the first."""
        return logits[:-1].log_softmax(-1).gather(-1, ids[1:, None])


class Classifier(Head):
    """A layer on the states of a base that is trained with it."""

    kind, read_tokens, says_chances = "classifier", 16384, True

    def config(self, card: Card) -> dict[str, Any]:
        """The outputs by number and name."""
        names = self.outputs(card)
        return {
            **self.sizes(names),
            "id2label": dict(enumerate(names)),
            "label2id": {name: number for number, name in enumerate(names)},
        }

    def sizes(self, outputs: Sequence[str]) -> dict[str, Any]:
        """How many outputs there are."""
        return {"num_labels": len(outputs)}

    def log_probabilities(self, logits: Any, ids: Any) -> Any:
        """Of each output, at each token or of the whole."""
        return logits.log_softmax(-1)

    def targets(self, example: Example, slots: Slots, card: Card) -> tuple[Targets, dict[str, int]]:
        """The targets of an example whose text has these slots, and how many spans could not be
        said exactly, by reason."""
        raise NotImplementedError

    def kept(self, example: Example, targets: Targets, slots: Slots, card: Card) -> Counts:
        """Strict counts of the gold beside what its targets say: what tokens can lose of it. Of a
        whole text nothing is lost, and nothing counted."""
        return Counts()

    def of_window(
        self, targets: Targets, places: Sequence[tuple[int, int]], length: int
    ) -> Targets | None:
        """The targets of a window of so many tokens; ``None`` where nothing is read off it.

        ``places``: (slot, position of its first token in the window).
        """
        raise NotImplementedError

    def trained(self, targets: Targets, card: Card) -> list[str]:
        """Names of the outputs that targets ask for."""
        raise NotImplementedError

    def read_off(self, scores: Scores, firsts: Sequence[int]) -> Scores:
        """The scores of a window that count, one row each; ``firsts`` are the first tokens of its
        slots."""
        raise NotImplementedError

    def of_slots(self, scores: Scores, card: Card) -> Scores:
        """The scores of each slot of a text [slots, tags]; raises ``ValueError`` where it has
        none."""
        raise ValueError(f"card {card.name} is not about spans")

    def answer(
        self,
        text: str,
        slots: Slots,
        scores: Scores,
        card: Card,
        sure: bool = False,
        temperature: float = 1.0,
    ) -> Answer:
        """What the scores of all windows say; ``sure``: with how sure the model is of it, its
        log-odds divided by ``temperature``, which changes nothing else."""
        raise NotImplementedError

    def claims(self, example: Example, slots: Slots, scores: Scores, card: Card) -> list[Claim]:
        """What the scores of all windows say of a row with gold, piece by piece, with whether it is
        right; nothing of a head that says no chances."""
        return []


class TokenClassifier(Classifier):
    """Tags at the first token of each slot (BIO): spans."""

    auto, title = "AutoModelForTokenClassification", "a token classifier"
    pipeline, by_token = "token-classification", True
    words_beside = True

    def outputs(self, card: Card) -> tuple[str, ...]:
        """``O``, then ``B-x`` and ``I-x`` of each label."""
        return tag_names(card.names)

    def targets(self, example: Example, slots: Slots, card: Card) -> tuple[Targets, dict[str, int]]:
        """The tag of each slot."""
        assert isinstance(example.gold, Spans)
        return encode(example.gold.spans, slots, card.names)

    def kept(self, example: Example, targets: Targets, slots: Slots, card: Card) -> Counts:
        """Of gold spans and those of the tags."""
        assert isinstance(example.gold, Spans)
        back = decode(example.input, [int(tag) for tag in targets], slots, card.names)
        return sum(count(example.gold.spans, back).values(), Counts())

    def of_window(
        self, targets: Targets, places: Sequence[tuple[int, int]], length: int
    ) -> Targets | None:
        """Per token a tag or ``IGNORED``; a window inside one word has none."""
        row = [IGNORED] * length
        for slot, position in places:
            row[position] = int(targets[slot])
        return row if places else None

    def trained(self, targets: Targets, card: Card) -> list[str]:
        """The tags of the trained tokens."""
        names = self.outputs(card)
        return [names[int(target)] for target in targets if target != IGNORED]

    def read_off(self, scores: Scores, firsts: Sequence[int]) -> Scores:
        """Those of the first tokens: [slots, tags]."""
        return scores[list(firsts)]

    def of_slots(self, scores: Scores, card: Card) -> Scores:
        """All of them."""
        return scores

    def answer(
        self,
        text: str,
        slots: Slots,
        scores: Scores,
        card: Card,
        sure: bool = False,
        temperature: float = 1.0,
    ) -> Answer:
        """The spans of the best legal tags; ``sure``: each with the geometric mean of the
        probabilities of its tags."""
        if not len(scores):
            return Spans()
        tags = best_tags(scores).tolist()
        if not sure:
            return Spans(spans=decode(text, tags, slots, card.names))
        return self.spans(text, slots, tags, scores, card, temperature)

    def spans(
        self,
        text: str,
        slots: Slots,
        tags: Sequence[int],
        scores: Scores,
        card: Card,
        temperature: float = 1.0,
    ) -> Spans:
        """The spans of given tags, each with how sure the model is of it: the geometric mean of the
        probabilities of its tags, at a temperature."""
        import numpy as np

        if temperature != 1:
            scores = scores / temperature
            scores = scores - np.logaddexp.reduce(scores, axis=-1, keepdims=True)
        chosen = np.take_along_axis(scores, np.asarray(tags)[:, None], 1)[:, 0]
        return Spans(
            spans=tuple(
                msgspec.structs.replace(span, score=round(float(np.exp(chosen[at].mean())), 6))
                for span, at in _places(text, slots, tags, card)
            )
        )

    def claims(self, example: Example, slots: Slots, scores: Scores, card: Card) -> list[Claim]:
        """Its spans; right is what gold has with the same label and both ends."""
        return self.claimed(
            example, slots, best_tags(scores).tolist() if len(scores) else (), scores, card
        )

    def claimed(
        self, example: Example, slots: Slots, tags: Sequence[int], scores: Scores, card: Card
    ) -> list[Claim]:
        """The same of given tags."""
        assert isinstance(example.gold, Spans)
        gold = {(one.start, one.end, one.label) for one in example.gold.spans}
        return [
            Claim(scores[at], tags[at], (span.start, span.end, span.label) in gold)
            for span, at in _places(example.input, slots, tags, card)
        ]


def _places(
    text: str, slots: Slots, tags: Sequence[int], card: Card
) -> Iterator[tuple[Span, slice]]:
    """The spans of tags, each with its slots."""
    starts = [start for start, _ in slots]
    for span in decode(text, tags, slots, card.names):
        yield span, slice(bisect_right(starts, span.start) - 1, bisect_left(starts, span.end))


class SequenceClassifier(Classifier):
    """One output for each label, for the whole text: the mean over its windows."""

    auto, title = "AutoModelForSequenceClassification", "a sequence classifier"
    pipeline, by_token = "text-classification", False

    def config(self, card: Card) -> dict[str, Any]:
        """Also whether an item has one label or several."""
        kind = "multi_label" if card.multiple else "single_label"
        return {**super().config(card), "problem_type": f"{kind}_classification"}

    def outputs(self, card: Card) -> tuple[str, ...]:
        """The labels."""
        return card.names

    def targets(self, example: Example, slots: Slots, card: Card) -> tuple[Targets, dict[str, int]]:
        """The label's number, or one 0/1 per label where a card allows several."""
        assert isinstance(example.gold, Labels)
        given = tuple(map(card.canonical, example.gold.labels))
        if card.multiple:
            return [1.0 if name in given else 0.0 for name in card.names], {}
        if len(given) != 1:
            raise UserError(
                f"row {example.id}: has {len(given)} labels, but card {card.name} takes one; use a "
                "card with multiple: true."
            )
        return [card.names.index(given[0])], {}

    def of_window(
        self, targets: Targets, places: Sequence[tuple[int, int]], length: int
    ) -> Targets | None:
        """The same for every window of a text."""
        return targets

    def trained(self, targets: Targets, card: Card) -> list[str]:
        """The labels that are right."""
        if card.multiple:
            return [name for name, target in zip(card.names, targets, strict=True) if target]
        return [card.names[int(targets[0])]]

    def read_off(self, scores: Scores, firsts: Sequence[int]) -> Scores:
        """Those of the whole window: [1, labels]."""
        return scores[None, :]

    def answer(
        self,
        text: str,
        slots: Slots,
        scores: Scores,
        card: Card,
        sure: bool = False,
        temperature: float = 1.0,
    ) -> Answer:
        """The likeliest label, or all that are likelier than not, with the chances of all."""
        import numpy as np

        mean = scores.mean(axis=0)
        if card.multiple:
            chosen = [i for i, p in enumerate(1 / (1 + np.exp(-mean))) if p >= 0.5]
            chance = 1 / (1 + np.exp(-mean / temperature))
        else:
            chosen = [int(mean.argmax())]
            mean = mean / temperature
            chance = np.exp(mean - np.logaddexp.reduce(mean))
        return Labels(
            labels=tuple(card.names[i] for i in chosen),
            scores=tuple(round(float(chance[i]), 6) for i in chosen),
            chances={name: round(float(p), 6) for name, p in zip(card.names, chance, strict=True)},
        )

    def claims(self, example: Example, slots: Slots, scores: Scores, card: Card) -> list[Claim]:
        """The likeliest label; where a card allows several, of each that it holds."""
        import numpy as np

        assert isinstance(example.gold, Labels)
        gold, mean = set(map(card.canonical, example.gold.labels)), scores.mean(axis=0)
        right = [card.canonical(name) in gold for name in card.names]
        if card.multiple:
            pairs = zip(mean, right, strict=True)
            return [Claim(np.array([[0, one]]), (1,), held, one >= 0) for one, held in pairs]
        best = int(mean.argmax())
        return [Claim(mean[None, :], (best,), right[best])]


TOKENS, SEQUENCE, WORDS = TokenClassifier(), SequenceClassifier(), WordsHead()
