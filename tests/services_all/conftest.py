"""Tests against real services that take long to install and start; ``make test-services-all`` runs them."""

from __future__ import annotations

import os

import pytest


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    if os.environ.get("RESIDENCY_SERVICES") != "all":
        for item in items:
            if "services_all" in item.path.parts:
                item.add_marker(pytest.mark.skip(reason="real services: make test-services-all starts and tests them"))
