"""An engine that is a Triton which others run, with the models of a repository that
``residency export triton`` wrote."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import quote

import msgspec

from residency.core.errors import UserError
from residency.core.files import read_json
from residency.core.types import Prediction, Turn
from residency.export import triton
from residency.models import artefact as artefacts
from residency.models.predictors import kind_of
from residency.models.sampling import FormError, noise_key
from residency.models.side_by_side import Prompt
from residency.serve import Refusal
from residency.serve.engines import (
    ChatReader,
    Piece,
    Reader,
    Served,
    TextReader,
    TokenScores,
    WritingRequest,
    bad_form,
    not_generative,
    prompt_of,
    unsupported,
)
from residency.serve.engines.servers import Client, down
from residency.serve.settings import Serve

PATIENCE = 4.0
"""Seconds that Triton may take for the fixed question."""


class TritonEngine:
    """One model of a Triton that others run. Each answer names the digest of what made it; an
    answer of another model is none."""

    def __init__(
        self, served: Served, reader: Reader, model: Path, server: Client, stops: Sequence[str] = ()
    ) -> None:
        self.served, self.reader, self.server, self.stops = served, reader, server, tuple(stops)
        self.proof = read_json(model / triton.PROOF, dict[str, Any])
        self.route = f"/v2/models/{quote(model.name)}/infer"
        self.silent = False
        """Whether the fixed question was not answered when it was asked last."""

    @classmethod
    def of(cls, folder: Path, served: Served, settings: Serve) -> TritonEngine:
        """The engine of a model whose artefact lies in a model repository; Triton is not asked yet.
        Raises ``UserError`` where files were changed, or an earlier version exported it."""
        found, model = artefacts.read(folder), triton.exported(folder)
        assert model is not None
        if '"PROMPT"' not in (model / triton.CONFIG).read_text("utf-8"):
            raise UserError(
                f"{model}: an earlier version exported it, without prompts of token ids; export it "
                "again."
            )
        server = Client(settings.triton)
        if "chat" not in served.routes:
            reader = TextReader(kind_of(found).reader(found, folder), served.name)
            return cls(served, reader, model, server)
        chat = artefacts.chat_of(found, folder)
        stops = (*found.generation().stop, *chat.stop)
        return cls(served, ChatReader(chat), model, server, stops)

    async def _said(self, inputs: dict[str, tuple[str, Any]]) -> dict[str, Any]:
        """Its answer; raises ``Refusal`` 503 where it gives none, or another model did. One that
        was silent is asked the fixed question first: while Triton loads a model it lets who asks
        wait."""
        if self.silent and not await self.probe():
            raise down()
        return await self._asked(inputs)

    async def _asked(self, inputs: dict[str, tuple[str, Any]]) -> dict[str, Any]:
        given = [
            {"name": name, "datatype": kind, "shape": [1, 1], "data": [value]}
            for name, (kind, value) in inputs.items()
        ]
        found = await self.server.ask(self.route, {"inputs": given})
        try:
            said: dict[str, Any] = msgspec.json.decode(found["outputs"][0]["data"][0])
            digest = said.pop("digest")
        except (KeyError, IndexError, TypeError, AttributeError, msgspec.DecodeError):
            raise down() from None
        if digest != self.served.digest:
            raise down()
        return {name: value for name, value in said.items() if value is not None}

    async def classify(self, text: str) -> Prediction:
        """As of ``ModelEngine``."""
        if not text.strip():
            raise Refusal(400, "empty_text", "The text holds no words; send some.")
        said = await self._said({"TEXT": ("BYTES", text), "SURE": ("BOOL", True)})
        return msgspec.convert({"id": "", **said}, Prediction)

    async def write(self, request: WritingRequest) -> AsyncGenerator[Piece, None]:
        """As of ``ModelEngine``, in one piece."""
        ids = self._reader.prompt(request, self.served.window)
        request = msgspec.structs.replace(request, stop=(*request.stop, *self.stops))
        yield await self._piece(prompt_of(ids, noise_key(request.turns), request))

    async def continue_(
        self, ids: Sequence[int], request: WritingRequest
    ) -> AsyncGenerator[Piece, None]:
        """As of ``ModelEngine``, in one piece."""
        self._reader.check_room(ids, request.max_tokens, self.served.window)
        key = noise_key((Turn(role="user", text=repr(tuple(ids))),))
        yield await self._piece(prompt_of(ids, key, request))

    async def _piece(self, prompt: Prompt) -> Piece:
        try:
            if prompt.form is not None:
                prompt.form.grammar()
        except FormError:
            raise bad_form() from None
        said = await self._said({"PROMPT": ("BYTES", msgspec.json.encode(prompt).decode())})
        ids = tuple(said["fresh"])
        return Piece(said["text"], len(ids), said["end"], ids, said["sum"])

    @property
    def _reader(self) -> ChatReader:
        """Its tokenizer; raises ``Refusal`` 400 where the model does not write."""
        if not isinstance(self.reader, ChatReader):
            raise not_generative(self.served.name)
        return self.reader

    async def score(self, ids: Sequence[int], top: int = 1) -> TokenScores:
        """Refused: it is not asked how likely tokens are."""
        raise unsupported("logprobs", "triton")

    async def probe(self) -> bool:
        """As of ``ModelEngine``: the question that was written down at export, within seconds."""
        asked = {
            "TEXT": ("BYTES", self.proof["text"]),
            "MAX_TOKENS": ("INT32", self.proof["max_tokens"]),
        }
        try:
            async with asyncio.timeout(PATIENCE):
                await self._asked(asked)
        except (Refusal, TimeoutError):
            self.silent = True
        else:
            self.silent = False
        return not self.silent

    def fault(self) -> str:
        """Nothing: who runs it starts it again."""
        return ""

    async def close(self) -> None:
        """Close the connections to it."""
        await self.server.close()
