"""Our models in lm-evaluation-harness, so that benchmarks that others wrote run on them as they
are.

A question becomes the user's turn in the model's own chat template, as it was tuned; ``chat=False``
gives the bare text. The harness is not among our dependencies: ``lm_eval`` is imported when a model
is made for it (``scripts/harness.py``).
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

from residency.core.errors import UserError
from residency.core.types import Turn
from residency.models.running import evaluating
from residency.models.sampling import until_stop

if TYPE_CHECKING:
    from residency.models.causal import CausalPredictor

MOST_WRITTEN = 256
"""Tokens of an answer where a task does not say, as in the harness."""


class Scorer:
    """What the harness asks of a model, in plain values; a request is read from its end where it is
    too long."""

    def __init__(self, predictor: CausalPredictor, chat: bool = True) -> None:
        self.predictor, self.chat = predictor, chat
        self.model, self.tokenizer = predictor.model, predictor.chat.tokenizer
        self.window = predictor.chat.window
        ends = predictor.chat.ends
        self.first = int(
            self.tokenizer.bos_token_id if self.tokenizer.bos_token_id is not None else ends[0]
        )
        """What stands before a text that nothing precedes."""

    def likelihood(self, context: str, continuation: str) -> tuple[float, bool]:
        """log p of a continuation, and whether it is what would be written (greedily)."""
        before, after = self._pair(context, continuation)
        return self._score(before, after) if after else (0.0, True)

    def rolling(self, text: str) -> float:
        """log p of a whole text, in windows that do not overlap."""
        ids, total, step = self.predictor.chat.ids(text), 0.0, self.window - 1
        for start in range(0, len(ids), step):
            before = [ids[start - 1]] if start else [self.first]
            total += self._score(before, ids[start : start + step])[0]
        return total

    def written(self, context: str, until: Sequence[str], most: int) -> str:
        """What is written behind a context, up to the first of ``until`` or the end."""
        import torch

        most = min(most, self.window // 2)
        prompt = self._prompt(context)[-(self.window - most) :]
        device = next(self.model.parameters()).device
        with evaluating(self.model), torch.inference_mode():
            output = self.model.generate(
                input_ids=torch.tensor([prompt], device=device),
                attention_mask=torch.ones(1, len(prompt), dtype=torch.long, device=device),
                max_new_tokens=most,
                do_sample=False,
                num_beams=1,
                eos_token_id=list(self.predictor.chat.ends),
                pad_token_id=self.predictor.chat.pad_id,
            )
        words: str = self.tokenizer.decode(output[0, len(prompt) :], skip_special_tokens=True)
        return "".join(
            until_stop([words], [sign for sign in (*until, *self.predictor.chat.stop) if sign])
        )

    def _pair(self, context: str, continuation: str) -> tuple[list[int], list[int]]:
        """Tokens of both. Bare, blanks between them belong to the continuation, whose tokens are
        those that it adds."""
        if self.chat:
            return self._prompt(context), self.predictor.chat.ids(continuation.strip())
        kept = context.rstrip()
        continuation = context[len(kept) :] + continuation
        before = self.predictor.chat.ids(kept)
        return before or [self.first], self.predictor.chat.ids(kept + continuation)[len(before) :]

    def _prompt(self, context: str) -> list[int]:
        if not self.chat:
            return self.predictor.chat.ids(context) or [self.first]
        found = self.predictor.chat.prompt((Turn(role="user", text=context or " "),), 10**9)[0]
        if found is None:
            raise UserError(
                "harness: a question cannot be put into the model's chat template; ask with "
                "chat=False."
            )
        return found

    def _score(self, before: list[int], after: list[int]) -> tuple[float, bool]:
        import torch

        ids = [*before, *after][-self.window :]
        after = after[-(self.window - 1) :]
        given = torch.tensor([ids], device=next(self.model.parameters()).device)
        with evaluating(self.model), torch.inference_mode():
            logs = (
                self.model(input_ids=given, use_cache=False)
                .logits[0, -len(after) - 1 : -1]
                .float()
                .log_softmax(-1)
            )
        wanted = torch.tensor(after, device=logs.device)
        return float(logs.gather(1, wanted[:, None]).double().sum()), bool(
            (logs.argmax(-1) == wanted).all()
        )


def model_of(predictor: CausalPredictor, chat: bool = True) -> Any:
    """An ``lm_eval.api.model.LM`` that answers with a predictor; raises ``UserError`` where the
    harness is not installed."""
    try:
        from lm_eval.api.model import LM
    except ImportError:
        raise UserError(
            "harness: lm-eval is not installed; install it in an environment of its own, see "
            "docs/guide/evaluation.md."
        ) from None
    scorer = Scorer(predictor, chat)

    class Residency(LM):  # type: ignore[misc]
        """The harness's view of a model."""

        def loglikelihood(self, requests: Iterable[Any], **_: Any) -> list[tuple[float, bool]]:
            return [scorer.likelihood(*request.args[:2]) for request in requests]

        def loglikelihood_rolling(self, requests: Iterable[Any], **_: Any) -> list[float]:
            return [scorer.rolling(request.args[0]) for request in requests]

        def generate_until(self, requests: Iterable[Any], **_: Any) -> list[str]:
            return [self._until(*request.args[:2]) for request in requests]

        def _until(self, context: str, settings: dict[str, Any]) -> str:
            until = settings.get("until") or []
            most = int(settings.get("max_gen_toks", MOST_WRITTEN))
            return scorer.written(context, [until] if isinstance(until, str) else until, most)

    return Residency()
