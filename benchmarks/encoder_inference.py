"""Milliseconds per 100 tokens of a tuned encoder on the CPU: plain transformers, ours in torch, ours in ONNX Runtime.

One process, equal weights, systems in turn in every round, so that others on the machine slow all of them; medians of paired ratios.

  plain      tokenizer(texts, padding), model(**inputs), argmax of every token read off with its offsets: a script of a few lines
  torch      models.encoder.EncoderPredictor: windows, legal tags, spans
  bf16       the same, linear layers in bfloat16 (torch.autocast)
  onnx       models.onnx.OnnxEncoder, fp32
  int8       the same, 8 bits, whether the export kept it or not

``--run`` names a finished run of an encoder whose test part is there: its F1 with each system is compared with plain torch's, paired.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from statistics import median
from typing import Any

from _common import parser, report, rotated, run, say
from residency.core.types import Example

SYSTEMS = ("plain", "torch", "bf16", "onnx", "int8")
WARM = 2


def main() -> None:
    options = parser(__doc__)
    options.add_argument("--run", type=Path, required=True, help="a finished run of an encoder")
    options.add_argument("--lengths", type=int, nargs="+", default=[32, 128, 240], help="tokens of a text")
    options.add_argument("--batches", type=int, nargs="+", default=[1, 16])
    options.add_argument("--rounds", type=int, default=9)
    options.add_argument("--out", default="", help="more of the result's name")
    given = options.parse_args()
    if given.quick:
        given.lengths, given.batches, given.rounds = [32], [1], 2
    import torch

    torch.set_num_threads(given.threads)
    with tempfile.TemporaryDirectory() as work:
        measure(given, Path(work))


def measure(given: argparse.Namespace, work: Path) -> None:
    """Export, time in turn, compare answers."""
    from residency.evals.compare import compare
    from residency.export import onnx as exports
    from residency.models.base import load_tokenizer
    from residency.models.encoder import EncoderPredictor
    from residency.models.onnx import FP32, INT8, OnnxEncoder, session
    from residency.pipeline import artefact_of, evaluation

    artefact, held_out = artefact_of(given.run), evaluation(given.run).part("test")
    made = exports.export(artefact, work / "out", held_out)
    say(f"int8: {'kept' if made.int8.kept else 'not kept'}; {made.int8.reason}")
    torchs = EncoderPredictor.from_artefact(artefact, "torch", "cpu")
    bf16 = Short(torchs.model, torchs.tokeniser, torchs.card, torchs.info)
    onnx = OnnxEncoder.from_export(work / "out", "fp32", given.threads)
    if not (work / "out" / INT8).is_file():
        exports.write_int8(work / "out" / FP32, work / "out" / INT8)
    int8 = OnnxEncoder(session(work / "out" / INT8, given.threads), onnx.tokeniser, onnx.card, onnx.info)
    ours = {"torch": torchs, "bf16": bf16, "onnx": onnx, "int8": int8}
    text = "\n".join(example.input for example in held_out)
    own = load_tokenizer(artefact)  # padding and truncation stay set on a tokenizer that was called with them
    rows, timings = [], []
    for batch in given.batches:
        for length in given.lengths:
            chosen = [
                Example(id=str(i), task="t", input=one) for i, one in enumerate(texts(torchs, text, length, batch))
            ]
            tokens = sum(len(found.ids) for found in torchs.tokeniser([one.input for one in chosen]))
            calls: dict[str, Callable[[], Any]] = {"plain": lambda chosen=chosen: plain(torchs.model, own, chosen)}
            calls |= {n: (lambda p=p, chosen=chosen: list(p.predict(chosen))) for n, p in ours.items()}
            took = in_turn(calls, given.rounds)
            ratios = {n: median(a / b for a, b in zip(took[n], took["plain"], strict=True)) for n in SYSTEMS}
            each = {n: 1e5 * median(took[n]) / tokens for n in SYSTEMS}
            timings.append({"batch": batch, "tokens": length, "ms_per_100": each, "of_plain": ratios, "seconds": took})
            rows.append([str(batch), str(length), *(f"{each[n]:.2f} ({ratios[n]:.2f})" for n in SYSTEMS)])
            say(f"batch {batch}, {length} tokens: " + ", ".join(f"{n} {ratios[n]:.2f}" for n in SYSTEMS))
    answers = {n: list(p.predict(held_out)) for n, p in ours.items()}
    f1 = {}
    for name in ("bf16", "onnx", "int8"):
        tests = compare(held_out, (torchs.info, answers["torch"]), (ours[name].info, answers[name]), torchs.card)
        f1[name] = tests[0]
        line = f"{100 * tests[0].difference:+.2f} points [{100 * tests[0].low:+.2f}, {100 * tests[0].high:+.2f}]"
        rows.append([f"F1, {name} minus torch", line, *[""] * len(SYSTEMS)])
    report(
        f"encoder_inference-{given.threads}{given.out}",
        given,
        ("batch", "tokens", *(f"{name}, ms/100 tokens (of plain)" for name in SYSTEMS)),
        rows,
        timings=timings,
        f1={n: {"difference": t.difference, "low": t.low, "high": t.high, "p": t.p} for n, t in f1.items()},
        held_out=len(held_out),
        int8={"kept": made.int8.kept, "reason": made.int8.reason},
        equal_within=made.equal_within,
    )


def texts(predictor: Any, text: str, length: int, count: int) -> Iterator[str]:
    """Different stretches of a text, of about so many tokens (at most)."""
    slots = predictor.tokeniser([text])[0]
    for number in range(count):
        start = (number * length) % max(1, len(slots.ids) - 2 * length)
        inside = [s for s, first in zip(slots.slots, slots.firsts, strict=True) if start <= first < start + length - 2]
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
        [one.input for one in examples], padding=True, truncation=True, return_tensors="pt", return_offsets_mapping=True
    )
    offsets = given.pop("offset_mapping").tolist()
    with torch.inference_mode():
        chosen = model(**given).logits.argmax(-1).tolist()
    names = model.config.id2label
    return [
        [(start, end, names[tag]) for (start, end), tag in zip(places, tags, strict=True) if end > start]
        for places, tags in zip(offsets, chosen, strict=True)
    ]


def _short() -> Any:
    from residency.models.encoder import EncoderPredictor, forward_all

    class Bfloat(EncoderPredictor):
        def forward(self, batches: list[list[list[int]]]) -> Any:
            import torch

            with torch.autocast("cpu", torch.bfloat16):
                yield from (forward_all(self.model, batches, self.tokeniser.pad_id))

    return Bfloat


def Short(*arguments: Any) -> Any:  # noqa: N802
    """A predictor whose linear layers compute in 16 bits."""
    return _short()(*arguments)


if __name__ == "__main__":
    run(main)
