"""The public names of `vigia_ml`, and the cost of importing them."""

from __future__ import annotations

import subprocess
import sys

import pytest

import vigia_ml


def test_every_public_name_exists_and_is_listed() -> None:
    assert set(vigia_ml.__all__) <= set(dir(vigia_ml))
    for name in vigia_ml.__all__:
        assert getattr(vigia_ml, name).__name__ == name
    assert set(vigia_ml.__all__) == set(vigia_ml._MODULES)
    with pytest.raises(AttributeError, match="has no attribute 'Nothing'"):
        _ = vigia_ml.Nothing


def test_importing_the_package_imports_none_of_its_modules() -> None:
    script = "import sys, vigia_ml; print([name for name in sys.modules if name.startswith('vigia_ml.')])"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"
