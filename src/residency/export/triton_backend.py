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
from residency.models.sampling import FormError
from residency.models.side_by_side import Prompt, Row, SideBySide, write
from residency.tasks.examples import question

ARTEFACT = "artefact"
"""Folder of a version with the model."""
ROWS = 32
"""Prompts that are answered side by side at most."""
Text = tuple[str, int | None, bool]
"""A text, the most tokens of its answer where that is written, and whether spans and labels come
with how sure the model is of them."""
Asked = Text | Prompt
INPUTS = ("TEXT", "MAX_TOKENS", "SURE", "PROMPT")


class Answers:
    """A model and what it answers, as JSON."""

    def __init__(self, folder: Path) -> None:
        self.digest = file_digest(folder / artefacts.FILE)
        self.predictor = trained(folder)
        self.card = self.predictor.card

    def of(self, asked: Sequence[Asked]) -> list[bytes]:
        """What each is answered, in order, with the digest of what made it."""
        texts = iter(self._of_texts([one for one in asked if not isinstance(one, Prompt)]))
        prompts = iter(self._of_prompts([one for one in asked if isinstance(one, Prompt)]))
        return [next(prompts if isinstance(one, Prompt) else texts) for one in asked]

    def _of_prompts(self, asked: Sequence[Prompt]) -> list[bytes]:
        """Per prompt what follows it; raises ``UserError`` where the model does not write."""
        predictor: Any = self.predictor
        if asked and not hasattr(predictor, "chat"):
            raise UserError("PROMPT is for models that write; send TEXT")
        rows = []
        for one in asked:
            try:
                steps = one.steps(predictor)
            except (FormError, ValueError):
                raise UserError("PROMPT has a form that cannot be held to") from None
            rows.append(Row(one, steps, predictor.chat.tokenizer))
        for first in range(0, len(rows), ROWS):
            write(SideBySide(predictor), rows[first : first + ROWS])
        names = ("text", "end", "sum", "fresh")
        made = [{name: getattr(row, name) for name in names} for row in rows]
        return [msgspec.json.encode({**one, "digest": self.digest}) for one in made]

    def _of_texts(self, asked: Sequence[Text]) -> list[bytes]:
        """Per text a prediction; together where answers may be equally long."""
        found: dict[int, Prediction] = {}
        for how in {(most, sure) for _, most, sure in asked}:
            chosen = [number for number, one in enumerate(asked) if one[1:] == how]
            made = self._predicted([asked[number][0] for number in chosen], *how)
            found |= dict(zip(chosen, made, strict=True))
        return [self._line(found[number]) for number in range(len(asked))]

    def _predicted(self, texts: Sequence[str], most: int | None, sure: bool) -> list[Prediction]:
        predictor = self._limited(most)
        if sure and hasattr(predictor, "classify"):
            made = predictor.classify(list(texts))
            return [Prediction(id="", answer=answer, tokens=count) for answer, count in made]
        notes = [RawNote(id=str(place), patient="", text=one) for place, one in enumerate(texts)]
        return list(predictor.predict([question(note, self.card) for note in notes]))

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


def _asked(request: Any, triton: Any) -> Sequence[Asked] | str:
    """What a request asks, or why that cannot be read."""
    texts, most, sure, prompts = (_rows(request, triton, name) for name in INPUTS)
    if (texts is None) == (prompts is None):
        return "one of TEXT and PROMPT is needed"
    try:
        if prompts is not None:
            return [msgspec.json.decode(bytes(one), type=Prompt) for one in prompts]
        read = [bytes(text).decode("utf-8") for text in texts or ()]
    except UnicodeDecodeError:
        return "TEXT must be UTF-8"
    except msgspec.MsgspecError:
        return "PROMPT cannot be read"
    limits = [None] * len(read) if most is None else [int(one) for one in most]
    if any(one is not None and one < 1 for one in limits):
        return "MAX_TOKENS must be 1 or more"
    if not all(text.strip() for text in read):
        return "TEXT must not be empty"
    wanted = [False] * len(read) if sure is None else [bool(one) for one in sure]
    return list(zip(read, limits, wanted, strict=True))


def _rows(request: Any, triton: Any, name: str) -> list[Any] | None:
    """The rows of an input, where it is given."""
    found = triton.get_input_tensor_by_name(request, name)
    return None if found is None else list(found.as_numpy()[:, 0])
