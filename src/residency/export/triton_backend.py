"""What Triton's Python backend calls in a model repository that ``residency export triton`` wrote.

``triton_python_backend_utils`` is there within Triton alone.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from copy import copy
from pathlib import Path
from typing import Any

import msgspec

from residency.core.errors import ResidencyError, UserError
from residency.core.files import file_digest
from residency.core.types import Prediction, RawNote
from residency.models import artefact as artefacts
from residency.models.predictors import trained
from residency.tasks.examples import question

ARTEFACT = "artefact"
"""Folder of a version with the model."""
Asked = tuple[str, int | None]
"""A text, and the most tokens of its answer where that is written."""


class Answers:
    """A model and what it answers, as JSON."""

    def __init__(self, folder: Path) -> None:
        self.digest = file_digest(folder / artefacts.FILE)
        self.predictor = trained(folder)
        self.card = self.predictor.card

    def of(self, asked: Sequence[Asked]) -> list[bytes]:
        """Per text a prediction and the digest of what made it; together where answers may be
        equally long."""
        found: dict[int, Prediction] = {}
        for most in {most for _, most in asked}:
            chosen = [number for number, one in enumerate(asked) if one[1] == most]
            notes = [
                RawNote(id=str(number), patient="", text=asked[number][0]) for number in chosen
            ]
            predictor = self._limited(most)
            made = predictor.predict([question(note, self.card) for note in notes])
            found |= dict(zip(chosen, made, strict=True))
        return [self._line(found[number]) for number in range(len(asked))]

    def _limited(self, most: int | None) -> Any:
        """The predictor, which may write so many tokens and no more than it was trained to."""
        limited: Any = copy(self.predictor)
        if most is not None and hasattr(limited, "generation"):
            own = limited.generation.max_tokens
            most = min(most, own) if isinstance(own, int) else most
            limited.generation = limited.generation.model_copy(update={"max_tokens": most})
        return limited

    def _line(self, prediction: Prediction) -> bytes:
        said = msgspec.to_builtins(prediction)
        kept = {name: said.get(name) for name in ("answer", "text", "failure", "tokens")}
        return msgspec.json.encode({**kept, "digest": self.digest})


class TritonPythonModel:
    """The class that Triton's Python backend looks for."""

    def initialize(self, args: dict[str, str]) -> None:
        """Load the model; raises ``UserError`` where it is not the one that was exported."""
        config = json.loads(args["model_config"])
        folder = Path(args["model_repository"]) / args["model_version"] / ARTEFACT
        expected = config["parameters"]["artefact"]["string_value"]
        if file_digest(folder / artefacts.FILE) != expected:
            raise UserError(f"{folder}: is another model than the one that was exported.")
        self.answers = Answers(folder)

    def execute(self, requests: Sequence[Any]) -> list[Any]:
        """One response for each request. All texts are answered together; where that fails each
        request is answered alone, so that none fails for another's text."""
        import numpy as np
        import triton_python_backend_utils as triton

        read = [_asked(request, triton) for request in requests]
        fit = [asked for asked in read if not isinstance(asked, str)]
        whole = self._said([one for asked in fit for one in asked])
        lines = iter(() if isinstance(whole, str) else whole)
        made = []
        for asked in read:
            if isinstance(asked, str):
                said: list[bytes] | str = asked
            elif isinstance(whole, str):
                said = self._said(asked)
            else:
                said = [next(lines) for _ in asked]
            if isinstance(said, str):
                made.append(triton.InferenceResponse(error=triton.TritonError(said)))
                continue
            rows = np.array([[line] for line in said], dtype=np.object_)
            made.append(triton.InferenceResponse([triton.Tensor("ANSWER", rows)]))
        return made

    def _said(self, asked: Sequence[Asked]) -> list[bytes] | str:
        """The answers, or why there are none."""
        try:
            return self.answers.of(asked)
        except ResidencyError as error:
            return str(error)
        except Exception as error:  # its message may hold words of a text
            return f"the model failed ({type(error).__name__})"


def _asked(request: Any, triton: Any) -> list[Asked] | str:
    """What a request asks, or why that cannot be read."""
    texts = triton.get_input_tensor_by_name(request, "TEXT").as_numpy()[:, 0]
    most = triton.get_input_tensor_by_name(request, "MAX_TOKENS")
    limits = [None] * len(texts) if most is None else [int(one) for one in most.as_numpy()[:, 0]]
    if any(one is not None and one < 1 for one in limits):
        return "MAX_TOKENS must be 1 or more"
    try:
        read = [bytes(text).decode("utf-8") for text in texts]
    except UnicodeDecodeError:
        return "TEXT must be UTF-8"
    if not all(text.strip() for text in read):
        return "TEXT must not be empty"
    return list(zip(read, limits, strict=True))
