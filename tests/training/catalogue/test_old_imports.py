"""Files older than the library's own package keep working, with a warning that shows the new import."""

from __future__ import annotations

import warnings
from pathlib import Path

import pytest

from tests.training.management.test_load_dataset import DECLARATION
from training import catalogue
from training.transformers import text as forwarded
from vigia_ml import ModelDeclaration, MonitoringConfig
from vigia_ml.transformers.text import CleanText

TODAY = (
    "from vigia_ml.declaration import Gate, ModelDeclaration\n"
    "from vigia_ml.schema import Column, DatasetSchema\n"
)
THEN = (
    "from training.declaration import Gate, ModelDeclaration, Watch\n"
    "from training.schema import Column, DatasetSchema\n"
)


def test_a_file_of_an_older_startmodel_is_read_with_a_warning_for_each_old_import(shelf: Path) -> None:
    assert TODAY in DECLARATION
    old = DECLARATION.replace(TODAY, THEN).replace('gate=Gate(minimum={"r2": 0.8})', "watch=Watch(psi=0.2)")
    (shelf / "fruit.py").write_text(old, encoding="utf-8")

    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        declared = catalogue.get("fruit")

    assert isinstance(declared, ModelDeclaration)
    assert declared.watch == MonitoringConfig(psi=0.2)
    messages = [(each.category, str(each.message), Path(each.filename).name) for each in caught]
    assert messages == [
        (DeprecationWarning, f"training.{module} moved: write `from vigia_ml import {name}`", "fruit.py")
        for module, name in (
            ("declaration", "Gate"),
            ("declaration", "ModelDeclaration"),
            ("declaration", "MonitoringConfig"),
            ("schema", "Column"),
            ("schema", "DatasetSchema"),
        )
    ]


def test_transformers_are_importable_from_their_old_place() -> None:
    with pytest.warns(DeprecationWarning, match="write `from vigia_ml.transformers.text import CleanText`"):
        assert forwarded.CleanText is CleanText
    with pytest.raises(AttributeError, match="has no attribute 'Nothing'"):
        _ = forwarded.Nothing
