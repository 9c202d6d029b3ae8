"""A tagger for identifiers out of an encoder: learned on invented notes, measured on another world,
written in 8 bits."""

from __future__ import annotations

import random
import shutil
from collections.abc import Sequence
from pathlib import Path

from residency.core.files import file_digest, whole_folder, write_json
from residency.core.progress import Silent, Tracker
from residency.core.types import Example, Span, Spans
from residency.deid.tagger import (
    FILE,
    GRAPH,
    KIND_OF,
    LABELS,
    SCHEMA,
    TOKENIZER,
    Measured,
    TaggerCard,
)
from residency.models.base import Base, BaseModelSettings, resolve
from residency.synth import identified
from residency.tasks.card import Card

LANGUAGES = ("vi", "zh", "en")
LAYERS, VOCABULARY = 8, 20_000
NEGATIVE = 0.12
"""Share of pieces that are lines of real text without identifiers, where such are given."""
BATCH = 16
MASK, REVIEW = 0.5, 0.25
MIXED = 12
"""Of so many pieces one is two, mostly in two languages."""


def card() -> Card:
    """What the tagger is trained to mark."""
    labels = [{"name": label} for label in LABELS]
    return Card.model_validate({"name": "identifiers", "family": "spans", "labels": labels})


def examples(
    count: int, seed: int, negatives: Path | None, languages: Sequence[str] = LANGUAGES
) -> list[Example]:
    """``count`` pieces in all languages alike, in random order."""
    rng = random.Random(seed)
    found: list[Example] = []
    real = identified.lines(negatives, languages) if negatives else {}
    for lang in languages:
        each = count // len(languages)
        plain = real.get(lang, [])
        plain = rng.sample(plain, min(len(plain), round(each * NEGATIVE)))
        found += [_example(identified.Piece(text, ()), lang) for text in plain]
        made = identified.pieces(lang, each - len(plain), seed)
        found += [_example(piece, lang) for piece in made]
    rng.shuffle(found)
    for number in range(1, len(found), MIXED):  # a note in two languages
        found[number] = _joined(found[number - 1], found[number])
    return [
        Example(id=f"{number}", task="identifiers", input=one.input, gold=one.gold, lang=one.lang)
        for number, one in enumerate(found)
    ]


def _example(piece: identified.Piece, lang: str) -> Example:
    spans = [
        Span(start=start, end=end, label=KIND_OF[kind], quote=piece.text[start:end])
        for start, end, kind in piece.marks
        if kind in KIND_OF
    ]
    return Example(id="", task="identifiers", input=piece.text, gold=Spans(tuple(spans)), lang=lang)


def _joined(one: Example, other: Example) -> Example:
    """Two pieces, one behind the other."""
    assert isinstance(one.gold, Spans) and isinstance(other.gold, Spans)
    by = len(one.input) + 1
    moved = [
        Span(start=s.start + by, end=s.end + by, label=s.label, quote=s.quote)
        for s in other.gold.spans
    ]
    gold = Spans((*one.gold.spans, *moved))
    text = f"{one.input} {other.input}"
    return Example(id="", task="identifiers", input=text, gold=gold, lang=one.lang)


def small_base(base: str, texts: Sequence[str], folder: Path) -> Base:
    """The base with fewer layers and pieces, made once."""
    from residency.models.trim import trim

    if not folder.is_dir():
        found = resolve(BaseModelSettings(id=base), Path())
        trim(Path(found.path), folder, texts, LAYERS, VOCABULARY)
    return resolve(BaseModelSettings(id=str(folder), window=320), Path())


def train(
    base: str,
    work: Path,
    *,
    steps: int,
    seed: int = 0,
    negatives: Path | None = None,
    tracker: Tracker | None = None,
) -> Path:
    """Train a tagger in ``work``, going on where it was; the folder of its artefact."""
    from residency.train.job import TrainingJob
    from residency.train.stage import Stage
    from residency.train.trainer import train as train_stage

    tracker = tracker or Silent()
    rows = examples(steps * BATCH, seed, negatives)
    real = identified.lines(negatives, LANGUAGES) if negatives else {}
    texts = (*(row.input for row in rows), *(line for lines in real.values() for line in lines))
    small = small_base(base, texts, work / "base")
    out = work / "artefact"
    out.mkdir(parents=True, exist_ok=True)
    stage = Stage.model_validate(
        {
            "method": {"kind": "freeze", "last": "all"},
            "lexical": "off",
            "steps": steps,
            "batch": BATCH,
            "learning_rate": 3e-4,
            "head_learning_rate": 2e-3,
            "stop": None,
        }
    )
    tracker.start("training the tagger")
    result, _ = train_stage(
        TrainingJob(
            stage=stage,
            name="tagger",
            base=small,
            card=card(),
            train=rows,
            dev=(),
            seed=seed,
            profile="synthetic",
            work=work / "checkpoints",
            out=out,
            progress=tracker.update,
        )
    )
    tracker.end(str(result))
    return out


def package(artefact: Path, out: Path, *, steps: int, seed: int, measured: tuple[Measured, ...]) -> TaggerCard:
    """Write a trained tagger in 8 bits to a new folder."""
    from residency.export.onnx import needs, write_graph, write_int8
    from residency.models import artefact as artefacts

    needs()
    found, model, tokeniser = artefacts.load(artefact)
    with whole_folder(out) as partial:
        write_graph(model, partial / "fp32.onnx")
        write_int8(partial / "fp32.onnx", partial / GRAPH)
        (partial / "fp32.onnx").unlink()
        shutil.copyfile(Path(found.base.path) / TOKENIZER, partial / TOKENIZER)
        shutil.copyfile(Path(found.base.path) / "LICENSE", partial / "LICENSE")
        written = TaggerCard(
            schema=SCHEMA,
            labels=LABELS,
            window=tokeniser.longest,
            mask=MASK,
            review=REVIEW,
            files={name: file_digest(partial / name) for name in (GRAPH, TOKENIZER)},
            base="multilingual-e5-small",
            layers=model.config.num_hidden_layers,
            pieces=model.config.vocab_size,
            steps=steps,
            seed=seed,
            measured=measured,
        )
        write_json(partial / FILE, written)
    return written
