"""Faults for a server that is started with this folder on PYTHONPATH: a word of a request decides
which one happens.

``zzboom``: the model fails, after a library has logged and warned with the text in hand.
``zzhandler``: the same in the HTTP process. ``zzslow``: it takes longer than a request may.
``zzexit``: the process that computes dies of a segmentation fault.
"""

from __future__ import annotations

import importlib.machinery
import logging
import os
import signal
import sys
import time
import warnings
from collections.abc import Callable
from typing import Any

SLOW = 7.0


def fault(text: str) -> None:
    """What happens to a text."""
    if "zzboom" in text or "zzhandler" in text:
        logging.getLogger("library").error("cannot read %s", text)
        warnings.warn(f"strange: {text}", stacklevel=2)
        try:
            raise ValueError(text)
        except ValueError as error:
            logging.getLogger("library.deep").exception(text)
            raise RuntimeError(f"failed on {text!r}") from error
    if "zzslow" in text:
        time.sleep(SLOW)
    if "zzexit" in text:
        os.kill(os.getpid(), signal.SIGSEGV)


def before(owner: Any, name: str, read: Callable[..., str]) -> None:
    """Let ``fault`` see what a function is given."""
    plain = getattr(owner, name)

    def watched(*given: Any, **named: Any) -> Any:
        fault(read(*given))
        return plain(*given, **named)

    setattr(owner, name, watched)


def decoded(predictor: Any, rows: Any, *_: Any) -> str:
    return " ".join(str(predictor.chat.tokenizer.decode(list(row))) for row in rows)


def joining(batch: Any, rows: Any) -> str:
    return decoded(batch.predictor, rows)


def handler(*given: Any) -> str:
    text = str(given[1:])
    return text if "zzhandler" in text else ""


def _encoder(module: Any) -> None:
    before(module.EncoderPredictor, "classify", lambda _, texts: " ".join(texts))


def _causal(module: Any) -> None:
    before(module.CausalPredictor, "log_probabilities", decoded)


def _writing(module: Any) -> None:
    before(module.SideBySide, "join", joining)


def _loose(module: Any) -> None:
    before(module, "replace_identifiers", lambda text, *_: text)


def _reading(module: Any) -> None:
    before(module.TextReader, "count", handler)
    before(module.ChatReader, "count", handler)


PATCHES = {
    "residency.models.encoder": _encoder,
    "residency.models.causal": _causal,
    "residency.models.side_by_side": _writing,
    "residency.deid.loose": _loose,
    "residency.serve.engines": _reading,
}


class Finder:
    """Patches modules as they are imported."""

    @staticmethod
    def find_spec(name: str, path: Any = None, _: Any = None) -> Any:
        if (
            name not in PATCHES
            or (spec := importlib.machinery.PathFinder.find_spec(name, path)) is None
        ):
            return None
        run = spec.loader.exec_module  # type: ignore[union-attr]

        def patched(module: Any) -> None:
            run(module)
            PATCHES[name](module)

        spec.loader.exec_module = patched  # type: ignore[method-assign, union-attr]
        return spec


sys.meta_path.insert(0, Finder())  # type: ignore[arg-type]
