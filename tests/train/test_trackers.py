"""Trackers: metrics leave the machine only where the profile allows it."""

from __future__ import annotations

from importlib.machinery import ModuleSpec

import pytest

from residency.core.errors import GateRefused, UserError
from residency.train import trackers


@pytest.fixture(autouse=True)
def everything_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(trackers, "find_spec", lambda name: ModuleSpec(name, None))


@pytest.mark.parametrize(
    ("tracker", "environment", "gone"),
    [
        ("wandb", {}, True),
        ("wandb", {"WANDB_MODE": "offline"}, False),
        ("mlflow", {}, False),
        ("mlflow", {"MLFLOW_TRACKING_URI": "sqlite:///runs.db"}, False),
        ("mlflow", {"MLFLOW_TRACKING_URI": "http://127.0.0.1:5000"}, False),
        ("mlflow", {"MLFLOW_TRACKING_URI": "https://elsewhere.example"}, True),
        ("tensorboard", {}, False),
    ],
)
def test_what_goes_to_another_machine_is_known(
    tracker: str, environment: dict[str, str], gone: bool
) -> None:
    assert trackers.leaves(tracker, environment) is gone  # type: ignore[arg-type]


def test_pseudonymised_data_stays() -> None:
    with pytest.raises(GateRefused, match="WANDB_MODE=offline"):
        trackers.check(["wandb"], "pseudonymised", {})
    trackers.check(["wandb"], "public", {})
    trackers.check(["wandb"], "pseudonymised", {"WANDB_MODE": "offline"})


def test_a_tracker_that_is_not_installed_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(trackers, "find_spec", lambda name: None)
    with pytest.raises(UserError, match=r"mlflow is not installed.*residency\[track\]"):
        trackers.check(["mlflow"], "public", {})
