"""Says in words why a file could not be opened, and what to do."""

from __future__ import annotations

import pickle
import platform
import warnings
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy
import sklearn
from sklearn.exceptions import InconsistentVersionWarning

from vigia_ml.importing.errors import NotImportable


def _refit() -> str:
    return f"fit the pipeline again under scikit-learn {sklearn.__version__}, on the same rows"


@dataclass
class Mismatches:
    """Versions of libraries that wrote a file, where they differ from those that read it.

    versions : library -> version in the file.
    """

    versions: dict[str, str] = field(default_factory=dict)

    def note(self, caught: Sequence[warnings.WarningMessage]) -> None:
        for each in caught:
            if isinstance(each.message, InconsistentVersionWarning):
                self.versions.setdefault("scikit-learn", str(each.message.original_sklearn_version))

    @property
    def other_release(self) -> str:
        """The version of scikit-learn in the file, if it is of another release (major and minor number)."""
        theirs = self.versions.get("scikit-learn", "")
        return "" if not theirs or theirs.split(".")[:2] == sklearn.__version__.split(".")[:2] else theirs

    def check(self, *, accepted: bool) -> None:
        """Raises `NotImportable` for another release that the user has not accepted."""
        if self.other_release and not accepted:
            here = sklearn.__version__
            raise NotImportable(
                f"the file was written by scikit-learn {self.other_release} and is read by {here}: it may "
                f"fail, or answer otherwise than it did there. Best: {_refit()}. Or open it all the same "
                "with --other-version, and compare the metrics and some known answers with the author's; a "
                "file of skops (skops.io.dump under the old version) opens in more cases than a pickle, "
                "with the same doubt"
            )


def in_words(error: Exception, mismatches: Mismatches) -> str:
    """Returns why opening a file failed, and what to do."""
    kind, text = type(error).__name__, " ".join(str(error).split())[:300]
    words = ("truncated", "exhausted", "ran out of input", "index out of range")
    if isinstance(error, EOFError) or any(each in text.lower() for each in words):
        return f"the file is cut: it ends early ({text or kind}). Copy it again, and compare its size"
    if isinstance(error, ModuleNotFoundError):
        return _missing_module(error, mismatches)
    if "unsupported pickle protocol" in text:
        return f"{text}: write the file again with pickle.dump(…, protocol={pickle.HIGHEST_PROTOCOL})"
    if "BitGenerator" in text:
        return (
            f"the file holds a random generator of another release of NumPy than {numpy.__version__} "
            f"({text}): set random_state to a number, fit again and write the file, or write it under this "
            "release"
        )
    if "incompatible dtype" in text or "node array" in text:
        return (
            f"the file holds trees of another release of scikit-learn than {sklearn.__version__} "
            f"({mismatches.other_release or 'unknown'}), whose layout differs: "
            f"{_refit()}"
        )
    if mismatches.other_release:
        return (
            f"the file was written by scikit-learn {mismatches.other_release}; {sklearn.__version__} cannot "
            f"read it ({kind}: {text}): {_refit()}"
        )
    if isinstance(error, AttributeError) and ("Can't get attribute" in text or "has no attribute" in text):
        return (
            f"a class or function of the file is not in the installed libraries ({text}): it comes from "
            f"another version of the library. Here are scikit-learn {sklearn.__version__}, NumPy "
            f"{numpy.__version__}, Python {platform.python_version()}: {_refit()}"
        )
    if isinstance(error, pickle.UnpicklingError | ValueError | IndexError | KeyError | UnicodeDecodeError):
        return (
            f"the file is damaged, or not a pickle ({kind}: {text}): copy it again in binary mode, and "
            "compare its digest with the author's"
        )
    return f"opening the file raised {kind}: {text}"


def _missing_module(error: ModuleNotFoundError, mismatches: Mismatches) -> str:
    name = error.name or ""
    if name.startswith("numpy._core"):
        return (
            f"the file was written under NumPy 2, and here is NumPy {numpy.__version__}: install numpy>=2 "
            "here, or write the file again under NumPy 1"
        )
    if name.startswith("numpy."):
        return (
            f"the file needs {name}, which NumPy {numpy.__version__} no longer has: it was written under an "
            "old NumPy 1. Load it there, and write it again under NumPy 2"
        )
    if name.startswith("sklearn."):
        return (
            f"the file needs the module {name}, which scikit-learn {sklearn.__version__} does not have: it "
            "was written by another version "
            f"({mismatches.versions.get('scikit-learn', 'before 0.22, or a newer one')}): {_refit()}"
        )
    package = name.partition(".")[0]
    return (
        f"the file needs the module {name!r}, which is not installed here: install its package (pip install "
        f"{package}) if the compiler knows its steps (LightGBM, XGBoost, CatBoost), else replace the steps "
        "by those of scikit-learn"
    )
