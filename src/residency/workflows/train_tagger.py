"""A tagger for identifiers out of an encoder: learned on invented notes, measured on another world,
written in 8 bits."""

from __future__ import annotations

import random
import shutil
from collections.abc import Sequence
from pathlib import Path

import msgspec

from residency.core.files import file_digest, whole_folder, write_json
from residency.core.progress import Silent, Tracker
from residency.core.types import Example, Span, Spans
from residency.deid.dates import dates_of
from residency.deid.engine import normal_form
from residency.deid.find import Finding, resolve
from residency.deid.options import Deid
from residency.deid.rules import rules_of
from residency.deid.tagger import (
    FILE,
    GRAPH,
    KIND_OF,
    LABELS,
    SCHEMA,
    TOKENIZER,
    IdentifierTagger,
    Measured,
    ReviewedTagger,
    TaggerCard,
)
from residency.deid.view import View
from residency.models import base as bases
from residency.synth import identified
from residency.synth.hospital_notes import notes as hospital_notes
from residency.tasks.card import Card

LANGUAGES = ("vi", "zh", "en")
LAYERS, VOCABULARY = 8, 20_000
NEGATIVE = 0.2
"""Share of pieces that are lines of real text without identifiers, where such are given."""
BATCH = 16
MASK, REVIEW = 0.7, 0.4
STAGE = {
    "method": {"kind": "freeze", "last": "all"},
    "lexical": "off",
    "learning_rate": 3e-4,
    "head_learning_rate": 2e-3,
    "stop": None,
}
"""Twice the rate that the 470 MB base is given: it has a third of its weights, and few steps."""
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


def small_base(base: str, texts: Sequence[str], folder: Path) -> bases.Base:
    """The base with fewer layers and pieces, made once."""
    from residency.models.trim import trim

    if not folder.is_dir():
        found = bases.resolve(bases.BaseModelSettings(id=base), Path())
        trim(Path(found.path), folder, texts, LAYERS, VOCABULARY)
    return bases.resolve(bases.BaseModelSettings(id=str(folder), window=320), Path())


def train(
    base: str,
    work: Path,
    *,
    steps: int,
    seed: int = 0,
    negatives: Path | None = None,
    tracker: Tracker | None = None,
) -> Path:
    """Train a tagger in ``work``, going on where it was; the folder of its artefact.

    ``negatives``: a folder with files ``vi*.txt``, ``zh*.txt``, ``en*.txt`` of real text without
    identifiers, a line each.
    """
    from residency.train.job import TrainingJob
    from residency.train.stage import Stage
    from residency.train.trainer import train as train_stage

    tracker, out = tracker or Silent(), work / "artefact"
    tracker.start("writing invented notes")
    rows = examples(steps * BATCH, seed, negatives)
    real = identified.lines(negatives, LANGUAGES) if negatives else {}
    texts = (*(row.input for row in rows), *(line for lines in real.values() for line in lines))
    small = small_base(base, texts, work / "base")
    tracker.end(f"{len(rows):,} pieces")
    out.mkdir(parents=True, exist_ok=True)
    tracker.start("training the tagger")
    result, _ = train_stage(
        TrainingJob(
            stage=Stage.model_validate(STAGE | {"steps": steps, "batch": BATCH}),
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
    tracker.end(f"{result.seconds / 60:.0f} minutes")
    return out


def package(artefact: Path, out: Path, *, steps: int, seed: int) -> TaggerCard:
    """Write a trained tagger in 8 bits to a new folder."""
    from residency.export.onnx import needs, write_graph, write_int8
    from residency.models import artefact as artefacts

    needs()
    found, model, tokeniser = artefacts.load(artefact)
    with whole_folder(out) as partial:
        write_graph(model, partial / "fp32.onnx")
        write_int8(partial / "fp32.onnx", partial / GRAPH)
        (partial / "fp32.onnx").unlink()
        for name in (TOKENIZER, "LICENSE"):
            if (Path(found.base.path) / name).is_file():
                shutil.copyfile(Path(found.base.path) / name, partial / name)
        written = TaggerCard(
            schema=SCHEMA,
            labels=LABELS,
            window=tokeniser.longest,
            mask=MASK,
            review=REVIEW,
            files={name: file_digest(partial / name) for name in (GRAPH, TOKENIZER)},
            layers=model.config.num_hidden_layers,
            pieces=model.config.vocab_size,
            steps=steps,
            seed=seed,
        )
        write_json(partial / FILE, written)
    return written


def measure(folder: Path, world: Path, notes: int = 60) -> TaggerCard:
    """Write into a tagger's card what rules and tagger find in notes of a world that it was not
    trained on."""
    tagger = ReviewedTagger(IdentifierTagger(folder), Deid())
    measured = tuple(_measured(tagger, world, lang, notes) for lang in LANGUAGES)
    changed = msgspec.structs.replace(tagger.tagger.card, measured=measured)
    write_json(folder / FILE, changed)
    return changed


def _measured(tagger: ReviewedTagger, world: Path, lang: str, count: int) -> Measured:
    """Identifiers of which every letter is covered, and findings that touch one."""
    marks = hit = alone = found = right = 0
    for planted in hospital_notes(lang, count, 0, world):
        edits = normal_form(planted.note.text)
        view = View(edits.apply(planted.note.text), lang)
        rules = resolve(rules_of(lang).search(view, dates_of(view)))
        both, _ = tagger.add("", view.text, rules)
        places = [at for m in planted.marks if (at := edits.project(m.start, m.end))]
        marks += len(places)
        hit += sum(_covered(view.text, at, both) for at in places)
        alone += sum(_covered(view.text, at, rules) for at in places)
        found += len(both)
        right += sum(any(a < one.end and one.start < b for a, b in places) for one in both)
    recall, rules_recall = hit / max(marks, 1), alone / max(marks, 1)
    return Measured(lang, count, recall, right / max(found, 1), rules_recall)


def _covered(text: str, place: tuple[int, int], found: Sequence[Finding]) -> bool:
    inside = {i for one in found for i in range(one.start, one.end)}
    return all(i in inside for i in range(*place) if text[i].isalnum())
