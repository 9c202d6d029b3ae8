"""A reader of one's own, in another package."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal

from pydantic import Field, ValidationError

from residency.core.errors import UserError
from residency.core.part import External
from residency.corpus.reader import Row, Source


class ExternalSource(Source):
    """A source that lives in another package: ``target`` names a subclass of ``Source``, built from
    the settings here and from ``options``."""

    format: Literal["external"]
    target: str = Field(pattern=r"^[\w.]+:\w+$")
    """``package.module:Class``"""
    options: dict[str, Any] = {}
    """Settings of its own, beside those of every format."""

    def reader(self) -> Source:
        common = self.model_fields_set & set(Source.model_fields) - {"format"}
        options = {name: value for name, value in self if name in common} | self.options
        try:
            return External(target=self.target, options=options).load(Source)  # type: ignore[type-abstract]
        except (ValidationError, TypeError) as error:
            fault = type(error).__name__
            if isinstance(error, ValidationError):
                fault = error.errors()[0]["msg"]
            raise UserError(f"options: {self.target} does not accept them ({fault}).") from None

    def rows(self, path: Path) -> Iterator[Row]:
        return self.reader().rows(path)
