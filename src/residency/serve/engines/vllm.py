"""The engine that computes in a vLLM server on loopback: for generative models, on a GPU."""

from __future__ import annotations

import asyncio
import contextlib
import math
import time
from collections.abc import AsyncGenerator, Sequence
from pathlib import Path
from typing import Any

import msgspec

from residency.core.errors import UserError
from residency.core.files import file_digest
from residency.core.types import Example, Prediction, Turn
from residency.models import artefact as artefacts
from residency.models.adapters import Full, Lora
from residency.models.artefact import Artefact
from residency.models.base import Base
from residency.models.chat_template import ChatTokeniser
from residency.serve.engines.tokenizer import Chats, Reading
from residency.serve.engines.vllm_process import VllmProcess, down
from residency.serve.types import Asked, Piece, Refusal, Scored, Served
from residency.tasks.codec import conversation, read

COMPLETIONS = "/v1/completions"
BASE = "base"
"""Name under which vLLM answers with the base alone."""
PROBE = (Turn(role="user", text="Q 问题 câu hỏi 1."),)
"""What a canary is asked."""
APPLIED = 1e-5
"""Least that a log-probability of the canary must move for an adapter to be at work."""
SAME = 1e-2
"""Most that it may move between two times that the same model is asked: batches are added up in
another order."""
DEAF = 3
"""Canaries in a row that a running process may fail before it is started again."""
DTYPES = {"fp32": "float32", "bf16": "bfloat16", "fp16": "float16"}


class VllmEngine(Reading):
    """One artefact in a vLLM process. It is given token ids that this project made, so template and
    tokenizer are ours."""

    def __init__(
        self,
        served: Served,
        artefact: Artefact,
        chat: ChatTokeniser,
        process: VllmProcess,
        adapted: bool,
    ) -> None:
        self.words = Chats(chat)
        super().__init__(served, self.words)
        self.process, self.adapted, self.own = process, adapted, artefact.generation()
        self.stops = (*self.own.stop, *chat.stop)
        self.ends = sorted({*chat.ends, *_own_ends(Path(artefact.base.path))})
        self._expected: list[float] = []
        self._fallen = 0
        self._starting: asyncio.Task[None] | None = None

    @staticmethod
    def can_serve(artefact: Artefact) -> str:
        """Why vLLM cannot serve an artefact as it was trained; nothing where it can."""
        kinds = artefact.kinds.split(", ")
        if artefact.base.quantise != "none":
            return (
                f"its base is quantised ({artefact.base.quantise}), and vLLM would load it "
                "with "
                "other numbers than it was trained on"
            )
        if artefact.output != "text":
            return "its model answers with a head, which vLLM does not serve"
        if "prefix" in kinds:
            return "vLLM no longer serves trained prefixes"
        if artefact.earlier:
            return (
                f"it was trained in several stages ({artefact.kinds}), of which vLLM takes one "
                "adapter"
            )
        method = artefact.tuning()
        if isinstance(method, Lora):
            if method.dora:
                return "vLLM does not serve DoRA adapters"
            return ""
        return (
            ""
            if isinstance(method, Full)
            else f"vLLM takes LoRA adapters and whole models, not {artefact.kinds}"
        )

    @classmethod
    async def launch(
        cls,
        folder: Path,
        name: str,
        python: Path | str,
        *,
        dtype: str | None = None,
        arguments: Sequence[str] = (),
        log: Path | None = None,
        command: Sequence[str] | None = None,
        seconds: float = 600,
    ) -> VllmEngine:
        """Start vLLM with an artefact, and wait until its canary answers.

        ``python``: the interpreter of the environment that vLLM is installed in; ``command`` takes
        its place. ``arguments`` go to vLLM, e.g. ``--gpu-memory-utilization=0.8``. Raises
        ``UserError`` where the artefact cannot be served, vLLM ends or does not answer in
        ``seconds``, or the adapter is not at work.
        """
        artefact = artefacts.read(folder)
        if why := cls.can_serve(artefact):
            raise UserError(f"{folder}: {why}; serve it in process (serve.engine: process).")
        base = (
            artefacts.same_base(artefact.base, folder)
            if isinstance(artefact.tuning(), Lora)
            else artefact.base
        )
        artefact = msgspec.structs.replace(artefact, base=base)
        number = dtype or _numbers(base)
        adapted = isinstance(artefact.tuning(), Lora)
        given = [
            *(command or (str(python), "-m", "vllm.entrypoints.openai.api_server")),
            *options(artefact, folder, name, number),
            *arguments,
        ]
        served = Served(
            name=name,
            digest=file_digest(folder / artefacts.FILE),
            base=base.id,
            method=artefact.kinds,
            output="text",
            card=artefact.task(),
            kind="vllm",
            dtype=number,
            window=base.window,
        )
        made = cls(
            served, artefact, artefacts.chat_of(artefact, folder), VllmProcess(given, log), adapted
        )
        try:
            made.process.start()
            await made._until_it_answers(seconds)
        except BaseException:
            await made.close()
            raise
        return made

    async def _until_it_answers(self, seconds: float) -> None:
        until = time.monotonic() + seconds
        while time.monotonic() < until:
            if not self.process.alive:
                raise UserError(
                    f"vLLM ended while it loaded {self.served.name}; its own words are in the log, "
                    "if one was named."
                )
            try:
                found = await self._probe(self.served.name)
                base = await self._probe(BASE) if self.adapted else []
            except Refusal:
                await asyncio.sleep(0.25)
                continue
            if self.adapted and max(abs(a - b) for a, b in zip(found, base, strict=True)) < APPLIED:
                raise UserError(
                    f"vLLM answers as the base where {self.served.name} was asked: the adapter is "
                    "not at work (misnamed tensors, or "
                    "nothing learned); serve it in process (serve.engine: process), or train again."
                )
            if self._expected and _apart(found, self._expected) > SAME:
                raise UserError(
                    "vLLM answers otherwise than before it was started again, as "
                    f"{self.served.name}."
                )
            self._expected = self._expected or found
            return
        raise UserError(f"vLLM did not answer within {seconds:.0f} s as {self.served.name}.")

    async def _probe(self, model: str) -> list[float]:
        """Log-probabilities of a fixed conversation's tokens."""
        scored = await self._scored(self.words.prompt(PROBE, 1, self.served.window), 1, model)
        return [one for one in scored.log_probabilities if one is not None]

    # Answers

    async def mark(self, text: str) -> Prediction:
        """What is written about a text, read back; as many tokens as the artefact's own setting, or
        a quarter of its window."""
        card = self.served.card
        example = Example(id="0", task=card.name, input=text, profile="pseudonymised")
        began = time.perf_counter()
        words, tokens = "", 0
        asked = Asked(turns=conversation(example, card), max_tokens=self.served.window // 4)
        async for piece in self.write(asked):
            words, tokens = words + piece.text, piece.tokens
        answer, failure = read(words.strip(), example, card)
        took = (time.perf_counter() - began) * 1000
        return Prediction(
            id="0",
            answer=answer,
            text=words.strip(),
            failure=failure,
            latency_ms=took,
            tokens=tokens,
        )

    async def write(self, asked: Asked) -> AsyncGenerator[Piece, None]:
        """As of ``Engine``."""
        ids = self.words.prompt(asked.turns, asked.max_tokens, self.served.window)
        asked = msgspec.structs.replace(asked, stop=(*asked.stop, *self.stops))
        async with contextlib.aclosing(self.continue_(ids, asked)) as pieces:
            async for piece in pieces:
                yield piece

    async def continue_(self, ids: Sequence[int], asked: Asked) -> AsyncGenerator[Piece, None]:
        """As of ``Engine``."""
        self.words.room(ids, asked.max_tokens, self.served.window)
        body = {
            "model": self.served.name,
            "prompt": list(ids),
            "max_tokens": asked.max_tokens,
            "temperature": asked.temperature,
            "top_p": asked.top_p,
            "seed": asked.seed,
            "repetition_penalty": self.own.repetition_penalty,
            "stop": list(asked.stop),
            "stop_token_ids": self.ends,
            "logprobs": 1,
            "return_token_ids": True,
            "stream_options": {"include_usage": True, "continuous_usage_stats": True},
        }
        self._awake()
        tokens, end, last = 0, None, ""
        total, ids, known = 0.0, tuple[int, ...](), 0
        async with contextlib.aclosing(self.process.stream(COMPLETIONS, body)) as events:
            async for event in events:
                if "error" in event:
                    raise down()
                tokens = int((event.get("usage") or {}).get("completion_tokens") or tokens)
                for choice in event.get("choices", ()):
                    reason = choice.get("finish_reason")
                    if reason not in (None, "stop", "length"):
                        raise down()
                    end = reason or end
                    logs = (choice.get("logprobs") or {}).get("token_logprobs") or ()
                    total, known = total + sum(logs), known + len(logs)
                    ids += tuple(
                        one for one in choice.get("token_ids") or () if one not in self.ends
                    )
                    if choice.get("text") and not reason:
                        yield Piece(
                            text=choice["text"], tokens=tokens, ids=ids, log_probability=total
                        )
                        ids = ()
                    elif reason:
                        last = choice.get("text") or ""
        if end is None:
            raise down()
        sure = (
            total if known >= tokens else -math.inf
        )  # where vLLM did not say how likely a token was, nothing is sure
        yield Piece(text=last, tokens=tokens, end=end, ids=ids, log_probability=sure)

    async def score(self, ids: Sequence[int], top: int = 1) -> Scored:
        """As of ``Engine``."""
        self._awake()
        return await self._scored(ids, top, self.served.name)

    async def _scored(self, ids: Sequence[int], top: int, model: str) -> Scored:
        given = list(ids)
        self.words.room(given, 1, self.served.window)  # vLLM writes a token at the least
        body = {
            "model": model,
            "prompt": given,
            "max_tokens": 1,
            "temperature": 0,
            "echo": True,
            "logprobs": top,
        }
        found = await self.process.ask(COMPLETIONS, body)
        try:
            logs = found["choices"][0]["logprobs"]
            values, tops = logs["token_logprobs"][: len(given)], logs["top_logprobs"][: len(given)]
            if len(values) != len(given) or any(value is None for value in values[1:]):
                raise down()  # echo was not honoured: whatever it says is about other tokens
        except (KeyError, IndexError, TypeError):
            raise down() from None
        named = [{k: float(v) for k, v in one.items()} if one else None for one in tops[1:]]
        return self.words.scored(given, (None, *map(float, values[1:])), (None, *named))

    # Health

    def _awake(self) -> None:
        """Refuse while it is down; the first who notices has it started again."""
        if self._starting is not None and not self._starting.done():
            raise down()
        if not self.process.alive:
            self._restart()
            raise down()

    def _restart(self) -> None:
        if self._starting is None or self._starting.done():
            self._starting = asyncio.get_running_loop().create_task(self._again())

    async def _again(self, seconds: float = 600) -> None:
        self._fallen = 0
        await asyncio.to_thread(self.process.start)
        try:
            await self._until_it_answers(seconds)
        except UserError:
            await asyncio.to_thread(
                self.process.end
            )  # what does not prove itself does not answer; the next question tries anew

    async def canary(self) -> bool:
        """As of ``Engine``; a process that is dead, or deaf several times in a row, is started
        again."""
        try:
            self._awake()
            good = _apart(await self._probe(self.served.name), self._expected) <= SAME
        except Refusal:
            good = False
        idle = self._starting is None or self._starting.done()
        self._fallen = 0 if good or not idle else self._fallen + 1
        if self._fallen >= DEAF:
            self._restart()
        return good

    async def close(self) -> None:
        """As of ``Engine``."""
        if self._starting is not None:
            self._starting.cancel()
            with contextlib.suppress(asyncio.CancelledError, UserError):
                await self._starting
        await self.process.close()


def options(artefact: Artefact, folder: Path, name: str, dtype: str) -> list[str]:
    """What vLLM is told of an artefact."""
    method = artefact.tuning()
    common = [
        "--dtype",
        dtype,
        "--max-model-len",
        str(artefact.base.window),
        "--disable-uvicorn-access-log",
    ]
    if not isinstance(method, Lora):
        return ["--model", str(folder.resolve()), "--served-model-name", name, *common]
    rank = next(
        size
        for size in (8, 16, 32, 64, 128, 256, 320, 512, 1 << 30)
        if size >= _rank(folder, method)
    )
    more = ["--enable-lora", "--max-loras", "1", "--max-lora-rank", str(rank)]
    adapter = ["--lora-modules", f"{name}={folder.resolve()}"]
    return ["--model", artefact.base.path, "--served-model-name", BASE, *common, *more, *adapter]


def _rank(folder: Path, method: Lora) -> int:
    config = msgspec.json.decode((folder / "adapter_config.json").read_bytes(), type=dict[str, Any])
    return int(config.get("r") or method.r)


def _numbers(base: Base) -> str:
    """The numbers that a base is computed in: never vLLM's own choice, which is another one than
    that of training."""
    if base.dtype != "auto":
        return DTYPES[base.dtype]
    try:
        config = msgspec.json.decode(
            (Path(base.path) / "config.json").read_bytes(), type=dict[str, Any]
        )
    except (OSError, msgspec.DecodeError):
        return "float32"
    kind = str(config.get("dtype") or config.get("torch_dtype") or "float32")
    return kind if kind in DTYPES.values() else "float32"


def _own_ends(path: Path) -> list[int]:
    """Tokens at which the base itself ends."""
    try:
        config = msgspec.json.decode(
            (path / "generation_config.json").read_bytes(), type=dict[str, Any]
        )
    except (OSError, msgspec.DecodeError):
        return []
    own = config.get("eos_token_id")
    return [own] if isinstance(own, int) else list(own or [])


def _apart(a: Sequence[float], b: Sequence[float]) -> float:
    return max((abs(x - y) for x, y in zip(a, b, strict=True)), default=0.0)
