"""The encoder predictor on an exported graph: the same tokens, windows and decoding, another
forward pass.

OpenVINO computes it in 32 bits and in bfloat16, ONNX Runtime in 8 bits, and in 32 where OpenVINO is
not installed.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, nullcontext
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from residency.core.errors import UserError
from residency.core.files import file_digest, read_json
from residency.core.part import parse
from residency.core.types import Calibration, PredictorInfo, Value
from residency.models.base import load_tokenizer
from residency.models.blend import Blend
from residency.models.encoder import EncoderPredictor
from residency.models.tokens import Tokeniser
from residency.tasks.card import Card

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

SCHEMA = 2
FILE = "onnx.json"
FP32, INT8 = "model.onnx", "model.int8.onnx"
IDS, MASK, LOGITS = "input_ids", "attention_mask", "logits"
"""Names of what goes in and comes out."""

STEP = 16
"""Rows are padded to multiples of so many tokens: OpenVINO prepares its kernels anew for every new
shape."""

Precision = Literal["fp32", "bf16", "int8"]
DTYPES: dict[Precision, str] = {"fp32": "float32", "bf16": "bfloat16", "int8": "int8"}


class Fewer(Value, frozen=True):
    """Whether a model in fewer bits answers as well as the one in 32, and on what that was
    measured."""

    kept: bool
    reason: str
    metric: str = ""
    fp32: float | None = None
    score: float | None = None
    difference: float | None = None
    """``score`` minus ``fp32``."""
    low: float | None = None
    high: float | None = None
    examples: int = 0
    tolerance: float = 0.0


class Export(Value, frozen=True):
    """What a folder with an exported encoder holds."""

    schema: int
    artefact: str
    """SHA-256 of the ``artefact.json`` that it was made of."""
    base: str
    base_digest: str
    method: str
    parameters: int
    segmenter: str
    window: int
    card: dict[str, Any]
    opset: int
    exporter: str
    files: dict[str, str]
    """File name -> SHA-256."""
    equal_within: float
    """Largest distance of a logit from torch's, on the checked inputs."""
    tolerance: float
    """Most that it may have been."""
    bf16: Fewer
    int8: Fewer
    calibration: Calibration | None = None

    @property
    def best(self) -> Precision:
        """The fastest that was kept, on this machine: bfloat16 where its processor computes in it,
        8 bits, 32 bits."""
        if self.bf16.kept and bf16_here():
            return "bf16"
        return "int8" if self.int8.kept else "fp32"


def read(folder: Path) -> Export:
    """What an export says of itself, every file checked against its hash.

    Raises ``UserError`` where a file is missing or was changed, or the schema is of another
    version.
    """
    if not (folder / FILE).is_file():
        raise UserError(
            f"{folder}: holds no exported model ({FILE} is missing); make one with residency "
            "export onnx."
        )
    found = read_json(folder / FILE, Export)
    if found.schema != SCHEMA:
        raise UserError(
            f"{folder}: export schema {found.schema} is not read by this version, which reads "
            f"{SCHEMA}."
        )
    for name, expected in found.files.items():
        if not (folder / name).is_file() or file_digest(folder / name) != expected:
            raise UserError(
                f"{folder / name}: is missing or was changed after the export; export again with "
                "residency export onnx."
            )
    return found


class OnnxEncoder(EncoderPredictor):
    """Answers span and label tasks with an exported encoder; ``model`` is a ``Graph``."""

    @classmethod
    def from_export(
        cls,
        folder: Path,
        precision: Precision | None = None,
        threads: int | None = None,
        name: str = "onnx",
    ) -> OnnxEncoder:
        """An export; in fewer bits where that was found to answer as well, unless ``precision``
        says otherwise.

        ``threads``: of a forward pass; all cores where not given. Raises ``UserError`` where the
        folder's files are not those that were exported, or ``int8`` is asked for where it was not
        kept, or ``bf16`` where this machine cannot compute in it.
        """
        export = read(folder)
        chosen = precision or export.best
        if chosen == "int8" and INT8 not in export.files:
            raise UserError(f"{folder}: has no model in 8 bits ({export.int8.reason}); use fp32.")
        info = PredictorInfo(
            name=name,
            base=export.base,
            method=export.method,
            digest=export.base_digest,
            parameters=export.parameters,
            calibration=export.calibration,
        )
        tokeniser = Tokeniser(load_tokenizer(folder), export.segmenter, export.window)
        card: Card = parse(Card, export.card, FILE)
        blend = Blend.of(folder, card)
        return cls(graph(folder, chosen, threads), tokeniser, card, info, blend)

    def ready(self) -> AbstractContextManager[None]:
        """A graph has no other state."""
        return nullcontext()

    def forward(self, batches: list[list[list[int]]]) -> Iterator[list[NDArray[np.float32]]]:
        """As of the torch predictor."""
        for rows in batches:
            yield forward(self.model, rows, self.tokeniser.pad_id, self.tokeniser.longest)


Graph = Callable[["NDArray[np.int64]", "NDArray[np.int64]"], "NDArray[np.float32]"]
"""Token ids and mask, each ``[rows, tokens]``, to logits ``[rows, tokens, outputs]`` or ``[rows,
outputs]``. For one thread at a time."""


def graph(folder: Path, precision: Precision, threads: int | None = None) -> Graph:
    """The forward pass of an export in one precision, on the CPU. ``threads``: all cores where not
    given."""
    count = threads or os.cpu_count() or 1
    if precision == "int8":
        return session(folder / INT8, count)
    if precision == "bf16" and not bf16_here():
        why = (
            "its processor does not compute in bfloat16"
            if openvino()
            else "openvino is not installed"
        )
        raise UserError(
            f"{folder}: cannot be computed in bfloat16 on this machine ({why}); use fp32."
        )
    return (
        compiled(folder / FP32, precision, count) if openvino() else session(folder / FP32, count)
    )


def session(path: Path, threads: int) -> Graph:
    """ONNX Runtime, whose threads sleep while there is nothing to do: other processes need the
    cores too."""
    try:
        import onnxruntime
    except ModuleNotFoundError:
        raise UserError(
            "onnxruntime is not installed; install it: pip install 'residency[export]'."
        ) from None
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.log_severity_level = 3
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    found = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])

    def run(ids: NDArray[np.int64], mask: NDArray[np.int64]) -> NDArray[np.float32]:
        (logits,) = found.run([LOGITS], {IDS: ids, MASK: mask})
        return logits  # type: ignore[no-any-return]

    return run


def compiled(path: Path, precision: Precision, threads: int) -> Graph:
    """OpenVINO, its threads bound to no core: other processes need them too."""
    settings = {
        "INFERENCE_PRECISION_HINT": "bf16" if precision == "bf16" else "f32",
        "INFERENCE_NUM_THREADS": threads,
        "NUM_STREAMS": 1,
        "ENABLE_CPU_PINNING": False,
    }
    found = openvino().Core().compile_model(str(path), "CPU", settings)
    request = found.create_infer_request()

    def run(ids: NDArray[np.int64], mask: NDArray[np.int64]) -> NDArray[np.float32]:
        return request.infer({IDS: ids, MASK: mask}, share_inputs=True)[LOGITS]  # type: ignore[no-any-return]

    return run


@cache
def openvino() -> Any:
    """The library, or None where it is not installed. What it would use to count its users is never
    loaded."""
    sys.modules.setdefault("openvino_telemetry", None)  # type: ignore[arg-type]
    try:
        import openvino as found
    except ImportError:
        return None
    return found


@cache
def bf16_here() -> bool:
    """Whether OpenVINO is installed and this processor has bfloat16 (AVX512-BF16 or AMX)."""
    found = openvino()
    return found is not None and "BF16" in found.Core().get_property(
        "CPU", "OPTIMIZATION_CAPABILITIES"
    )


def forward(model: Graph, rows: list[list[int]], pad: int, most: int) -> list[NDArray[np.float32]]:
    """Log-odds of each row's tokens ``[tokens, outputs]``, or of each row ``[outputs]``, in fp32;
    ``most``: the longest row allowed."""
    import numpy as np

    longest = max(map(len, rows))
    width = max(longest, min(most, -(-longest // STEP) * STEP))
    ids, mask = np.full((len(rows), width), pad, np.int64), np.zeros((len(rows), width), np.int64)
    for number, row in enumerate(rows):
        ids[number, : len(row)], mask[number, : len(row)] = row, 1
    logits = model(ids, mask)
    if logits.ndim == 3:
        logits = logits[:, :longest]
        logits = logits - logits.max(-1, keepdims=True)
        logits = logits - np.log(np.exp(logits).sum(-1, keepdims=True))
    return list(logits)
