"""Tuning methods: what each attaches to a base, saves and loads. One class each, in a module of its
own."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from residency.core.part import External
from residency.models.adapters.crf import Crf
from residency.models.adapters.freeze import Freeze
from residency.models.adapters.full import Full
from residency.models.adapters.lora import Lora, lora_targets
from residency.models.adapters.method import Method, fresh
from residency.models.adapters.prefix import Prefix

__all__ = [
    "Configured",
    "Crf",
    "ExternalMethod",
    "Freeze",
    "Full",
    "Lora",
    "Method",
    "Methods",
    "Prefix",
    "fresh",
    "lora_targets",
    "method_of",
]


class ExternalMethod(External):
    """A method of another package."""


Configured = Lora | Prefix | Freeze | Full | Crf | ExternalMethod
Methods = Annotated[Configured, Field(discriminator="kind")]


def method_of(configured: Configured) -> Method:
    """The method itself, imported where it lives elsewhere."""
    return configured.load(Method) if isinstance(configured, ExternalMethod) else configured
