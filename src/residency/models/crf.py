"""The predictor without a neural network: spans by a CRF over lexical features, labels by the same
library's logistic regression. Needs neither torch nor a base."""

from __future__ import annotations

import math
import time
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

from residency.core.errors import UserError
from residency.core.files import read_json, write_json
from residency.core.part import parse
from residency.core.types import Answer, Example, Prediction, PredictorInfo, Profile, Spans, Value
from residency.locale.tokenise import units
from residency.models import artefact as artefacts
from residency.models import fingerprint, lexical
from residency.models.adapters.crf import Crf
from residency.models.base import Base
from residency.models.lexical import Slots, Terms, word
from residency.models.tokens import Marginals, TokenisedText
from residency.tasks.card import Card
from residency.tasks.families import classifier_of
from residency.tasks.heads import TOKENS

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray


WEIGHTS, FEATURES = "crf.crfsuite", "crf.json"
NO_BASE = Base(id="none", path="", digest="", architecture="encoder")
"""What stands where other models name their base."""
YES, NO = "yes", "no"
"""Outputs for a label of a card that allows several: each label is asked alone."""
CHUNK = 512
"""Examples between two looks at the clock."""
SMALLEST = 1e-9
"""Least probability that is told of an output."""


class LexicalFeatures(Value, frozen=True):
    """What a CRF is besides its weights; kept with them. The terms are words of the notes."""

    method: dict[str, Any]
    outputs: tuple[str, ...]
    """Those of the head, in its order."""
    terms: dict[str, dict[str, int]] = {}
    """A span of the training part -> label -> patients (or documents) in whose notes it stands."""
    lists: dict[str, tuple[str, ...]] = {}
    """Name of a list -> its terms."""

    def settings(self) -> Crf:
        """The method as it was configured."""
        return parse(Crf, self.method, FEATURES)


class LexicalTokeniser:
    """Slots in the place of tokens: what this model reads, and what others count it by."""

    prefix: Sequence[int] = ()
    suffix: Sequence[int] = ()

    def __call__(self, texts: Sequence[str]) -> list[TokenisedText]:
        """Each slot as one token."""
        found = [units(text) for text in texts]
        return [
            TokenisedText(ids=list(range(len(one))), firsts=list(range(len(one))), slots=one)
            for one in found
        ]


class CrfPredictor:
    """Answers span and label tasks from lexical features."""

    def __init__(
        self, tagger: Any, features: LexicalFeatures, card: Card, info: PredictorInfo
    ) -> None:
        self.tagger, self.features, self.card, self.info = tagger, features, card, info
        self.head, self.method = classifier_of(card), features.settings()
        self.tokeniser = LexicalTokeniser()
        self.terms = terms_of(features)
        self.known = frozenset(tagger.labels())

    @classmethod
    def from_artefact(cls, folder: Path, name: str = "tuned") -> CrfPredictor:
        """The model that a training stage saved."""
        found = artefacts.read(folder)
        return cls.of_files(folder, found.task(), found.kinds, name)

    @classmethod
    def of_files(cls, folder: Path, card: Card, method: str, name: str) -> CrfPredictor:
        """The model whose files lie in a folder; raises ``UserError`` where they cannot be read."""
        tagger = crfsuite().Tagger()
        try:
            tagger.open(str(folder / WEIGHTS))
        except ValueError:
            raise UserError(
                f"{folder / WEIGHTS}: cannot be read; restore it, or train again."
            ) from None
        features = read_json(folder / FEATURES, LexicalFeatures)
        size = (folder / WEIGHTS).stat().st_size // 20  # bytes of a weight and its feature's name
        info = PredictorInfo(name=name, base=NO_BASE.id, method=method, parameters=size)
        return cls(tagger, features, card, info)

    def predict(self, examples: Iterable[Example]) -> Iterator[Prediction]:
        """One prediction per example, in order."""
        source = iter(examples)
        while chunk := list(islice(source, CHUNK)):
            started = time.perf_counter()
            answers = self.classify([example.input for example in chunk])
            each = (time.perf_counter() - started) * 1000 / len(chunk)
            for example, (answer, count) in zip(chunk, answers, strict=True):
                yield Prediction(id=example.id, answer=answer, latency_ms=each, tokens=count)

    def classify(self, texts: Sequence[str]) -> list[tuple[Answer, int]]:
        """Answers and slots of texts: spans of the likeliest sequence of tags, each with the
        geometric mean of the probabilities of its tags; labels with the chances of all."""
        return [self._answer(text) for text in texts]

    def marginals(self, texts: Iterable[str]) -> Iterator[Marginals]:
        """The probability of each tag for every slot of each text, in order; for cards of family
        ``spans``."""
        if self.head is not TOKENS:
            raise ValueError(f"card {self.card.name} is not about spans")
        for text in texts:
            slots = units(text)
            yield Marginals(slots=slots, log_probabilities=self.log_marginals(text, slots))

    def log_marginals(self, text: str, slots: Slots | None = None) -> NDArray[np.float32]:
        """log p of each tag for each slot, [slots, tags], in the order of the head's outputs; the
        slots of another model (``Tokeniser``) may take the place of the text's units."""
        slots = units(text) if slots is None else slots
        if slots:
            self.tagger.set(self._features(text, slots))
        return self._probabilities(len(slots))

    def _features(self, text: str, slots: Slots) -> list[list[str]]:
        method = self.method
        return lexical.of_slots(text, slots, method.features, method.window, self.terms)

    def _probabilities(self, count: int) -> NDArray[np.float32]:
        """Of the sequence that the tagger was last given."""
        import numpy as np

        known, marginal = self.known, self.tagger.marginal
        outputs = self.features.outputs
        found = [
            [marginal(name, at) if name in known else 0.0 for name in outputs]
            for at in range(count)
        ]
        values = np.array(found, np.float32).reshape(count, len(outputs))
        return np.log(np.maximum(values, SMALLEST))

    def _answer(self, text: str) -> tuple[Answer, int]:
        slots = units(text)
        if self.head is TOKENS:
            return self._spans(text, slots), len(slots)
        return self._labels(text, slots), len(slots)

    def _spans(self, text: str, slots: Slots) -> Spans:
        """The best sequence as a whole: strict F1 is 0.003 to 0.006 above that of the best tag of
        each slot (training parts of VietBioNER, cMedQANER, NCBI)."""
        if not slots:
            return Spans()
        scores = self.log_marginals(text, slots)
        number = {name: at for at, name in enumerate(self.features.outputs)}
        tags = [number[name] for name in self.tagger.tag()]
        return TOKENS.spans(text, slots, tags, scores, self.card)

    def _labels(self, text: str, slots: Slots) -> Answer:
        found = lexical.of_text(text, slots, self.method.features)
        return self.head.answer(text, slots, self.label_scores(found), self.card)

    def label_scores(self, found: Sequence[str]) -> NDArray[np.float32]:
        """Of each label of a text with these features, [1, labels]: log p, or log-odds where a card
        allows several."""
        import numpy as np

        if not self.card.multiple:
            self.tagger.set([list(found) or ["nothing"]])
            return self._probabilities(1)
        odds = []
        for name in self.features.outputs:
            self.tagger.set([alone(found, name)])
            p = self.tagger.marginal(YES, 0) if YES in self.known else 0.0
            p = min(max(p, SMALLEST), 1 - SMALLEST)
            odds.append(math.log(p / (1 - p)))
        return np.array([odds], np.float32)

    def record(self) -> fingerprint.Fingerprint:
        """What it says of the fixed texts."""
        values = []
        for text in fingerprint.TEXTS:
            slots = units(text)
            if self.head is TOKENS:
                scores = self.log_marginals(text, slots)
            else:
                scores = self.label_scores(lexical.of_text(text, slots, self.method.features))
            values.append(tuple(round(float(one), 6) for one in scores.flatten()))
        return fingerprint.Fingerprint(
            schema=fingerprint.SCHEMA,
            dtype="float32",
            device="cpu",
            ids=tuple(tuple(end for _, end in units(text)) for text in fingerprint.TEXTS),
            values=tuple(values),
            tolerances=dict(fingerprint.TOLERANCES),
        )

    def weights(self) -> list[tuple[str, str, float]]:
        """(feature, output, weight) of every feature of a slot, heaviest first."""
        found = [
            (feature, output, weight)
            for (feature, output), weight in self.tagger.info().state_features.items()
        ]
        return sorted(found, key=lambda one: (-abs(one[2]), one[0], one[1]))


# Training


def save(folder: Path, card: Card, method: Crf, profile: Profile) -> CrfPredictor:
    """Make an artefact of a folder that ``fit`` has written to."""
    predictor = CrfPredictor.of_files(folder, card, method.kind, "tuned")
    write_json(folder / fingerprint.FILE, predictor.record())
    artefact = artefacts.Artefact(
        schema=artefacts.SCHEMA,
        base=NO_BASE,
        method=method.model_dump(mode="json"),
        card=card.model_dump(mode="json"),
        profile=profile,
        files={},
        weights=(WEIGHTS, FEATURES),
    )
    artefacts.seal(folder, artefact)
    return predictor


def fit(examples: Sequence[Example], card: Card, method: Crf, folder: Path) -> dict[str, int]:
    """Learn from examples and write ``WEIGHTS`` and ``FEATURES`` into a folder; how many spans
    could not be said exactly, by reason. Equal examples, equal files.

    Raises ``UserError`` where there is nothing to learn from, or a row's gold does not fit.
    """
    head = classifier_of(card)
    trainer = crfsuite().Trainer("lbfgs", options(method), verbose=False)
    changed: Counter[str] = Counter()
    rows = [(example, units(example.input)) for example in examples]
    rows = [(example, slots) for example, slots in rows if slots]
    if not rows:
        raise UserError(
            f"card {card.name}: there is nothing to train on; the training part is empty or has no "
            "words."
        )
    targets = []
    for example, slots in rows:
        found, reasons = head.targets(example, slots, card)
        targets.append(found)
        changed.update(reasons)
    outputs = head.outputs(card)
    features = LexicalFeatures(
        method=method.model_dump(mode="json"),
        outputs=outputs,
        terms=count_terms(rows) if head is TOKENS and "dictionary" in method.features else {},
        lists={Path(name).stem: read_terms(Path(name)) for name in method.dictionaries},
    )
    terms = terms_of(features)
    owns = own_terms(rows) if features.terms else {}
    for (example, slots), found in zip(rows, targets, strict=True):
        if head is TOKENS:
            own = owns.get(group_of(example), frozenset())
            seen = lexical.of_slots(
                example.input, slots, method.features, method.window, terms, own
            )
            trainer.append(seen, [outputs[int(tag)] for tag in found])
            continue
        whole = lexical.of_text(example.input, slots, method.features)
        if not card.multiple:
            trainer.append([whole], [outputs[int(found[0])]])
            continue
        for name, given in zip(outputs, found, strict=True):
            trainer.append([alone(whole, name)], [YES if given else NO])
    trainer.train(str(folder / WEIGHTS))
    write_json(folder / FEATURES, features)
    return dict(changed)


def options(method: Crf) -> dict[str, Any]:
    """The settings as the library calls them."""
    return {
        "c1": method.c1,
        "c2": method.c2,
        "max_iterations": method.iterations,
        "feature.possible_transitions": True,
    }


def crfsuite() -> Any:
    """The library; raises ``UserError`` where it is not installed."""
    try:
        import pycrfsuite
    except ImportError:
        raise UserError(
            "method.kind: crf: the package python-crfsuite is not installed; run pip install "
            '"residency[train]".'
        ) from None
    return pycrfsuite


def alone(features: Sequence[str], label: str) -> list[str]:
    """The features of a text where one of several labels is asked about: its own copies, so that
    labels share no weight."""
    return [f"{label}|{one}" for one in ("", *features)]


def group_of(example: Example) -> str:
    """The patient or document of an example."""
    return example.group or example.note or example.id


def spans_as_terms(example: Example, slots: Slots) -> set[tuple[str, str]]:
    """(term, label) of each gold span."""
    spans = example.gold.spans if isinstance(example.gold, Spans) else ()
    text = example.input
    return {
        (" ".join(word(text[a:b]) for a, b in _shifted(text, span.start, span.end)), span.label)
        for span in spans
    }


def _shifted(text: str, start: int, end: int) -> list[tuple[int, int]]:
    return [(start + a, start + b) for a, b in units(text[start:end])]


def own_terms(rows: Sequence[tuple[Example, Slots]]) -> dict[str, frozenset[tuple[str, str]]]:
    """The spans of each patient or document."""
    found: defaultdict[str, set[tuple[str, str]]] = defaultdict(set)
    for example, slots in rows:
        found[group_of(example)] |= spans_as_terms(example, slots)
    return {group: frozenset(terms) for group, terms in found.items()}


def count_terms(rows: Sequence[tuple[Example, Slots]]) -> dict[str, dict[str, int]]:
    """Each span of the training part with its labels, and in how many groups it has them."""
    counts: defaultdict[str, Counter[str]] = defaultdict(Counter)
    for terms in own_terms(rows).values():
        for term, label in terms:
            counts[term][label] += 1
    return {term: dict(sorted(labels.items())) for term, labels in sorted(counts.items()) if term}


def read_terms(path: Path) -> tuple[str, ...]:
    """The terms of a file, one a line, as they are compared; raises ``UserError`` where it cannot
    be read."""
    try:
        lines = path.read_text("utf-8").splitlines()
    except (OSError, UnicodeDecodeError):
        raise UserError(
            f"method.dictionaries: {path} cannot be read; name a file in UTF-8 with a term a line."
        ) from None
    terms = (" ".join(word(line[a:b]) for a, b in units(line)) for line in lines)
    return tuple(sorted({term for term in terms if term}))


def terms_of(features: LexicalFeatures) -> list[tuple[str, Terms]]:
    """The dictionary of the training part, then the lists that were given."""
    lists = {name: {term: {"term": 1} for term in terms} for name, terms in features.lists.items()}
    return [
        ("dictionary", Terms(features.terms)),
        *((f"list {n}", Terms(e)) for n, e in lists.items()),
    ]
