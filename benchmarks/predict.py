"""Answering on a processor: a file beside a pipeline in a loop, and an encoder's milliseconds beside
plain transformers."""

from __future__ import annotations

import json
import time
from argparse import Namespace
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from statistics import median
from typing import Any

import msgspec

import _common as common
import _plain
from _common import TINY, Subject, Table, report, say
from residency.core.types import Example, Note
from residency.corpus.write import write_jsonl
from residency.locale.tokenise import sentences
from residency.tasks.card import load_card
from residency.tasks.examples import examples, fixed

SUBJECT = Subject(__doc__)
measure = SUBJECT.measure


@measure(
    f"--base {TINY} --kind notes --notes 10000 --sample 500 --runs 5 --memory 1000 10000 50000 "
    "--train 300 --epochs 8.0",
    quick="--notes 60 --sample 20 --runs 2 --memory 30 60 --train 12 --epochs 1",
    kind=("notes", "sentences"),
)
def file(given: Namespace) -> None:
    """Notes a second of residency predict against a pipeline in a loop, equal answers, memory.

      ours   the whole file, loading the model and writing included
      plain  transformers.pipeline, one note per call, the same weights, --sample notes, no loading

    A model tuned on invented notes (vi, zh, en) answers others. The pipeline's tags are decoded as
    ours are, and compared note by note; notes longer than the model's window are left out of that.
    Where the likeliest tags are no legal sequence, ours takes the best legal one: those notes are
    counted apart. --kind sentences: the notes' sentences, where a call's fixed costs weigh most.
    """
    make = partial(invented, sentences=given.kind == "sentences")
    with common.folder() as work:
        artefact = tune(given, work)
        notes, sample, answers = (work / f"{n}.jsonl" for n in ("notes", "sample", "ours"))
        write_jsonl(make(given.notes), notes)
        write_jsonl(make(given.sample), sample)
        calls: dict[str, tuple[Any, ...]] = {"ours": (ours, artefact, notes, answers)}
        calls["plain"] = (_plain.pipeline, work / "hf", sample, work / "plain.jsonl", 10)
        rates: dict[str, list[float]] = {"ours": [], "plain": []}
        for turn, system in common.in_turn([*calls], given.runs):
            found = common.apart(*calls[system], threads=given.threads)
            rates[system].append(found["notes"] / found["seconds"])
            say(f"round {turn + 1} {system}: {rates[system][-1]:.0f} notes/s")
        equal = same_answers(artefact, sample, answers, work / "plain.jsonl")
        table = Table("what | measured")
        table.add(f"notes/s, ours (median) | {median(rates['ours']):,.0f}")
        table.add(f"notes/s, pipeline (median) | {median(rates['plain']):,.0f}")
        times = [a / b for a, b in zip(rates["ours"], rates["plain"], strict=True)]
        table.add(f"ours / pipeline (median, range) | {common.spread(times, '.1f')}")
        table.add(f"notes with equal answers | {equal['equal']} of {equal['compared']}")
        legal = f"{equal['equal_where_legal']} of {equal['legal']}"
        table.add(f"... where the likeliest tags are legal | {legal}")
        table.add(f"spans in ours | {equal['spans']:,}")
        memory = {}
        for size in given.memory:
            write_jsonl(make(size), notes)
            memory[size] = common.apart(*calls["ours"], threads=given.threads)["memory_mb"]
            table.add(f"peak memory, {size:,} notes | {memory[size]:,.0f} MB")
    suffix = "-sentences" if given.kind == "sentences" else ""
    report(given, table, suffix, rates=rates, answers=equal, memory_mb=memory)


def invented(count: int, sentences: bool, seed: int = 90_000) -> Iterator[Note]:
    """Invented notes, or so many of their sentences."""
    made = common.invented(count, seed)
    pieces = in_sentences(made) if sentences else made
    return (note for note, _ in zip(pieces, range(count), strict=False))


def in_sentences(notes: Iterator[Note]) -> Iterator[Note]:
    """The sentences of notes, in turn."""
    for note in notes:
        for number, (start, end) in enumerate(sentences(note.text, note.lang)):
            id, text = f"{note.lang}-{note.id}-{number}", note.text[start:end]
            yield Note(id=id, text=text, profile="synthetic", lang=note.lang)


def tune(given: Namespace, work: Path) -> Path:
    """The tuned artefact, and beside it the same model as ``save_pretrained`` writes it."""
    from residency.models.artefact import load

    moved, others = msgspec.structs.replace, common.invented(6, 80_001)
    renamed = (moved(note, id=f"test-{note.id}") for note in others)
    train = common.invented(given.train, 80_000)
    data = common.write_parts(work, None, train=train, test=renamed) | {"profile": "synthetic"}
    stage = {"method": {"kind": "full"}, "epochs": given.epochs, "stop": None}
    value = common.recipe("predict", given.base, data, "clinical", stage, bootstrap=0)
    artefact = common.artefact(common.finish(value, work, given.threads)[0])
    _, model, tokeniser = load(artefact)
    model.save_pretrained(work / "hf")
    longest = tokeniser.room + len(tokeniser.prefix) + len(tokeniser.suffix)
    tokeniser.tokenizer.model_max_length = longest
    tokeniser.tokenizer.save_pretrained(work / "hf")
    return artefact


def ours(artefact: str, source: str, output: str) -> dict[str, Any]:
    """What ``residency predict`` does."""
    from residency.workflows.predict import predict_file

    Path(output).unlink(missing_ok=True)
    started = time.perf_counter()
    notes = predict_file(Path(artefact), Path(source), Path(output))
    seconds = time.perf_counter() - started
    return {"notes": notes, "seconds": seconds, "memory_mb": common.peak_memory_mb()}


def same_answers(artefact: Path, sample: Path, ours: Path, plain: Path) -> dict[str, int]:
    """How many notes of the sample have the same set of spans from both."""
    import numpy as np

    from residency.models.artefact import load
    from residency.tasks.bio import decode, legal, tag_names

    read, _, tokeniser = load(artefact)
    labels = read.task().names
    number = {name: i for i, name in enumerate(tag_names(labels))}
    keys = ("compared", "equal", "legal", "equal_where_legal", "longer_than_window", "spans")
    counts = dict.fromkeys(keys, 0)
    lines = (path.read_text("utf-8").splitlines() for path in (sample, ours, plain))
    for note, mine, tags in (map(json.loads, row) for row in zip(*lines, strict=False)):
        tokens = tokeniser([note["text"]])[0]
        if len(tokens.ids) > tokeniser.room:
            counts["longer_than_window"] += 1
            continue
        if len(tags) != len(tokens.ids):
            raise ValueError(f"the pipeline gave {len(tags)} tags for {len(tokens.ids)} tokens")
        found = [number[tags[first]] for first in tokens.firsts]
        spans = decode(note["text"], found, tokens.slots, labels)
        theirs = {(span.start, span.end, span.label) for span in spans}
        equal = theirs == {(one["start"], one["end"], one["label"]) for one in mine["entities"]}
        lawful = bool(legal(np.array(found)))
        counts["compared"] += 1
        counts["equal"] += equal
        counts["legal"] += lawful
        counts["equal_where_legal"] += equal and lawful
        counts["spans"] += len(mine["entities"])
    return counts


SYSTEMS = ("plain", "torch", "fp32", "bf16", "int8")
LEARNED = 2000
"""Training sentences of NCBI disease that are learned from."""


@measure(
    "--keep '' --lengths 32 128 240 --batches 1 16 --rounds 9 --out ''",
    quick="--lengths 32 --batches 1 --rounds 2",
)
def encoder(given: Namespace) -> None:
    """Milliseconds per 100 tokens of a tuned encoder on the CPU: plain, ours in torch, exported.

      plain   _plain.tagged: a script of a few lines
      torch   EncoderPredictor: windows, legal tags, spans
      fp32, bf16, int8   the export on OpenVINO, and on ONNX Runtime (int8), kept or not

    One process, equal weights, systems in turn; medians of paired ratios. The encoder is tuned for
    six passes over 2,000 training sentences of NCBI disease; its F1 with each system on the others
    and the development part is compared with torch's, paired. --keep FOLDER finds the run again.
    """
    import torch

    from residency.evals.paired_tests import compare
    from residency.export import onnx as exports
    from residency.models.base import load_tokenizer
    from residency.models.encoder import EncoderPredictor
    from residency.models.onnx_encoder import FP32, INT8, OnnxEncoder, graph

    torch.set_num_threads(given.threads)
    with common.folder(given.keep) as work, common.folder() as temporary:
        artefact, held_out = prepared(given, work)
        out = temporary / "out"
        made = exports.export(artefact, out, held_out)
        own = EncoderPredictor.from_artefact(artefact, "torch", "cpu")
        fp32 = OnnxEncoder.from_export(out, "fp32", given.threads)
        if not (out / INT8).is_file():
            exports.write_int8(out / FP32, out / INT8)
        int8 = graph(out, "int8", given.threads)
        predictors: dict[str, Any] = {"torch": own, "fp32": fp32}
        predictors["bf16"] = OnnxEncoder.from_export(out, "bf16", given.threads)
        predictors["int8"] = OnnxEncoder(int8, fp32.tokeniser, fp32.card, fp32.info)
        table = Table(
            f"batch | tokens | {' | '.join(f'{n}, ms/100 tokens (of plain)' for n in SYSTEMS)}"
        )
        tokenizer, timings = load_tokenizer(artefact), []
        text = "\n".join(example.input for example in held_out)
        for batch, length in [(b, n) for b in given.batches for n in given.lengths]:
            inputs = list(stretches(own, text, length, batch))
            chosen = [Example(id=str(i), task="t", input=one) for i, one in enumerate(inputs)]
            tokens = sum(len(found.ids) for found in own.tokeniser(inputs))
            took: dict[str, list[float]] = {name: [] for name in SYSTEMS}
            for turn, name in common.in_turn(SYSTEMS, given.rounds, warm=2):
                begun = time.perf_counter()
                if name == "plain":
                    _plain.tagged(own.model, tokenizer, inputs)
                else:
                    list(predictors[name].predict(chosen))
                took[name] += [time.perf_counter() - begun] if turn >= 0 else []
            pairs = {n: zip(took[n], took["plain"], strict=True) for n in SYSTEMS}
            ratios = {n: median(a / b for a, b in each) for n, each in pairs.items()}
            cells = [f"{1e5 * median(took[n]) / tokens:.2f} ({ratios[n]:.2f})" for n in SYSTEMS]
            table.add(f"{batch} | {length} | {' | '.join(cells)}")
            timings.append({"batch": batch, "tokens": length, "of_plain": ratios, "seconds": took})
        answers, f1 = {n: list(p.predict(held_out)) for n, p in predictors.items()}, {}
        for name in SYSTEMS[2:]:
            asked = [(predictors[n].info, answers[n]) for n in ("torch", name)]
            one = compare(held_out, *asked, own.card)[0]
            ends = common.interval(100 * one.difference, 100 * one.low, 100 * one.high, "+.2f")
            table.add(f"F1, {name} minus torch | {ends} points{' | ' * len(SYSTEMS)}")
            f1[name] = {"difference": one.difference, "low": one.low, "high": one.high, "p": one.p}
    both = {"bf16": made.bf16, "int8": made.int8}
    kept = {name: {"kept": one.kept, "reason": one.reason} for name, one in both.items()}
    more = {"f1": f1, "held_out": len(held_out), "kept": kept, "equal_within": made.equal_within}
    report(given, table, f"-{given.threads}{given.out}", timings=timings, **more)


def prepared(given: Namespace, work: Path) -> tuple[Path, list[Example]]:
    """The artefact, and gold examples that it has not seen."""
    train, gold = common.corpus("ncbi")
    train, rest = train[: 100 if given.quick else LEARNED], [*train[LEARNED:], *gold]
    data = common.write_parts(work, "en", train=train, test=rest)
    stage = {"method": {"kind": "full"}, "epochs": 1 if given.quick else 6, "stop": None}
    recipe = common.recipe("ncbi", TINY, data, "ner", stage, limit=1)
    run, _ = common.finish(recipe, work, given.threads)
    card = fixed(load_card("ner"), train, "ncbi")
    return common.artefact(run), examples(rest[: 100 if given.quick else None], card)


def stretches(predictor: Any, text: str, length: int, count: int) -> Iterator[str]:
    """Different stretches of a text, of about so many tokens (at most)."""
    found = predictor.tokeniser([text])[0]
    places = list(zip(found.slots, found.firsts, strict=True))
    for number in range(count):
        start = (number * length) % max(1, len(found.ids) - 2 * length)
        inside = [slot for slot, first in places if start <= first < start + length - 2]
        yield text[inside[0][0] : inside[-1][1]]


if __name__ == "__main__":
    SUBJECT.main()
