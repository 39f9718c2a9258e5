from __future__ import annotations

import pytest


@pytest.fixture(scope="module")
def shapes(tmp_path_factory: pytest.TempPathFactory) -> str:
    """Override that keeps the drawn images of a module in one folder."""
    return f"data.root={tmp_path_factory.mktemp('shapes')}"
