"""The predictor without a neural network: spans by a CRF over lexical features, labels by the same
library's logistic regression. Needs neither torch nor a base."""

from __future__ import annotations

import math
import struct
import time
from collections import Counter, defaultdict
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import msgspec

from residency.core.errors import UserError
from residency.core.files import digest, read_json, write_bytes, write_json
from residency.core.part import parse
from residency.core.run_folder import packages
from residency.core.types import (
    Answer,
    Calibration,
    Example,
    Prediction,
    PredictorInfo,
    Profile,
    Spans,
    Value,
)
from residency.core.units import units
from residency.metrics.calibration import Claim
from residency.models import artefact as artefacts
from residency.models import fingerprint, lexical
from residency.models.adapters.crf import Crf
from residency.models.base import NO_BASE
from residency.models.lexical import Slots, Terms, word
from residency.models.tokens import Marginals, TokenisedText
from residency.tasks.bio import decode
from residency.tasks.card import Card
from residency.tasks.families import classifier_of
from residency.tasks.heads import SEQUENCE, TOKENS, Head

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray


WEIGHTS, FEATURES = "crf.crfsuite", "crf.json"
YES, NO = "yes", "no"
"""Outputs for a label of a card that allows several: each label is asked alone."""
Seen = list[list[str]]
"""Features of each place of a sequence."""
Own = frozenset[tuple[str, str]]
"""Terms of a text's own patient or document, with their labels."""
SMALLEST = 1e-9
"""Least probability that is told of an output."""
BLANK = "-"
"""What stands where the name of a forgotten feature stood."""


class LexicalFeatures(Value, frozen=True):
    """What a CRF is besides its weights; kept with them. The terms are words of the notes."""

    method: dict[str, Any]
    outputs: tuple[str, ...]
    """Those of the head, in its order."""
    terms: dict[str, dict[str, int]] = {}
    """A span of the training part -> label -> patients (or documents) in whose notes it stands."""
    lists: dict[str, tuple[str, ...]] = {}
    """Name of a list -> its terms."""
    parameters: int = 0
    """Weights that are not 0."""
    learned_from: str = ""
    """Digest of the rows, settings and versions that it was fitted with; empty where it was changed
    since."""


class Seer:
    """How features are made: the method and its dictionaries."""

    def __init__(self, features: LexicalFeatures) -> None:
        lists = {name: {t: {"term": 1} for t in one} for name, one in features.lists.items()}
        self.method: Crf = parse(Crf, features.method, FEATURES)
        self.terms = [
            ("dictionary", Terms(features.terms)),
            *((f"list {name}", Terms(entries)) for name, entries in lists.items()),
        ]


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

    def count(self, text: str) -> int:
        """Slots of a text."""
        return len(units(text))


class Way:
    """How one kind of classifier is read off lexical features."""

    def terms(self, row: Learned, card: Card) -> set[tuple[str, str]]:
        """(term, label) of what an example teaches the dictionary; nothing unless it is spans."""
        return set()

    def rows(
        self, seen: Seen, targets: Sequence[float], outputs: Sequence[str], several: bool
    ) -> Iterator[tuple[list[list[str]], list[str]]]:
        """What the library learns from an example: sequences of features with their outputs."""
        raise NotImplementedError

    def features(self, text: str, slots: Slots, seen_by: Seer, own: Own = frozenset()) -> Seen:
        """The features of a text."""
        raise NotImplementedError

    def scores(self, model: CrfPredictor, text: str, slots: Slots) -> NDArray[np.float32]:
        """log p, [slots, tags] or [1, labels]; of labels that do not exclude each other
        log-odds."""
        raise NotImplementedError

    def answer(
        self, model: CrfPredictor, text: str, slots: Slots, temperature: float = 1.0
    ) -> Answer:
        """The answer to a text, and how sure the model is of it at a temperature."""
        raise NotImplementedError

    def claims(self, model: CrfPredictor, example: Example) -> list[Claim]:
        """What the model says of a row with gold, with whether it is right."""
        slots = units(example.input)
        scores = self.scores(model, example.input, slots)
        return classifier_of(model.card).claims(example, slots, scores, model.card)


class Tags(Way):
    """A chain of tags: spans."""

    def terms(self, row: Learned, card: Card) -> set[tuple[str, str]]:
        tags, text = [int(tag) for tag in row.targets], row.example.input
        spans = decode(text, tags, row.slots, card.names)
        return {(as_term(span.quote), span.label) for span in spans}

    def rows(
        self, seen: Seen, targets: Sequence[float], outputs: Sequence[str], several: bool
    ) -> Iterator[tuple[list[list[str]], list[str]]]:
        yield seen, [outputs[int(tag)] for tag in targets]

    def features(self, text: str, slots: Slots, seen_by: Seer, own: Own = frozenset()) -> Seen:
        method = seen_by.method
        return lexical.of_slots(text, slots, method.features, method.window, seen_by.terms, own)

    def scores(self, model: CrfPredictor, text: str, slots: Slots) -> NDArray[np.float32]:
        if slots:
            model.tagger.set(self.features(text, slots, model.seer))
        return model.probabilities(len(slots))

    def answer(
        self, model: CrfPredictor, text: str, slots: Slots, temperature: float = 1.0
    ) -> Answer:
        """The likeliest sequence as a whole: strict F1 is 0.003 to 0.006 above that of the best tag
        of each slot (training parts of VietBioNER, cMedQANER, NCBI)."""
        if not slots:
            return Spans()
        scores = self.scores(model, text, slots)
        return TOKENS.spans(text, slots, self._tags(model), scores, model.card, temperature)

    def claims(self, model: CrfPredictor, example: Example) -> list[Claim]:
        slots = units(example.input)
        if not slots:
            return []
        scores = self.scores(model, example.input, slots)
        return TOKENS.claimed(example, slots, self._tags(model), scores, model.card)

    def _tags(self, model: CrfPredictor) -> list[int]:
        """Those of the sequence that the tagger was last given."""
        number = {name: at for at, name in enumerate(model.features.outputs)}
        return [number[name] for name in model.tagger.tag()]


class Whole(Way):
    """A chain of one place, which is a logistic regression: labels."""

    def rows(
        self, seen: Seen, targets: Sequence[float], outputs: Sequence[str], several: bool
    ) -> Iterator[tuple[list[list[str]], list[str]]]:
        if not several:
            yield seen, [outputs[int(targets[0])]]
            return
        for name, given in zip(outputs, targets, strict=True):
            yield [alone(seen[0], name)], [YES if given else NO]

    def features(self, text: str, slots: Slots, seen_by: Seer, own: Own = frozenset()) -> Seen:
        return [lexical.of_text(text, slots, seen_by.method.features) or ["no words"]]

    def scores(self, model: CrfPredictor, text: str, slots: Slots) -> NDArray[np.float32]:
        import numpy as np

        seen = self.features(text, slots, model.seer)
        if not model.card.multiple:
            model.tagger.set(seen)
            return model.probabilities(1)
        odds = []
        for name in model.features.outputs:
            model.tagger.set([alone(seen[0], name)])
            p = model.tagger.marginal(YES, 0) if YES in model.known else 0.0
            p = min(max(p, SMALLEST), 1 - SMALLEST)
            odds.append(math.log(p / (1 - p)))
        return np.array([odds], np.float32)

    def answer(
        self, model: CrfPredictor, text: str, slots: Slots, temperature: float = 1.0
    ) -> Answer:
        scores = self.scores(model, text, slots)
        return SEQUENCE.answer(text, slots, scores, model.card, temperature=temperature)


WAYS: dict[Head, Way] = {TOKENS: Tags(), SEQUENCE: Whole()}


def way_of(card: Card) -> Way:
    """How a card is answered; raises ``UserError`` where its answers are written, or given by a
    classifier of another package."""
    way = WAYS.get(classifier_of(card))
    if way is None:
        raise UserError(
            f"method.kind: crf: answers families spans and labels, and card {card.name} is of "
            f"{card.family}; use lora or full."
        )
    return way


class CrfPredictor:
    """Answers span and label tasks from lexical features."""

    def __init__(
        self, tagger: Any, features: LexicalFeatures, card: Card, info: PredictorInfo
    ) -> None:
        self.tagger, self.features, self.card, self.info = tagger, features, card, info
        self.way = way_of(card)
        self.tokeniser, self.seer = LexicalTokeniser(), Seer(features)
        self.known = frozenset(tagger.labels())

    @classmethod
    def from_artefact(cls, folder: Path, name: str = "tuned") -> CrfPredictor:
        """The model that a training stage saved."""
        found = artefacts.read(folder)
        made = cls.of_files(folder, found.task(), found.kinds, name)
        made.info = msgspec.structs.replace(made.info, calibration=found.calibration)
        return made

    @classmethod
    def of_files(cls, folder: Path, card: Card, method: str, name: str) -> CrfPredictor:
        """The model whose files lie in a folder; raises ``UserError`` where they cannot be read."""
        tagger = crfsuite().Tagger()
        try:
            tagger.open(str(folder / WEIGHTS))
        except (ValueError, OSError):
            raise UserError(
                f"{folder / WEIGHTS}: cannot be read; restore it, or train again."
            ) from None
        features = read_json(folder / FEATURES, LexicalFeatures)
        info = PredictorInfo(
            name=name, base=NO_BASE.id, method=method, parameters=features.parameters
        )
        return cls(tagger, features, card, info)

    def predict(self, examples: Iterable[Example]) -> Iterator[Prediction]:
        """One prediction per example, in order."""
        for example in examples:
            started = time.perf_counter()
            ((answer, count),) = self.classify([example.input])
            took = (time.perf_counter() - started) * 1000
            raw = None
            if self.info.temperature != 1:
                raw = self.way.answer(self, example.input, units(example.input))
            yield Prediction(
                id=example.id, answer=answer, latency_ms=took, tokens=count, uncalibrated=raw
            )

    def claims(self, examples: Iterable[Example]) -> Iterator[Claim]:
        """What it says of rows with gold, piece by piece, each with whether it is right."""
        for example in examples:
            for claim in self.way.claims(self, example):
                yield claim._replace(group=group_of(example))

    def classify(self, texts: Sequence[str]) -> list[tuple[Answer, int]]:
        """Answers and slots of texts: spans of the likeliest sequence of tags, each with the
        geometric mean of the probabilities of its tags; labels with the chances of all."""
        read, temperature = [(text, units(text)) for text in texts], self.info.temperature
        return [
            (self.way.answer(self, text, slots, temperature), len(slots)) for text, slots in read
        ]

    def marginals(self, texts: Iterable[str]) -> Iterator[Marginals]:
        """The probability of each tag for every slot of each text, in order; for cards of family
        ``spans``."""
        for text in texts:
            slots = units(text)
            yield Marginals(slots=slots, log_probabilities=self.log_marginals(text, slots))

    def log_marginals(self, text: str, slots: Slots | None = None) -> NDArray[np.float32]:
        """log p of each tag for each slot, [slots, tags], in the order of the head's outputs; the
        slots of another model (``Tokeniser``) may take the place of the text's units."""
        return self.way.scores(self, text, units(text) if slots is None else slots)

    def probabilities(self, count: int) -> NDArray[np.float32]:
        """log p of each output at each of so many places of the sequence that the tagger was last
        given."""
        import numpy as np

        known, marginal = self.known, self.tagger.marginal
        outputs = self.features.outputs
        found = [
            [marginal(name, at) if name in known else 0.0 for name in outputs]
            for at in range(count)
        ]
        values = np.array(found, np.float32).reshape(count, len(outputs))
        return np.log(np.maximum(values, SMALLEST))

    def record(self) -> fingerprint.Fingerprint:
        """What it says of the fixed texts."""
        read = [(text, units(text)) for text in fingerprint.TEXTS]
        said = [self.way.scores(self, text, slots).flatten() for text, slots in read]
        return fingerprint.Fingerprint(
            schema=fingerprint.SCHEMA,
            dtype="float32",
            device="cpu",
            ids=tuple(tuple(end for _, end in slots) for _, slots in read),
            values=tuple(tuple(round(float(one), 6) for one in found) for found in said),
            tolerances=dict(fingerprint.TOLERANCES),
        )

    def heaviest(self, most: int = 12) -> dict[str, tuple[tuple[str, float], ...]]:
        """Output -> the features that speak most for it, with their weights. They hold words of the
        notes."""
        found: defaultdict[str, list[tuple[float, str]]] = defaultdict(list)
        for (feature, target), weight in self.tagger.info().state_features.items():
            if weight > 0 and feature.strip(BLANK):
                found[target].append((-weight, feature))
        return {
            target: tuple((name, round(-weight, 3)) for weight, name in sorted(each)[:most])
            for target, each in sorted(found.items())
        }


# Training


def save(
    folder: Path,
    card: Card,
    method: Crf,
    profile: Profile,
    calibration: Calibration | None = None,
) -> CrfPredictor:
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
        calibration=calibration,
    )
    artefacts.seal(folder, artefact)
    return predictor


class Fitted(NamedTuple):
    """What came of learning."""

    changed: dict[str, int]
    """Reason -> spans that could not be said exactly."""
    outputs: dict[str, int]
    """Output -> slots (or texts) that have it."""
    slots: int
    parameters: int
    losses: tuple[float, ...]
    """By iteration."""


def fit(examples: Sequence[Example], card: Card, method: Crf, folder: Path) -> Fitted:
    """Learn from examples and write ``WEIGHTS`` and ``FEATURES`` into a folder. Equal examples,
    equal files.

    Raises ``UserError`` where there is nothing to learn from, or a row's gold does not fit.
    """
    way, head = way_of(card), classifier_of(card)
    trainer = crfsuite().Trainer("lbfgs", options(method), verbose=False)
    rows = learned(examples, card)
    outputs = Counter(name for row in rows for name in head.trained(list(row.targets), card))
    owns = own_terms(rows, card) if "dictionary" in method.features else {}
    features = LexicalFeatures(
        method=method.model_dump(mode="json"),
        outputs=head.outputs(card),
        terms=count_terms(owns),
        lists={Path(name).stem: read_terms(Path(name)) for name in method.dictionaries},
        learned_from=_origin(rows, card, method),
    )
    seer = Seer(features)
    for row in rows:
        own = owns.get(row.group, frozenset())
        seen = way.features(row.example.input, row.slots, seer, own)
        for sequence, said in way.rows(seen, row.targets, features.outputs, card.multiple):
            trainer.append(sequence, said)
    trainer.train(str(folder / WEIGHTS))
    losses = tuple(float(one["loss"]) for one in trainer.logparser.iterations)
    kept = int(trainer.logparser.last_iteration["active_features"]) if losses else 0
    write_json(folder / FEATURES, msgspec.structs.replace(features, parameters=kept))
    slots, changed = 0, Counter[str]()
    for row in rows:
        slots += len(row.slots)
        changed.update(row.changed)
    return Fitted(dict(changed), dict(sorted(outputs.items())), slots, kept, losses)


def is_fitted(folder: Path, examples: Sequence[Example], card: Card, method: Crf) -> bool:
    """Whether a folder holds, unchanged, what ``fit`` would write of these examples."""
    path = folder / FEATURES
    known = read_json(path, LexicalFeatures).learned_from if path.is_file() else ""
    return bool(known) and known == _origin(learned(examples, card), card, method)


def _origin(rows: Sequence[Learned], card: Card, method: Crf) -> str:
    """Digest of all that the files of ``fit`` depend on. It tells nobody what a row says: it is
    one number of all rows together."""
    return digest(
        {
            "rows": [
                [one.example.input, [float(t) for t in one.targets], one.group] for one in rows
            ],
            "outputs": classifier_of(card).outputs(card),
            "several": card.multiple,
            "method": method.model_dump(mode="json"),
            "lists": [read_terms(Path(name)) for name in method.dictionaries],
            "versions": [crfsuite().CRFSUITE_VERSION, packages().get("residency", "")],
        }
    )


class Learned(NamedTuple):
    """An example that is learned from."""

    example: Example
    slots: Slots
    targets: Sequence[float]
    changed: dict[str, int]
    """Reason -> spans that could not be said exactly."""

    @property
    def group(self) -> str:
        """Its patient or document."""
        return group_of(self.example)


def group_of(example: Example) -> str:
    """The patient or document that an example is of."""
    return example.group or example.note or example.id


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


def learned(examples: Sequence[Example], card: Card) -> list[Learned]:
    """Examples with their slots and targets; those without words are left out.

    Raises ``UserError`` where none are left.
    """
    head = classifier_of(card)
    read = [(example, units(example.input)) for example in examples]
    rows = [
        Learned(example, slots, *head.targets(example, slots, card))
        for example, slots in read
        if slots
    ]
    if not rows:
        raise UserError(
            f"card {card.name}: there is nothing to train on; the training part is empty or has no "
            "words."
        )
    return rows


def own_terms(rows: Sequence[Learned], card: Card) -> dict[str, Own]:
    """The spans of each patient or document."""
    way = way_of(card)
    found: defaultdict[str, set[tuple[str, str]]] = defaultdict(set)
    for row in rows:
        found[row.group] |= way.terms(row, card)
    return {group: frozenset(terms) for group, terms in found.items() if terms}


def count_terms(owns: Mapping[str, Own]) -> dict[str, dict[str, int]]:
    """Each span of the training part with its labels, and in how many groups it has them."""
    counts: defaultdict[str, Counter[str]] = defaultdict(Counter)
    for terms in owns.values():
        for term, label in terms:
            counts[term][label] += 1
    return {term: dict(sorted(labels.items())) for term, labels in sorted(counts.items())}


def forget(
    folder: Path, quotes: Collection[str], own: Sequence[str], others: Sequence[str]
) -> None:
    """Take labelled spans out of the dictionaries below a folder, and out of its weights the
    features that only a patient's ``own`` texts have: nobody else's answers rest on them."""
    gone = {as_term(quote) for quote in quotes}
    for path in sorted(folder.rglob(FEATURES)):
        features = read_json(path, LexicalFeatures)
        kept = {term: counts for term, counts in features.terms.items() if term not in gone}
        write_json(path, msgspec.structs.replace(features, terms=kept, learned_from=""))
        method: Crf = parse(Crf, features.method, FEATURES)
        names = {
            name for text in own for name in lexical.names(text, method.features, method.window)
        }
        for text in (*fingerprint.TEXTS, *others) if names else ():
            names -= lexical.names(text, method.features, method.window)
        asked_alone = {name for label in features.outputs for name in alone([*names], label)[1:]}
        _blank(path.with_name(WEIGHTS), names | asked_alone)


def _blank(path: Path, names: Collection[str]) -> None:
    """Write ``BLANK`` over the names of features in a file of weights: they are found no more, and
    all else stands where it stood.

    The file as CRFsuite 0.12 writes it: at byte 24 the number of features' names, at 36 where their
    table begins; a table is a head of 24 bytes, 256 pairs of numbers, and the names, each with its
    number and its length before it and a zero behind it.
    """
    data = bytearray(path.read_bytes())
    (count,), (at,) = struct.unpack_from("<I", data, 24), struct.unpack_from("<I", data, 36)
    at += 24 + 256 * 8
    for _ in range(count):
        (size,) = struct.unpack_from("<I", data, at + 4)
        at += 8
        if data[at : at + size - 1].decode("utf-8", "replace") in names:
            data[at : at + size - 1] = BLANK.encode() * (size - 1)
        at += size
    write_bytes(path, bytes(data))


def as_term(text: str) -> str:
    """A stretch of text as dictionaries hold it."""
    return " ".join(word(text[start:end]) for start, end in units(text))


def read_terms(path: Path) -> tuple[str, ...]:
    """The terms of a file, one a line, as they are compared; raises ``UserError`` where it cannot
    be read."""
    try:
        lines = path.read_text("utf-8").splitlines()
    except (OSError, UnicodeDecodeError):
        raise UserError(
            f"method.dictionaries: {path} cannot be read; name a file in UTF-8 with a term a line."
        ) from None
    return tuple(sorted({term for line in lines if (term := as_term(line))}))
