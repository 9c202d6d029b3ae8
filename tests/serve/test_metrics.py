"""Figures for Prometheus: right, without users, and of bounded number."""

from __future__ import annotations

import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from prometheus_client.parser import text_string_to_metric_families

from residency.serve.engines import Served
from residency.serve.records import monitoring
from residency.serve.records.monitoring import MOST_CODES, Metrics, forget_dead_workers
from residency.tasks.card import Card, Label

ROUTES = ("POST /extract", "POST /v1/chat/completions")


def values(metrics: Metrics) -> dict[tuple[str, tuple[str, ...]], float]:
    """As a Prometheus client reads the page."""
    return {
        (sample.name, tuple(value for _, value in sorted(sample.labels.items()))): sample.value
        for family in text_string_to_metric_families(metrics.render().decode())
        for sample in family.samples
    }


def test_requests_tokens_and_refusals_are_counted() -> None:
    metrics = Metrics(ROUTES, ["ner"])
    metrics.request("POST /extract", 200, 0.02, "ner")
    metrics.request("POST /extract", 200, 0.2, "ner")
    metrics.tokens("ner", 30, 4)
    metrics.refused("too_fast")
    found = values(metrics)
    assert found["residency_requests_total", ("ner", "POST /extract", "200")] == 2
    assert found["residency_request_seconds_bucket", ("0.025", "ner", "POST /extract")] == 1
    assert found["residency_tokens_total", ("input", "ner")] == 30
    assert found["residency_refusals_total", ("too_fast",)] == 1


def test_labels_take_fixed_values_only() -> None:
    metrics = Metrics(ROUTES, ["ner"])
    for number in range(500):
        metrics.request(f"GET /nguyen-van-{number}", 700 + number, 0.1, f"patient-{number}")
        metrics.refused(f"Nguyễn Văn {number}")
        metrics.refused(f"code_{number}")
        metrics.tokens(f"patient-{number}", 1, 1)
    page = metrics.render().decode()
    assert "nguyen" not in page
    assert "Nguyễn" not in page
    assert "patient" not in page
    found = values(metrics)
    assert found["residency_requests_total", ("other", "other", "other")] == 500
    assert sum(name == "residency_refusals_total" for name, _ in found) == MOST_CODES + 1


def test_workers_that_begin_at_once_forget_the_same_dead(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for pid in range(100):
        for mode in ("livesum", "livemin", "livemostrecent"):
            (tmp_path / f"gauge_{mode}_{pid}.db").touch()
        (tmp_path / f"counter_{pid}.db").touch()
    monkeypatch.setenv("PROMETHEUS_MULTIPROC_DIR", str(tmp_path))
    monkeypatch.setattr(monitoring, "process_alive", lambda pid: pid == 7)
    with ThreadPoolExecutor(8) as workers:
        for begun in [workers.submit(forget_dead_workers) for _ in range(8)]:
            begun.result()
    assert {path.name for path in tmp_path.glob("gauge*")} == {
        "gauge_livesum_7.db",
        "gauge_livemin_7.db",
        "gauge_livemostrecent_7.db",
    }
    assert len(list(tmp_path.glob("counter*"))) == 100, "what the dead have counted counts still"


def test_a_flipped_alias_shows_the_new_artefact_only() -> None:
    metrics = Metrics(ROUTES, ["ner"])
    card = Card(name="x", family="spans", labels=(Label(name="A"),))
    for digest in ("a" * 64, "b" * 64):
        metrics.serves(
            Served(
                name="ner",
                digest=digest,
                base="bundled:tiny-encoder",
                method="lora",
                output="head",
                card=card,
            )
        )
    shown = {
        labels[1]: value
        for (name, labels), value in values(metrics).items()
        if name == "residency_model_info"
    }
    assert shown == {"a" * 64: 0, "b" * 64: 1}


WORKER = """
import os, sys
from residency.serve.records.monitoring import Metrics
metrics = Metrics(("POST /extract",), ["ner"])
metrics.request("POST /extract", 200, 0.1, "ner")
metrics.ready("ner", len(sys.argv) < 2)
sys.stdout.buffer.write(metrics.render())
"""


def test_any_of_several_workers_answers_for_all(tmp_path: Path) -> None:
    environment = {"PROMETHEUS_MULTIPROC_DIR": str(tmp_path), "PYTHONPATH": ":".join(sys.path)}
    for _ in range(2):
        done = subprocess.run(
            [sys.executable, "-c", WORKER],
            env=environment,
            capture_output=True,
            text=True,
            check=True,
        )
    assert (
        'residency_requests_total{model="ner",route="POST /extract",status="200"} 2.0'
        in done.stdout
    )
