"""The image, built once."""

from __future__ import annotations

import pytest

from tests.container import building
from tests.container.building import Built


@pytest.fixture(scope="session")
def built() -> Built:
    return building.build()


def pytest_sessionfinish() -> None:
    building.remove()
