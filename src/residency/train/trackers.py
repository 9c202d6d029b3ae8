"""Experiment trackers: metrics to TensorBoard, MLflow or Weights & Biases, where installed, asked
for, and allowed."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any
from urllib.parse import urlparse

from residency.core.errors import GateRefused, UserError
from residency.core.types import Profile
from residency.train.stage import Logger

PACKAGE = {"tensorboard": "tensorboard", "mlflow": "mlflow", "wandb": "wandb"}


def leaves(tracker: Logger, environment: Mapping[str, str]) -> bool:
    """Whether what a tracker is told goes to another machine."""
    if tracker == "wandb":
        return environment.get("WANDB_MODE", "online") not in {"offline", "disabled", "dryrun"}
    if tracker == "mlflow":
        uri = urlparse(environment.get("MLFLOW_TRACKING_URI", ""))
        here = {"localhost", "127.0.0.1", "::1"}
        return uri.scheme in {"http", "https"} and uri.hostname not in here
    return False


def check(
    track: Sequence[Logger], profile: Profile, environment: Mapping[str, str] = os.environ
) -> None:
    """Refuse a tracker that is not installed, or that would carry pseudonymised data's metrics off
    the machine.

    Raises ``UserError`` for the first, ``GateRefused`` for the second.
    """
    for tracker in track:
        if find_spec(PACKAGE[tracker]) is None:
            raise UserError(
                f'stages[0].track: {tracker} is not installed; run pip install "residency[track]", '
                "or leave it out."
            )
        if profile == "pseudonymised" and leaves(tracker, environment):
            local = "WANDB_MODE=offline" if tracker == "wandb" else "a local MLFLOW_TRACKING_URI"
            raise GateRefused(
                f"stages[0].track: {tracker} would send metrics of pseudonymised data to another "
                f"machine; set {local}."
            )


def callbacks(track: Sequence[Logger], folder: Path) -> list[Any]:
    """Trainer callbacks of the trackers; TensorBoard writes below ``folder``."""
    from transformers.integrations import integration_utils as integrations

    os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
    os.environ.setdefault("WANDB_DISABLE_CODE", "true")
    found: list[Any] = []
    for tracker in track:
        if tracker == "tensorboard":
            from torch.utils.tensorboard import SummaryWriter

            writer = SummaryWriter(str(folder / "tensorboard"))
            found.append(integrations.TensorBoardCallback(writer))
        elif tracker == "mlflow":
            found.append(integrations.MLflowCallback())
        else:
            found.append(integrations.WandbCallback())
    return found
