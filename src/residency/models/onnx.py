"""The encoder predictor on ONNX Runtime: the same tokens, windows and decoding, another forward pass."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from residency.core.errors import UserError
from residency.core.files import file_digest, read_json
from residency.core.part import parse
from residency.core.types import PredictorInfo, Value
from residency.models.base import load_tokenizer
from residency.models.encoder import EncoderPredictor
from residency.models.tokens import Tokeniser
from residency.tasks.card import Card

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

SCHEMA = 1
FILE = "onnx.json"
FP32, INT8 = "model.onnx", "model.int8.onnx"
IDS, MASK, LOGITS = "input_ids", "attention_mask", "logits"
"""Names of what goes in and comes out."""

Precision = Literal["fp32", "int8"]


class Int8(Value, frozen=True):
    """Whether the model in 8 bits answers as well as the one in 32, and on what that was measured."""

    kept: bool
    reason: str
    metric: str = ""
    fp32: float | None = None
    int8: float | None = None
    difference: float | None = None
    """int8 minus fp32."""
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
    int8: Int8

    @property
    def best(self) -> Precision:
        """int8 where it was kept."""
        return "int8" if self.int8.kept else "fp32"


def read(folder: Path) -> Export:
    """What an export says of itself, every file checked against its hash.

    Raises ``UserError`` where a file is missing or was changed, or the schema is of another version.
    """
    if not (folder / FILE).is_file():
        raise UserError(f"{folder}: holds no exported model ({FILE} is missing); make one with residency export onnx.")
    found = read_json(folder / FILE, Export)
    if found.schema != SCHEMA:
        raise UserError(f"{folder}: export schema {found.schema} is not read by this version, which reads {SCHEMA}.")
    for name, expected in found.files.items():
        if not (folder / name).is_file() or file_digest(folder / name) != expected:
            raise UserError(
                f"{folder / name}: is missing or was changed after the export; export again with residency export onnx."
            )
    return found


class OnnxEncoder(EncoderPredictor):
    """Answers span and label tasks with an exported encoder; ``model`` is the session of ONNX Runtime."""

    @classmethod
    def from_export(
        cls, folder: Path, precision: Precision | None = None, threads: int | None = None, name: str = "onnx"
    ) -> OnnxEncoder:
        """An export; in 8 bits where that was found to answer as well, unless ``precision`` says otherwise.

        ``threads``: of a forward pass; all cores where not given. Raises ``UserError`` where the folder's files are not those that
        were exported, or ``int8`` is asked for where it was not kept.
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
        )
        tokeniser = Tokeniser(load_tokenizer(folder), export.segmenter, export.window)
        return cls(
            session(folder / (INT8 if chosen == "int8" else FP32), threads),
            tokeniser,
            parse(Card, export.card, FILE),
            info,
        )

    def ready(self) -> AbstractContextManager[None]:
        """A session has no other state."""
        return nullcontext()

    def forward(self, batches: list[list[list[int]]]) -> Iterator[list[NDArray[np.float32]]]:
        """As of the torch predictor."""
        for rows in batches:
            yield forward(self.model, rows, self.tokeniser.pad_id)


def session(path: Path, threads: int | None = None) -> Any:
    """A session on the CPU whose threads sleep while there is nothing to do: other processes need the cores too."""
    try:
        import onnxruntime
    except ModuleNotFoundError:
        raise UserError("onnxruntime is not installed; install it: pip install 'residency[export]'.") from None
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads or os.cpu_count() or 1
    options.inter_op_num_threads = 1
    options.log_severity_level = 3
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    return onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])


def forward(model: Any, rows: list[list[int]], pad: int) -> list[NDArray[np.float32]]:
    """Log-odds of each row's tokens ``[tokens, outputs]``, or of each row ``[outputs]``, in fp32."""
    import numpy as np

    longest = max(map(len, rows))
    ids, mask = np.full((len(rows), longest), pad, np.int64), np.zeros((len(rows), longest), np.int64)
    for number, row in enumerate(rows):
        ids[number, : len(row)], mask[number, : len(row)] = row, 1
    (logits,) = model.run([LOGITS], {IDS: ids, MASK: mask})
    if logits.ndim == 3:
        logits = logits - logits.max(-1, keepdims=True)
        logits = logits - np.log(np.exp(logits).sum(-1, keepdims=True))
    return list(logits)
