"""A CRF over what words look like: no base, and trained in seconds."""

from __future__ import annotations

from pathlib import Path
from typing import Any, ClassVar, Literal

from pydantic import Field

from residency.core.errors import UserError
from residency.models.adapters.method import Method
from residency.models.lexical import GROUPS, Group


class Crf(Method):
    """A linear-chain conditional random field (Lafferty et al., 2001) over words, shapes, affixes
    and dictionaries; of labels, whose chain is one place long, a logistic regression.

    It starts from no base and needs python-crfsuite.
    """

    kind: Literal["crf"] = "crf"
    c1: float = Field(default=0.1, ge=0)
    """Weight of the L1 penalty, which makes features fewer; 0 for none."""
    c2: float = Field(default=0.1, ge=0)
    """Weight of the L2 penalty."""
    iterations: int = Field(default=60, ge=1)
    """Of L-BFGS, at most."""
    features: tuple[Group, ...] = Field(default=GROUPS, min_length=1)
    """``words``, ``shapes``, ``affixes``, ``characters`` (of words), ``neighbours``, ``phrases``
    (words together), ``place`` (ends of lines and sentences), ``dictionary`` (the training part's
    spans, an example's own not counted)."""
    window: int = Field(default=2, ge=1, le=5)
    """Neighbours on each side."""
    dictionaries: tuple[str, ...] = ()
    """Files of terms, one a line, relative to the recipe; each is a feature under its file's name,
    and is kept in the artefact."""
    needs_base: ClassVar[bool] = False

    def attach(self, model: Any) -> Any:
        raise self._no_base()

    def save(self, model: Any, folder: Path) -> None:
        raise self._no_base()

    def load(self, model: Any, folder: Path, *, merge: bool) -> Any:
        raise self._no_base()

    def _no_base(self) -> UserError:
        return UserError(
            "method.kind: crf: changes no base, and no other stage goes on from it; give the stage "
            "start: base, or use lora or full."
        )
