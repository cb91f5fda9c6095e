"""The tour in docs/notebooks runs from the first cell to the last."""

from __future__ import annotations

from pathlib import Path

import nbformat
import pytest
from nbclient import NotebookClient

from tests.server import Server
from tests.vigia_ml.client.conftest import Working, address
from training.models import ModelVersion, RegisteredModel

pytestmark = pytest.mark.django_db(transaction=True)
TOUR = Path(__file__).resolve().parents[3] / "docs" / "notebooks" / "tour.ipynb"


def test_the_tour_runs_against_a_service(
    server: Server, churn: ModelVersion, key: str, working: Working, monkeypatch: pytest.MonkeyPatch
) -> None:
    notebook = nbformat.read(TOUR, as_version=4)
    monkeypatch.setenv("VIGIA_URL", address(server))
    monkeypatch.setenv("VIGIA_KEY", key)
    with working():
        NotebookClient(notebook, timeout=120, kernel_name="python3").execute(cwd=str(TOUR.parents[2]))
    shown = [
        output["data"]["text/plain"]
        for cell in notebook.cells
        for output in cell.get("outputs", [])
        if "data" in output
    ]
    wine = RegisteredModel.objects.get(name="wine")
    assert [version.origin for version in wine.versions.all()] == ["pushed", "pushed"]
    assert wine.active_version is not None
    assert wine.active_version.number == 1, "the tour ends with a rollback"
    assert any("drift" in text for text in shown)
    assert len(shown) >= 12, shown
