"""A tuned encoder as ONNX: in 32 bits, equal to torch, and in bfloat16 and 8 bits where the
held-out part says that it answers as well."""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import msgspec

from residency.core.errors import UserError
from residency.core.files import file_digest, whole_folder, write_json
from residency.core.types import Comparison, Example, Prediction
from residency.evals.measure import score
from residency.evals.paired_tests import compare
from residency.export.merged import check_new, mergeable
from residency.models import artefact as artefacts
from residency.models import blend
from residency.models.base import load_tokenizer
from residency.models.onnx_encoder import (
    FILE,
    FP32,
    IDS,
    INT8,
    LOGITS,
    MASK,
    SCHEMA,
    Export,
    Fewer,
    Graph,
    OnnxEncoder,
    Precision,
    bf16_here,
    graph,
    openvino,
    session,
)
from residency.models.weights import size
from residency.tasks.card import Card

OPSET = 17
EXPORTER = "torch.onnx (traced)"
EQUAL = 1e-4
"""Most that a logit may be away from torch's."""
LOSS = 0.002
"""Most that the score may fall in fewer bits: 0.2 points of F1."""
UNMEASURED = Fewer(kept=False, reason="not measured", tolerance=LOSS)


def export(
    artefact: Path, out: Path, held_out: Sequence[Example] = (), bootstrap: int = 1000
) -> Export:
    """Write an artefact's encoder to ``out``: ``model.onnx``, ``model.int8.onnx`` where kept, the
    tokenizer, ``onnx.json``.

    ``held_out``: gold examples on which fewer bits are measured against 32; without them they are
    not kept. Raises ``UserError`` for generative models, prefixes, quantised bases, and a folder
    that is not empty.
    """
    found = exportable(artefact)
    needs()
    check_new(out)
    _, model, tokeniser = artefacts.load(artefact)
    with whole_folder(out) as partial:
        write_graph(model, partial / FP32)
        runners = [session(partial / FP32, 1), *([graph(partial, "fp32", 1)] if openvino() else [])]
        distance = max(farthest(model, one, tokeniser.longest, tokeniser.pad_id) for one in runners)
        if not distance <= EQUAL:
            raise UserError(
                f"{artefact}: as ONNX its logits are {distance:.1e} away from torch's, more than "
                f"{EQUAL:.0e}; serve it in process."
            )
        write_int8(partial / FP32, partial / INT8)
        load_tokenizer(artefact).save_pretrained(partial)
        blend.take_along(artefact, partial)
        made = Export(
            schema=SCHEMA,
            artefact=file_digest(artefact / artefacts.FILE),
            base=found.base.id,
            base_digest=found.base.digest,
            method=found.kinds,
            parameters=size(model),
            segmenter=found.base.segmenter,
            window=tokeniser.longest,
            card=found.card,
            opset=OPSET,
            exporter=EXPORTER,
            files=_digests(partial),
            equal_within=distance,
            tolerance=EQUAL,
            bf16=UNMEASURED,
            int8=UNMEASURED,
            calibration=found.calibration,
        )
        write_json(partial / FILE, made)
        bf16, int8 = measured(partial, found.task(), held_out, bootstrap)
        if not int8.kept:
            (partial / INT8).unlink()
        made = msgspec.structs.replace(made, files=_digests(partial), bf16=bf16, int8=int8)
        write_json(partial / FILE, made)
    return made


def exportable(folder: Path) -> artefacts.Artefact:
    """An artefact that can be exported; raises ``UserError`` with the reason where it cannot."""
    return mergeable(folder, "onnx")


def needs() -> None:
    """Raise ``UserError`` where a library is missing."""
    from importlib.util import find_spec

    missing = [name for name in ("onnx", "onnxruntime") if find_spec(name) is None]
    if missing:
        raise UserError(
            f"{' and '.join(missing)} not installed; install them: pip install 'residency[export]'."
        )


def write_graph(model: Any, path: Path) -> None:
    """A model's graph, for any number of rows of any length.

    Torch's tracing exporter: its newer one needs a further library, and gains nothing for graphs
    without branches.
    """
    import torch

    class Logits(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.model = model

        def forward(self, ids: Any, mask: Any) -> Any:
            return self.model(input_ids=ids, attention_mask=mask).logits

    wrapped = Logits().eval()
    ids = torch.ones((2, 9), dtype=torch.int64)
    mask = torch.ones_like(ids)
    mask[1, 5:] = 0
    axes = {name: {0: "rows", 1: "tokens"} for name in (IDS, MASK)}
    with quiet(), torch.inference_mode(), eager(model):
        logits = wrapped(ids, mask)
        torch.onnx.export(
            wrapped,
            (ids, mask),
            str(path),
            input_names=[IDS, MASK],
            output_names=[LOGITS],
            dynamic_axes={
                **axes,
                LOGITS: {0: "rows", **({1: "tokens"} if logits.dim() == 3 else {})},
            },
            opset_version=OPSET,
            dynamo=False,
        )


def farthest(model: Any, ours: Graph, window: int, pad: int) -> float:
    """The largest distance of a logit from torch's, over random rows of many lengths, alone and
    padded."""
    import numpy as np
    import torch

    generator, worst = np.random.default_rng(0), 0.0
    vocabulary = model.get_input_embeddings().num_embeddings
    for lengths in ((1,), (7,), (window,), (3, 12, window // 2), tuple(range(2, 12))):
        longest = max(lengths)
        mask = np.array([[1] * n + [0] * (longest - n) for n in lengths])
        ids = np.where(mask == 1, generator.integers(pad + 1, vocabulary, mask.shape), pad)
        found = ours(ids, mask)
        with torch.inference_mode():
            logits = model(
                input_ids=torch.from_numpy(ids), attention_mask=torch.from_numpy(mask)
            ).logits.numpy()
        seen = mask.astype(bool) if logits.ndim == 3 else slice(None)
        worst = max(worst, float(np.abs(found[seen] - logits[seen]).max()))
    return worst


def write_int8(fp32: Path, int8: Path) -> None:
    """The same graph with weights in 8 bits, a scale for each output channel; activations are
    scaled as they come."""
    from onnxruntime.quantization import QuantType, quantize_dynamic

    with quiet():
        quantize_dynamic(str(fp32), str(int8), weight_type=QuantType.QInt8, per_channel=True)


def measured(
    folder: Path, card: Card, held_out: Sequence[Example], bootstrap: int
) -> tuple[Fewer, Fewer]:
    """Whether bfloat16 and 8 bits are kept: the score on held-out examples falls by at most
    ``LOSS``."""
    gold = [example for example in held_out if example.gold is not None]
    if not gold:
        none = msgspec.structs.replace(UNMEASURED, reason="no held-out examples to measure it on")
        return none, none
    whole = _answers(folder, "fp32", card, gold)

    def against(precision: Precision) -> Fewer:
        """One precision against 32 bits."""
        short = _answers(folder, precision, card, gold)
        (a, before, one), (b, after, two) = whole, short
        if a is None or b is None:
            why = f"{card.main_metric} does not apply to the held-out examples"
            return msgspec.structs.replace(UNMEASURED, reason=why)
        tests: tuple[Comparison, ...] = ()
        if bootstrap:
            tests = compare(gold, (one.info, before), (two.info, after), card, samples=bootstrap)
        return Fewer(
            kept=b >= a - LOSS,
            reason=f"{card.main_metric} {b:.4f} against {a:.4f} in fp32, {len(gold)} held-out "
            "examples",
            metric=card.main_metric,
            fp32=a,
            score=b,
            difference=b - a,
            low=tests[0].low if tests else None,
            high=tests[0].high if tests else None,
            examples=len(gold),
            tolerance=LOSS,
        )

    if bf16_here():
        return against("bf16"), against("int8")
    why = "this processor does not compute in it" if openvino() else "openvino is not installed"
    return msgspec.structs.replace(UNMEASURED, reason=f"not measured: {why}"), against("int8")


def _answers(
    folder: Path, precision: Precision, card: Card, gold: Sequence[Example]
) -> tuple[float | None, list[Prediction], OnnxEncoder]:
    """The main metric of an export in one precision, and its answers."""
    predictor = OnnxEncoder.from_export(folder, precision, name=precision)
    found = list(predictor.predict(gold))
    report = score(gold, found, card, predictor.info, bootstrap=0)
    return (
        next(one.value for one in report.scores if one.metric == card.main_metric),
        found,
        predictor,
    )


@contextmanager
def eager(model: Any) -> Iterator[None]:
    """Attention written out, which the tracer takes whole for every length."""
    before = model.config._attn_implementation
    model.set_attn_implementation("eager")
    try:
        yield
    finally:
        model.set_attn_implementation(before)


@contextmanager
def quiet() -> Iterator[None]:
    """Without what exporters tell their programmers."""
    import logging

    logger = logging.getLogger()
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logger.setLevel(level)


def _digests(folder: Path) -> dict[str, str]:
    return {path.name: file_digest(path) for path in sorted(folder.iterdir()) if path.name != FILE}
