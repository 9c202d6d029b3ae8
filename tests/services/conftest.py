"""Real servers, started by scripts/services.py; without it these tests skip with a reason, under it
none does."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from real_servers import Hospital, needed


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if "tests/services" in item.path.as_posix():
            item.add_marker(pytest.mark.services)
            item.add_marker(pytest.mark.server)


@pytest.fixture(params=["postgresql", "mariadb"])
def admin(request: pytest.FixtureRequest) -> str:
    """The URL of a server's administrator."""
    return needed(f"RESIDENCY_TEST_{request.param.upper()}")


@pytest.fixture(scope="module")
def chromium() -> Iterator[Any]:
    """A browser; of a module, since its event loop would be in the way of others'."""
    sync = pytest.importorskip("playwright.sync_api")
    flags = ["--no-sandbox"] if os.getuid() == 0 else []
    with sync.sync_playwright() as playwright:
        program = needed("RESIDENCY_TEST_CHROMIUM")
        started = playwright.chromium.launch(executable_path=program, args=flags)
        yield started
        started.close()


@pytest.fixture
def hospital(admin: str, tmp_path: Path) -> Iterator[Hospital]:
    made = Hospital(admin, "his", tmp_path)
    made.make()
    made.recipe()
    yield made
    made.engine.dispose()
    made.server.dispose()
