"""Milliseconds per 100 tokens of a tuned encoder on the CPU: plain transformers, ours in torch,
ours exported.

One process, equal weights, systems in turn in every round, so that others on the machine slow all
of them; medians of paired ratios.

  plain      tokenizer(texts, padding), model(**inputs), argmax of every token read off with its offsets: a script of a few lines
  torch      models.encoder.EncoderPredictor: windows, legal tags, spans
  fp32       models.onnx.OnnxEncoder on OpenVINO, fp32
  bf16       the same, bfloat16, whether the export kept it or not
  int8       the same on ONNX Runtime, 8 bits, whether the export kept it or not

The encoder is bundled:tiny-encoder, all weights tuned for six passes over the first 2,000 training
sentences of NCBI disease; its F1 with each system on the others and the authors' development part
is compared with plain torch's, paired. ``--run`` names another finished run, with its own held-out
parts.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from statistics import median
from typing import Any

from _common import TINY, parser, report, rotated, run, say, shared_data
from residency.core.part import parse
from residency.core.types import Example
from residency.corpus.load import Data, load
from residency.corpus.write import write_jsonl

SYSTEMS = ("plain", "torch", "fp32", "bf16", "int8")
WARM = 2
LEARNED = 2000
"""Training sentences of NCBI disease that are learned from."""


def main() -> None:
    options = parser(__doc__)
    options.add_argument(
        "--run", type=Path, help="a finished run of an encoder (default: one is made)"
    )
    options.add_argument(
        "--keep", type=Path, help="folder that the run stays in, and is found in again"
    )
    options.add_argument(
        "--lengths", type=int, nargs="+", default=[32, 128, 240], help="tokens of a text"
    )
    options.add_argument("--batches", type=int, nargs="+", default=[1, 16])
    options.add_argument("--rounds", type=int, default=9)
    options.add_argument("--out", default="", help="more of the result's name")
    given = options.parse_args()
    if given.quick:
        given.lengths, given.batches, given.rounds = [32], [1], 2
    import torch

    torch.set_num_threads(given.threads)
    with tempfile.TemporaryDirectory() as work:
        measure(given, given.keep or Path(work))


def measure(given: argparse.Namespace, work: Path) -> None:
    """Export, time in turn, compare answers."""
    from residency.evals.paired_tests import compare
    from residency.export import onnx as exports
    from residency.models.base import load_tokenizer
    from residency.models.encoder import EncoderPredictor
    from residency.models.onnx_encoder import FP32, INT8, OnnxEncoder, graph

    artefact, held_out = prepared(given, work)
    made = exports.export(artefact, work / "out", held_out)
    for name, one in (("bf16", made.bf16), ("int8", made.int8)):
        say(f"{name}: {'kept' if one.kept else 'not kept'}; {one.reason}")
    torchs = EncoderPredictor.from_artefact(artefact, "torch", "cpu")
    fp32 = OnnxEncoder.from_export(work / "out", "fp32", given.threads)
    bf16 = OnnxEncoder.from_export(work / "out", "bf16", given.threads)
    if not (work / "out" / INT8).is_file():
        exports.write_int8(work / "out" / FP32, work / "out" / INT8)
    int8 = OnnxEncoder(
        graph(work / "out", "int8", given.threads), fp32.tokeniser, fp32.card, fp32.info
    )
    ours = {"torch": torchs, "fp32": fp32, "bf16": bf16, "int8": int8}
    text = "\n".join(example.input for example in held_out)
    own = load_tokenizer(
        artefact
    )  # padding and truncation stay set on a tokenizer that was called with them
    rows, timings = [], []
    for batch in given.batches:
        for length in given.lengths:
            chosen = [
                Example(id=str(i), task="t", input=one)
                for i, one in enumerate(texts(torchs, text, length, batch))
            ]
            tokens = sum(
                len(found.ids) for found in torchs.tokeniser([one.input for one in chosen])
            )
            calls: dict[str, Callable[[], Any]] = {
                "plain": lambda chosen=chosen: plain(torchs.model, own, chosen)
            }
            calls |= {
                n: (lambda p=p, chosen=chosen: list(p.predict(chosen))) for n, p in ours.items()
            }
            took = in_turn(calls, given.rounds)
            ratios = {
                n: median(a / b for a, b in zip(took[n], took["plain"], strict=True))
                for n in SYSTEMS
            }
            each = {n: 1e5 * median(took[n]) / tokens for n in SYSTEMS}
            timings.append(
                {
                    "batch": batch,
                    "tokens": length,
                    "ms_per_100": each,
                    "of_plain": ratios,
                    "seconds": took,
                }
            )
            rows.append(
                [str(batch), str(length), *(f"{each[n]:.2f} ({ratios[n]:.2f})" for n in SYSTEMS)]
            )
            say(
                f"batch {batch}, {length} tokens: "
                + ", ".join(f"{n} {ratios[n]:.2f}" for n in SYSTEMS)
            )
    answers = {n: list(p.predict(held_out)) for n, p in ours.items()}
    f1 = {}
    for name in ("fp32", "bf16", "int8"):
        tests = compare(
            held_out, (torchs.info, answers["torch"]), (ours[name].info, answers[name]), torchs.card
        )
        f1[name] = tests[0]
        line = (
            f"{100 * tests[0].difference:+.2f} points [{100 * tests[0].low:+.2f}, "
            f"{100 * tests[0].high:+.2f}]"
        )
        rows.append([f"F1, {name} minus torch", line, *[""] * len(SYSTEMS)])
    report(
        f"encoder_inference-{given.threads}{given.out}",
        given,
        ("batch", "tokens", *(f"{name}, ms/100 tokens (of plain)" for name in SYSTEMS)),
        rows,
        timings=timings,
        f1={
            n: {"difference": t.difference, "low": t.low, "high": t.high, "p": t.p}
            for n, t in f1.items()
        },
        held_out=len(held_out),
        kept={
            name: {"kept": one.kept, "reason": one.reason}
            for name, one in (("bf16", made.bf16), ("int8", made.int8))
        },
        equal_within=made.equal_within,
    )


def prepared(given: argparse.Namespace, work: Path) -> tuple[Path, list[Example]]:
    """The artefact, and gold examples that it has not seen."""
    import residency
    from residency.workflows.evaluate import examples_of_run
    from residency.workflows.finished import artefact_of

    if given.run:
        return artefact_of(given.run), examples_of_run(given.run, "dev", "test")
    there = shared_data() / "en/ncbi_disease"
    given_as = {
        "format": "conll",
        "train": str(there / "train.tsv"),
        "test": str(there / "devel.tsv"),
    }
    notes = load(
        parse(Data, {**given_as, "profile": "public", "lang": "en", "stop": 0}, "ncbi"),
        "ncbi",
        work,
        0,
    )
    train, gold = notes.part("train"), notes.part("test")
    write_jsonl(train[:LEARNED], work / "train.jsonl")
    write_jsonl([*train[LEARNED:], *gold], work / "test.jsonl")
    recipe = {
        "schema": 1,
        "name": "ncbi",
        "base": TINY,
        "seed": 7,
        "data": {
            "ncbi": {
                "format": "jsonl",
                "train": "train.jsonl",
                "test": "test.jsonl",
                "profile": "public",
                "lang": "en",
                "stop": 0,
            }
        },
        "tasks": [{"card": "ner", "data": "ncbi"}],
        "stages": [{"method": {"kind": "full"}, "epochs": 6, "stop": None}],
        "evaluate": {"baselines": [], "limit": 1},
    }
    path = work / "ncbi.yaml"
    path.write_text(json.dumps(recipe), "utf-8")
    say("tuning")
    folder = residency.run(residency.Recipe.load(path), work / "runs").folder
    return artefact_of(folder), examples_of_run(folder, "test")


def texts(predictor: Any, text: str, length: int, count: int) -> Iterator[str]:
    """Different stretches of a text, of about so many tokens (at most)."""
    slots = predictor.tokeniser([text])[0]
    for number in range(count):
        start = (number * length) % max(1, len(slots.ids) - 2 * length)
        inside = [
            s
            for s, first in zip(slots.slots, slots.firsts, strict=True)
            if start <= first < start + length - 2
        ]
        yield text[inside[0][0] : inside[-1][1]]


def in_turn(calls: dict[str, Callable[[], Any]], rounds: int) -> dict[str, list[float]]:
    """Seconds of every call in every round."""
    took: dict[str, list[float]] = {name: [] for name in calls}
    for turn in range(-WARM, rounds):
        for name in rotated(SYSTEMS, turn):
            begun = time.perf_counter()
            calls[name]()
            if turn >= 0:
                took[name].append(time.perf_counter() - begun)
    return took


def plain(model: Any, tokenizer: Any, examples: list[Example]) -> list[list[tuple[int, int, str]]]:
    """What a short script does."""
    import torch

    given = tokenizer(
        [one.input for one in examples],
        padding=True,
        truncation=True,
        return_tensors="pt",
        return_offsets_mapping=True,
    )
    offsets = given.pop("offset_mapping").tolist()
    with torch.inference_mode():
        chosen = model(**given).logits.argmax(-1).tolist()
    names = model.config.id2label
    return [
        [
            (start, end, names[tag])
            for (start, end), tag in zip(places, tags, strict=True)
            if end > start
        ]
        for places, tags in zip(offsets, chosen, strict=True)
    ]


if __name__ == "__main__":
    run(main)
