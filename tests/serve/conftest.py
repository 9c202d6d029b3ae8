"""Minute models, made in process, and a server around them."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from serve_tools import HEADERS, KEY, Redis, Started

from residency.models import artefact
from residency.models.adapters import Lora, method_of
from residency.models.base import BaseModelSettings, resolve
from residency.models.generation import Generation, TokenLimits
from residency.models.predictors import remember
from residency.serve.settings import Serve
from residency.tasks.card import Card, Label, load_card

SPANS = Card(name="ner", family="spans", labels=(Label(name="drug"), Label(name="disease")))
LABELS = Card(
    name="triage",
    family="labels",
    labels=(Label(name="J18", title="pneumonia"), Label(name="J45"), Label(name="I10")),
)


@pytest.fixture(scope="session", autouse=True)
def one_thread() -> Iterator[None]:
    """A minute model is slower on several threads."""
    import torch
    import transformers

    transformers.utils.logging.disable_progress_bar()
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def marker(folder: Path, base: Any, card: Card, seed: int = 3) -> Path:
    """The artefact of an encoder with a random head."""
    import torch

    torch.manual_seed(seed)
    model = method_of(Lora(r=2)).attach(artefact.fresh(base, card)).eval()
    artefact.save(folder, model, base, card, Lora(r=2), "synthetic")
    remember(folder)
    return folder


@pytest.fixture(scope="session")
def artefacts(found: dict[str, Any], tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """``ner`` marks entities, ``triage`` chooses a label, ``words`` writes."""
    import torch

    root = tmp_path_factory.mktemp("artefacts")
    made = {
        "ner": marker(root / "ner", found["electra"], SPANS),
        "triage": marker(root / "triage", found["bert"], LABELS),
    }
    base, card = resolve(BaseModelSettings(id="bundled:tiny-lm")), load_card("consultation")
    torch.manual_seed(5)
    model = method_of(Lora(r=2)).attach(artefact.fresh(base, card, "text")).eval()
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "lora_B" in name:
                parameter.normal_(std=0.02)
    writing = artefact.GenerativeSettings(
        chat=artefact.chat(base, TokenLimits()), generation=Generation(max_tokens=16)
    )
    artefact.save(root / "words", model, base, card, Lora(r=2), "synthetic", writing)
    remember(root / "words")
    return made | {"words": root / "words"}


@pytest.fixture(scope="session")
def trained(found: dict[str, Any], tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Two models of one task that say different things."""
    import torch

    made = []
    for seed in (1, 2):
        torch.manual_seed(seed)
        model = method_of(Lora(r=2)).attach(artefact.fresh(found["electra"], SPANS)).eval()
        with torch.no_grad():
            for parameter in model.parameters():
                if parameter.requires_grad:
                    parameter.add_(torch.randn_like(parameter) * 0.05)
        made.append(tmp_path_factory.mktemp("trained") / str(seed))
        artefact.save(made[-1], model, found["electra"], SPANS, Lora(r=2), "synthetic")
        remember(made[-1])
    return made


@pytest.fixture(scope="session")
def engines(artefacts: dict[str, Path]) -> dict[str, Any]:
    """Their engines."""
    from residency.serve.engines.in_process import load

    return {name: load(path, name, Serve(), "cpu") for name, path in artefacts.items()}


@pytest.fixture
def app(engines: dict[str, Any]) -> Callable[..., Any]:
    """Makes the application with other settings."""
    from residency.serve.app import create_app
    from residency.serve.auth import LocalTokens
    from residency.serve.auth.rate import Rate
    from residency.serve.guard import Guard
    from residency.serve.promote import ModelChanges
    from residency.serve.records.monitoring import Users

    def make(
        served: dict[str, Any] | None = None,
        tokens: Any = None,
        audit: Any = None,
        rate: Any = None,
        metrics: Any = None,
        load: Any = None,
        ledger: Path | None = None,
        stop: Any = None,
        **settings: Any,
    ) -> Any:
        settings.setdefault("limits", {"per_second": 1000})
        given = Serve.model_validate(settings)
        guard = Guard(
            given,
            engines if served is None else served,
            tokens or LocalTokens(KEY),
            rate or Rate(given.limits),
            Users(b"x" * 32),
            audit,
            metrics,
            stop=stop,
        )
        changes = ModelChanges(guard, ledger, load) if ledger is not None else None
        return create_app(guard, changes)

    return make


@pytest.fixture
def client(app: Callable[..., Any]) -> Iterator[Any]:
    """A client of the server, in process, with the key."""
    from fastapi.testclient import TestClient

    with TestClient(app(), headers=HEADERS) as found:
        yield found


@pytest.fixture
def live(app: Callable[..., Any]) -> Iterator[Callable[..., str]]:
    """Starts real servers on loopback; gives their addresses."""
    from serve_tools import Server

    running: list[Server] = []

    def start(served: dict[str, Any] | None = None, **settings: Any) -> str:
        running.append(Server(app(served, **settings)))
        return running[-1].address

    yield start
    for one in running:
        one.end()


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Callable[..., Started]]:
    made: list[Started] = []

    def begin(*arguments: str, **how: Any) -> Started:
        made.append(Started(tmp_path, *arguments, **how))
        return made[-1]

    yield begin
    for one in made:
        one.client.close()
        if one.process.poll() is None:
            one.process.kill()
            one.process.wait()


@pytest.fixture
def redis(tmp_path: Path) -> Iterator[Redis]:
    """A Redis of its own, which a test may kill."""
    (tmp_path / "redis").mkdir()
    made = Redis(tmp_path / "redis")
    made.up()
    yield made
    made.process.kill()
    made.process.wait()
