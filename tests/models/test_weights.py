"""What a library does not need is not imported with it."""

from __future__ import annotations

import importlib.util
import sys
from functools import lru_cache
from types import ModuleType

import pytest

from residency.models.weights import unseen


@pytest.fixture
def library(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """A library that looks once whether a package is there, as transformers and peft do."""
    made = ModuleType("made_library")
    made.has = lru_cache(lambda: importlib.util.find_spec("this") is not None)  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "made_library", made)
    monkeypatch.delitem(sys.modules, "this", raising=False)
    return made


def test_a_package_is_unseen_within_and_found_again_behind(library: ModuleType) -> None:
    assert library.has(), "asked before, and remembered"
    with unseen("this", "made_library", "has"):
        assert not library.has()
        with pytest.raises(ImportError):
            importlib.import_module("this")
    assert library.has()
    assert "this" not in sys.modules


def test_a_package_that_is_in_use_stays(
    library: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    used = ModuleType("this")
    used.__spec__ = importlib.util.find_spec("this")
    monkeypatch.setitem(sys.modules, "this", used)
    with unseen("this", "made_library", "has"):
        assert library.has()
    assert sys.modules["this"] is used
