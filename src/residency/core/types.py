"""The central value types: immutable structs that flow through plain functions.

Offsets are Unicode code points, half open: ``quote == text[start:end]``. ``repr`` never shows text,
quotes or answers, so that a value that ends in a log or a traceback gives nothing away.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from datetime import datetime
from math import exp, log
from typing import Any, Literal, Protocol, runtime_checkable

import msgspec

Profile = Literal["public", "synthetic", "anonymised", "safe-harbor", "pseudonymised"]
"""How a note became fit for use; decides what may leave the machine (``pseudonymised`` never does
by default)."""

PROFILES: tuple[Profile, ...] = (
    "public",
    "synthetic",
    "anonymised",
    "safe-harbor",
    "pseudonymised",
)
SHOWABLE: frozenset[Profile] = frozenset({"public", "synthetic", "anonymised", "safe-harbor"})
"""Profiles whose text may be shown in a report without being asked for."""


class Value(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """An immutable value; the fields in ``PRIVATE`` are left out of ``repr``."""

    def __repr__(self) -> str:
        shown = ", ".join(
            f"{name}={getattr(self, name)!r}"
            for name in self.__struct_fields__
            if name not in PRIVATE
        )
        return f"{type(self).__name__}({shown})"


PRIVATE = frozenset(
    [
        "text",
        "quote",
        "input",
        "identifiers",
        "sample",
        "turns",
        "fields",
        "gold",
        "answer",
        "question",
        "points",
        "comment",
        "choices",
        "facts",
        "nodes",
        "triples",
        "ids",
        "texts",
        "top",
    ]
)


class Span(Value, frozen=True):
    """A labelled stretch of a text."""

    start: int
    end: int
    label: str
    quote: str = ""
    code: str | None = None
    """Code in a terminology, e.g. ICD-10 ``J44.1``."""
    attributes: tuple[str, ...] = ()
    """``negated``, ``family``, ``uncertain`` ..."""
    by: str | None = None
    """Who or what set it."""
    score: float | None = None


class Relation(Value, frozen=True):
    """A directed, labelled link between two spans of one note, by their positions in
    ``Note.spans``."""

    head: int
    tail: int
    label: str


Role = Literal["system", "user", "assistant"]
ROLES: tuple[Role, ...] = ("system", "user", "assistant")


class Turn(Value, frozen=True):
    """What one side of a conversation says."""

    role: Role
    text: str


class ToolTurn(Turn, frozen=True):
    """A turn with tools: of the assistant, who calls some, or (as a user's) what one of them
    answered."""

    calls: tuple[tuple[str, dict[str, Any]], ...] = ()
    """Names and arguments."""


class Note(Value, frozen=True):
    """A de-identified, public or synthetic document: the only form that training and remote
    predictors accept."""

    id: str
    text: str
    profile: Profile
    group: str = ""
    """Pseudonymous patient (or source document); notes of one group never fall into two parts."""
    lang: str = ""
    kind: str = ""
    written_at: datetime | None = None
    spans: tuple[Span, ...] = ()
    relations: tuple[Relation, ...] = ()
    labels: tuple[str, ...] = ()
    """Labels of the whole note, for classification."""
    turns: tuple[Turn, ...] = ()
    """A conversation: an optional system turn, then user and assistant in turn, the last one the
    assistant's. ``text`` then holds what the user says, so that the same question never falls into
    two parts."""
    fields: dict[str, str] = {}
    """Columns of the row, for a card that puts them into words; they take the place of
    ``turns``."""
    choices: tuple[str, ...] = ()
    """What this row may be answered with, where that is not the same for every row of a task."""
    department: str = ""
    origin: str = "real"
    """``real``, ``synthetic:<generator>`` or ``model:<name>``; of a conversation: who wrote the
    answers."""
    parents: tuple[str, ...] = ()
    """Ids of the notes that it was made from; they and it never fall into two parts."""
    source: str = ""
    """Document that it is a piece of, beyond the patient (an article, a discharge file); never in
    two parts either."""


class RawNote(Value, frozen=True):
    """An identified document as it left the hospital's system; never accepted by training or a
    remote predictor."""

    id: str
    patient: str
    text: str
    lang: str = ""
    kind: str = ""
    written_at: datetime | None = None
    spans: tuple[Span, ...] = ()
    turns: tuple[Turn, ...] = ()
    fields: dict[str, str] = {}
    """As of a ``Note``: what is asked of a model on this machine."""
    choices: tuple[str, ...] = ()
    identifiers: tuple[tuple[str, str], ...] = ()
    """Known identifiers of the row, as (kind, value)."""
    department: str = ""


class Spans(Value, frozen=True, tag="spans"):
    """An answer that is a set of spans."""

    spans: tuple[Span, ...] = ()


class Labels(Value, frozen=True, tag="labels"):
    """An answer that is a set of labels (one of them for single-label tasks)."""

    labels: tuple[str, ...] = ()
    scores: tuple[float, ...] = ()
    chances: dict[str, float] = {}
    """Label -> its probability, of every label that could have been chosen, where the model knows
    them."""


class Text(Value, frozen=True, tag="text"):
    """An answer that is free text."""

    text: str = ""


class Facts(Value, frozen=True, tag="facts"):
    """An answer that is a set of facts, such as (drug, aspirin) or (treats, aspirin, fever): what
    the fields are says the form of the card. They are in the order in which they were said."""

    facts: tuple[tuple[str, ...], ...] = ()


class Node(Value, frozen=True):
    """A node of a decision tree."""

    role: str
    """``C`` asks a condition, ``D`` decides."""
    relation: str = "null"
    """How its triples hang together: ``and``, ``or``, ``null``."""
    triples: tuple[tuple[str, str, str], ...] = ()
    """(subject, relation, object)"""


class Tree(Value, frozen=True, tag="tree"):
    """An answer that is a binary decision tree, its nodes in preorder."""

    nodes: tuple[Node, ...] = ()


Answer = Spans | Labels | Text | Facts | Tree


class Example(Value, frozen=True):
    """One item of one task: what goes in and what should come out."""

    id: str
    task: str
    input: str
    gold: Answer | None = None
    turns: tuple[Turn, ...] = ()
    """For answers: all turns before the one that is wanted, the last of them the user's (whose text
    is ``input``)."""
    group: str = ""
    note: str = ""
    """Id of the note it was made from."""
    lang: str = ""
    kind: str = ""
    department: str = ""
    choices: tuple[str, ...] = ()
    """What it may be answered with; the card's labels where empty."""
    profile: Profile = "pseudonymised"
    origin: str = "real"


class Prediction(Value, frozen=True):
    """What a predictor answered to one example. ``answer is None`` counts as wrong, and ``failure``
    says why."""

    id: str
    answer: Answer | None = None
    text: str = ""
    """The model's raw output, where it writes."""
    failure: str | None = None
    """Why there is no answer; or, beside an answer, what had to be repaired to read it."""
    latency_ms: float | None = None
    tokens: int | None = None
    """Tokens read (an encoder) or written (a causal model)."""
    gold_loss: float | None = None
    """Sum of -log p over the tokens of the gold answer, terminator included, where the predictor
    was asked for it."""
    gold_tokens: int = 0
    """How many tokens that is."""
    likelihood: float | None = None
    """Of a written answer of a calibrated model the mean likelihood of its tokens."""
    sure: float | None = None
    """The chance that it is right, made of that."""
    uncalibrated: Answer | None = None
    """The answer with how sure the model was before calibration, where that is something else."""


class Score(Value, frozen=True):
    """A metric with its interval. ``low``/``high`` are the 95 % bounds unless ``procedure`` says
    otherwise."""

    metric: str
    """e.g. ``span_f1``, ``span_f1/drug``"""
    value: float | None
    """``None`` where the metric does not apply: nothing that it is about occurs."""
    low: float | None = None
    high: float | None = None
    n: int = 0
    """Examples that it was computed on."""
    support: int = 0
    """Gold items (spans, labels) behind it."""
    groups: int = 0
    procedure: str = ""
    """e.g. ``bootstrap over groups, 1000 samples, 95 %``"""
    signature: str = ""
    """How the metric was computed, where that is not one thing: sacrebleu's signature, the
    tokenisation."""


LEAST = 1e-6
"""Least chance that is told of anything: chances have six digits."""


class Calibration(Value, frozen=True):
    """What makes how sure a model says it is as large as how often it is right; it changes no
    answer."""

    temperature: float
    """What its log-odds are divided by."""
    rows: int
    """Rows that it was found on, none of them learned from."""
    held_out: bool = False
    """Whether they are training rows that a training before went without; else the stop part."""
    before: Score | None = None
    after: Score | None = None
    """Expected calibration error on these rows without it and with it."""
    most_error: float | None = None
    """Most of the answers given that may be wrong, as the stage asked."""
    threshold: float | None = None
    """Confidence below which the model abstains so that no more are wrong; ``None`` with
    ``most_error`` where no confidence is high enough."""
    seconds: float = 0.0
    """Of the training before."""
    joules: float | None = None
    shift: float = 0.0
    """What is added to the log-odds of written answers first."""

    def sure(self, likelihood: float) -> float:
        """The chance that a written answer is right whose tokens have this mean likelihood."""
        bounded = min(max(likelihood, LEAST), 1 - LEAST)
        odds = (log(bounded / (1 - bounded)) + self.shift) / self.temperature
        return round(1 / (1 + exp(-odds)), 6)

    @property
    def abstains_below(self) -> float | None:
        """The threshold where one was asked for: above all confidences where none is high
        enough."""
        return (
            None if self.most_error is None else 2.0 if self.threshold is None else self.threshold
        )


class PredictorInfo(Value, frozen=True):
    """What a predictor is: shown in every report."""

    name: str
    """``tuned``, ``base``, ``api:...``"""
    base: str
    method: str = ""
    digest: str = ""
    parameters: int = 0
    trainable: int = 0
    remote: bool = False
    calibration: Calibration | None = None

    @property
    def temperature(self) -> float:
        """What its log-odds are divided by before it says how sure it is."""
        return self.calibration.temperature if self.calibration else 1.0


@runtime_checkable
class Predictor(Protocol):
    """Anything that answers examples, in order, one prediction per example, in constant memory."""

    @property
    def info(self) -> PredictorInfo: ...

    def predict(self, examples: Iterable[Example]) -> Iterator[Prediction]: ...


PartName = Literal["train", "dev", "test"]
PARTS: tuple[PartName, ...] = ("train", "dev", "test")


class Split(Value, frozen=True):
    """Which part each note belongs to. A group (patient) is never in two parts."""

    seed: int
    parts: dict[str, PartName]
    """Note id -> part."""
    how: str = ""
    """``given`` or ``random by group``, with the shares."""
    balance: dict[str, dict[str, int]] = {}
    """Label -> part -> count."""
    digest: str = ""


class Bin(Value, frozen=True):
    """A point of a reliability curve: items whose stated chance lies in a part of 0..1."""

    start: float
    end: float
    n: int
    chance: float
    """Mean of the chances that were stated."""
    right: float
    """Share that was right, with its interval."""
    low: float
    high: float


class Screening(Value, frozen=True):
    """How well one label is told from all others."""

    label: str
    tp: int
    fp: int
    fn: int
    tn: int
    scores: tuple[Score, ...]
    """``sensitivity``, ``specificity``, ``ppv``, ``npv``, and ``auroc`` where chances are known."""


class Comparison(Value, frozen=True):
    """A paired test of two systems on the same items."""

    metric: str
    a: str
    b: str
    difference: float
    """value of b minus value of a"""
    low: float
    high: float
    p: float
    procedure: str
    p_corrected: float | None = None
    """p corrected for the number of comparisons of the report (Holm), where there are several."""


class ErrorItem(Value, frozen=True):
    """One thing that a system got wrong: offsets and labels, the text apart so that it can be
    withheld."""

    example: str
    kind: str
    """``missed``, ``invented``, ``boundary``, ``type``"""
    gold: str = ""
    predicted: str = ""
    start: int = 0
    end: int = 0
    gold_at: tuple[int, int] = (0, 0)
    """Start and end in the reference; 0, 0 where it holds nothing there."""
    said_at: tuple[int, int] = (0, 0)
    """Start and end as the system has them."""
    text: str = ""
    """The sentence around it, empty where it may not be shown."""


class AnswerItem(Value, frozen=True):
    """One written answer beside its reference; texts empty where they may not be shown."""

    example: str
    input: str = ""
    gold: str = ""
    answer: str = ""
    failure: str = ""
    score: float | None = 0.0
    """The card's main metric on this example alone; ``None`` where it does not apply."""


class Report(Value, frozen=True):
    """The result of one system on one task."""

    system: PredictorInfo
    task: str
    part: str
    data_digest: str
    n: int
    groups: int
    scores: tuple[Score, ...]
    comparisons: tuple[Comparison, ...] = ()
    slices: dict[str, tuple[Score, ...]] = {}
    """``lang=vi`` -> scores"""
    confusion: dict[str, dict[str, int]] = {}
    """gold type -> predicted type -> count; ``-`` stands for nothing."""
    errors: tuple[ErrorItem, ...] = ()
    failures: int = 0
    """Answers that could not be parsed; each counts as wrong."""
    repaired: int = 0
    """Answers that had to be repaired to be read; counted as far as they could be."""
    answers: tuple[AnswerItem, ...] = ()
    """Written answers: the same examples for every system of a run, so that they can stand side by
    side."""
    references: dict[str, int] = {}
    """Who wrote the references (``real``, ``model:NAME``, ``synthetic:NAME``) -> examples."""
    screening: tuple[Screening, ...] = ()
    """Choosing labels: each label as a test of its own."""
    calibration: tuple[Bin, ...] = ()
    """Where chances are known: of each span, of the chosen label, of every label where several may
    hold."""
    calibration_error: Score | None = None
    uncalibrated: tuple[Bin, ...] = ()
    uncalibrated_error: Score | None = None
    """The same before calibration, where the model is calibrated."""
    abstention: tuple[Score, ...] = ()
    """``coverage`` and ``error`` at the confidence below which the model abstains, where it
    does."""
    seconds: float = 0.0
    """Wall-clock time of prediction."""
    baselines: tuple[Report, ...] = ()
    """Of questions about harm that people or a model judged: what the same judge says of one
    sentence to every question."""


class Ratings(Value, frozen=True):
    """Marks that people and judge models gave to written answers."""

    task: str
    most: int
    """Marks go from 0 to this."""
    systems: dict[str, tuple[Score, ...]]
    """System -> its mean mark by people (``mark/people``) and by each model
    (``mark/model:NAME``)."""
    agreement: tuple[Score, ...]
    """Krippendorff's alpha for interval data: between people, and of each model with their mean."""
    raters: dict[str, int]
    """Who marked -> how many answers."""


class MaskProof(Value, frozen=True):
    """Which tokens are trained. A run in which a row has none is refused."""

    rows: int
    tokens: int
    trained: int
    """Tokens that carry a loss."""
    labels: dict[str, int] = {}
    """Target -> how many trained tokens carry it."""
    ceiling: float = 1.0
    """Strict F1 of the gold spans after they have become tags and back: what no model can exceed
    with this tokenizer."""
    unknown: float = 0.0
    """Share of the tokens that stand for what the tokenizer does not know."""
    sample: tuple[tuple[str, str], ...] = ()
    """The tokens of one row with their targets (empty target: not trained); only where the profile
    lets it be shown."""


class StageResult(Value, frozen=True):
    """What a training stage did."""

    name: str
    """``1-lora``"""
    method: str
    settings: dict[str, str]
    """Every setting as it was used, with ``auto`` ones resolved."""
    parameters: int
    trainable: int
    metric: str
    best: float
    """Best value of the metric on the stop part (dev), never on what is reported."""
    best_epoch: float
    stopped: str
    """Why training ended."""
    history: tuple[dict[str, float], ...]
    """One dict per logged step or epoch: ``step``, ``epoch``, and ``loss`` and ``learning_rate``,
    or the dev ``metric``."""
    seconds: float
    tokens_per_second: float
    padding_share: float
    peak_memory_mb: float
    device: str
    dtype: str
    mask: MaskProof
    planned_memory_mb: float = 0.0
    """Peak as it was estimated before; 0 where it was not."""
    processes: int = 1
    """That trained together."""
    recovered: str = ""
    """What went wrong on the way and was mended."""
    joules: float | None = None
    """Energy of the processor's packages and the GPUs while it trained; None where the machine does
    not say."""
    heaviest: dict[str, tuple[tuple[str, float], ...]] = {}
    """Lexical models: output -> the features that speak most for it, with their weights. They hold
    words of the notes."""


class PartSummary(Value, frozen=True):
    """Size of one part of a data set."""

    notes: int = 0
    groups: int = 0
    characters: int = 0
    labels: dict[str, int] = {}
    """Label -> spans (or notes, for classification)."""


class DataSummary(Value, frozen=True):
    """What became of one data set: every input row is accounted for."""

    name: str
    files: tuple[str, ...]
    format: str
    profile: Profile
    lang: str
    split: str
    """How the parts came about."""
    parts: dict[str, PartSummary]
    ledger: dict[str, dict[str, int]]
    """status -> reason -> rows"""
    warnings: tuple[str, ...] = ()
    """What stands in two parts, or keeps the parts from being alike."""


class Cost(Value, frozen=True):
    """What a system takes: to make it, and to ask it."""

    system: str
    method: str = ""
    trainable: int = 0
    train_seconds: float = 0.0
    train_memory_mb: float = 0.0
    """Most memory while it was trained; of the GPU where there was one."""
    train_joules: float | None = None
    """Energy of the machine's processors and GPUs while it was trained, where they can be read."""
    ms_per_100_tokens: float | None = None
    """Of answering: per 100 tokens read (a model that marks) or written (one that writes)."""
    hardware: str = ""


class RunFacts(Value, frozen=True):
    """Everything that a run's report shows."""

    name: str
    folder: str
    created: str
    recipe: str
    """The recipe as YAML."""
    base: str
    base_digest: str
    hardware: str
    packages: dict[str, str]
    data: tuple[DataSummary, ...]
    stages: tuple[StageResult, ...]
    reports: tuple[Report, ...]
    """Per task first the baselines, then the tuned system."""
    costs: tuple[Cost, ...] = ()
    """Of a comparison: what each system takes."""
    ratings: tuple[Ratings, ...] = ()
    """Marks of written answers, where there are any."""
    caveats: tuple[str, ...] = ()
    language: str = "en"
    """What the report is written in."""
    show_text: bool = False
    """Whether the text of errors may be shown (decided by profile)."""
