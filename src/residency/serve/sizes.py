"""How much may be asked: the user's words, what is around them, the answer, and the model's window.

Counts are the served tokenizer's, the same on every route. What is too long is refused with its
count and its limit; nothing is ever cut.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable

from residency.core.types import Value
from residency.serve.settings import Limits
from residency.serve.types import Refusal


class Sizes(Value, frozen=True):
    """Tokens of a request that was found to fit."""

    input: int
    """What the user says: all of his words."""
    context: int
    """What is around them: template, system text, earlier answers, passages."""
    answer: int
    """Most tokens of the answer."""


def user_tokens(count: Callable[[str], int], texts: Iterable[str]) -> int:
    """Tokens of all that the user says in a request, each text by itself."""
    return sum(count(text) for text in texts)


def fit(
    limits: Limits, user: int, prompt: int | None = None, answer: int | None = None, window: int = 0
) -> Sizes:
    """Check a request: ``user`` tokens of the user's, ``prompt`` in all (``user`` and what is
    around it; ``None``: nothing is), ``answer`` that he asks for (``None``: as many as there may
    be), ``window`` of the model (0: it reads any length).

    Raises ``Refusal`` 400 ``too_long``.
    """
    whole = user if prompt is None else max(prompt, user)
    check_input(limits, user)
    check_context(limits, whole - user)
    wanted = check_answer(limits, answer)
    return Sizes(user, whole - user, check_window(whole, wanted, window, exact=answer is not None))


def fit_text(limits: Limits, user: int, window: int = 0) -> Sizes:
    """Check a request that is not answered in tokens: spans, labels."""
    check_input(limits, user)
    if window and user > window:
        raise too_long(
            f"The text has {user} tokens; this model reads {window} at once. Send it in parts."
        )
    return Sizes(user, 0, 0)


def check_input(limits: Limits, user: int) -> None:
    """All words of the user."""
    if user > limits.input_tokens:
        raise too_long(
            f"The request holds {user} tokens of user input; at most {limits.input_tokens} are "
            "taken. Shorten it: nothing is cut here."
        )


def check_context(limits: Limits, context: int) -> None:
    """All that is not the user's."""
    if context > limits.context_tokens:
        raise too_long(
            f"The request holds {context} tokens around the user's words (template, system text, "
            "earlier answers, passages); "
            f"at most {limits.context_tokens} are taken. Send fewer earlier turns or passages."
        )


def check_answer(limits: Limits, answer: int | None) -> int:
    """The length of answer that is asked for; the most there may be where none is."""
    if answer is None:
        return limits.output_tokens
    if answer < 1:
        raise Refusal(
            400, "bad_max_tokens", f"max_tokens is {answer}; allowed: 1 to {limits.output_tokens}."
        )
    if answer > limits.output_tokens:
        raise too_long(
            f"max_tokens is {answer}; at most {limits.output_tokens} tokens are written. Ask for "
            "fewer."
        )
    return answer


def check_window(prompt: int, answer: int, window: int, exact: bool = True) -> int:
    """Prompt and answer together must fit what the model reads. Where no length was asked for
    (``exact`` is off), the answer gets what is left."""
    if not window:
        return answer
    if prompt >= window or (exact and prompt + answer > window):
        wanted = f" and {answer} of answer" if exact else ""
        raise too_long(
            f"The prompt has {prompt} tokens{wanted}; this model reads {window} in all. Shorten "
            "one of them."
        )
    return min(answer, window - prompt)


def too_long(sentence: str) -> Refusal:
    """400, with counts and limits in its sentence."""
    return Refusal(400, "too_long", sentence)
