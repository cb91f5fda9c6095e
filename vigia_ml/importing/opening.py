"""Opens a file of a fitted pipeline; runs in `vigia_ml.sandbox`, and answers with JSON and files alone.

    vigia_ml.sandbox.call("vigia_ml.importing.opening:inspect", …)
    vigia_ml.sandbox.call("vigia_ml.importing.opening:convert", …)

Everything that it raises on purpose is `NotImportable`.
"""

from __future__ import annotations

import json
import sys
import tempfile
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

import joblib
import numpy as np
import threadpoolctl

from vigia_ml.importing import conversion, pickles, skops_files
from vigia_ml.importing import parts as parts_of
from vigia_ml.importing.errors import NotImportable
from vigia_ml.importing.failures import Mismatches, in_words
from vigia_ml.importing.file_kinds import kind_of, unpacked
from vigia_ml.importing.parts import Parts
from vigia_ml.schema.faults import first_of

MOST_NAMES: Final = 50_000
"""Columns, features and categories that are reported."""


def _fit_into_the_sandbox() -> None:
    """Tells Python the only writable directory, in which it cannot remove files, and stops threadpoolctl,
    which looks for libraries in /proc."""
    try:
        tempfile.gettempdir()
    except FileNotFoundError:
        tempfile.tempdir = "."
    try:
        with Path("/proc/self/maps").open("rb"):
            pass
    except OSError:
        threadpoolctl.ThreadpoolController._load_libraries = lambda controller: None


_fit_into_the_sandbox()


def inspect(directory: Path, files: list[str], options: dict[str, Any]) -> dict[str, Any]:
    """Opens the files and reports what they hold.

    Parameters
    ----------
    files : names of the files in `directory`. options : ``allowed`` names of classes, ``other_version``.

    Returns
    -------
    ``globals``, the names that the files ask for; ``parts``, see `_described`; ``versions`` of the libraries
    that wrote the files, where they differ.
    """
    return _plainly(lambda: _inspect(directory, files, options))


def convert(
    directory: Path, files: list[str], options: dict[str, Any], plan: dict[str, Any]
) -> dict[str, Any]:
    """Opens the files and compiles their pipeline; see `vigia_ml.importing.conversion.convert`."""

    def work() -> dict[str, Any]:
        parts, mismatches = _opened(directory, files, options)
        return conversion.convert(parts, plan, directory) | {"versions": mismatches.versions}

    return _plainly(work)


def _plainly(work: Callable[[], dict[str, Any]]) -> dict[str, Any]:
    with warnings.catch_warnings(), np.errstate(all="ignore"), joblib.parallel_config(backend="sequential"):
        warnings.simplefilter("ignore")
        # Through text, because an object of the file might pretend to be a plain value.
        return dict(json.loads(json.dumps(work(), default=str)))


def _inspect(directory: Path, files: list[str], options: dict[str, Any]) -> dict[str, Any]:
    names = _listed(directory, files)
    unknown = [name for name in names if not pickles.is_known(name) and name not in options["allowed"]]
    if unknown:
        raise NotImportable(_unknown(unknown))
    parts, mismatches = _opened(directory, files, options)
    return {"globals": names, "parts": _described(parts), "versions": mismatches.versions}


def _listed(directory: Path, files: list[str]) -> list[str]:
    names: dict[str, None] = {}
    for at, file in enumerate(files):
        path = directory / file
        if kind_of(path) == "skops":
            names |= dict.fromkeys(skops_files.listed(path))
            continue
        try:
            names |= dict.fromkeys(pickles.listed(unpacked(path, directory / f"listed-{at}")))
        except NotImportable:
            raise
        except Exception as error:  # a damaged file may raise anything
            raise NotImportable(in_words(error, Mismatches())) from error
    return list(names)


def _unknown(names: list[str]) -> str:
    own = [name for name in names if name.startswith("__main__.")]
    if own:
        return (
            f"the file needs {first_of(own, 4)}, defined in its author's script or notebook, and a pickle "
            "does not hold code. Replace it by steps of scikit-learn (FunctionTransformer with a function "
            "of numpy, ColumnTransformer, …), fit again and import that; or push the pipeline from the "
            "notebook, which says which step cannot be compiled"
        )
    if not any(name.partition(".")[0] in sys.stdlib_module_names for name in names) and not any(
        name.partition(".")[0] in pickles.LIBRARIES for name in names
    ):
        return (
            f"the file uses {first_of(names, 6)}, from a library that Vigía does not know; it knows "
            "scikit-learn, LightGBM, XGBoost and CatBoost, and compiles only their steps. Replace the step "
            "by one of theirs and fit again; if the library is installed here and you trust the file: "
            f"--allow-class {names[0]}"
        )
    return (
        f"the file asks for {first_of(names, 6)}, which no pipeline that Vigía compiles needs. Opening it "
        "would run that code, so it was not opened. If you did not expect this, do not trust the file; if "
        f"you know why it is there: --allow-class {names[0]}"
    )


def _opened(directory: Path, files: list[str], options: dict[str, Any]) -> tuple[Parts, Mismatches]:
    objects: list[Any] = []
    mismatches = Mismatches()
    for at, file in enumerate(files):
        path = directory / file
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            try:
                if kind_of(path) == "skops":
                    objects.append(skops_files.opened(path, options["allowed"]))
                else:
                    objects += pickles.opened(unpacked(path, directory / f"opened-{at}"), options["allowed"])
            except NotImportable:
                raise
            except pickles.Forbidden as error:
                raise NotImportable(_unknown([error.name])) from error
            except Exception as error:  # the file's own code may raise anything
                mismatches.note(caught)
                raise NotImportable(in_words(error, mismatches)) from error
        mismatches.note(caught)
    mismatches.check(accepted=options["other_version"])
    try:
        return parts_of.found(objects), mismatches
    except NotImportable:
        raise
    except Exception as error:
        raise NotImportable(in_words(error, mismatches)) from error


def _described(parts: Parts) -> dict[str, Any]:
    """Returns what a schema must know of the parts.

    ``estimator`` and ``others`` in words; ``task``; ``classes`` and ``labels`` (of a LabelEncoder);
    ``features`` and ``separator`` of a DictVectorizer; ``names`` or ``width`` of the columns; ``texts``,
    columns whose words are read; ``values``, the categories of columns; ``takes_nan``.
    """
    vectorizer, names = parts_of.vectorizer_of(parts), parts_of.names_of(parts)
    values = {}
    if vectorizer is None and names is not None:
        values = parts_of.known_values(parts.steps[0][1], names)
    classes = getattr(parts.model, "classes_", None) if hasattr(parts.model, "predict_proba") else None
    described = {
        "estimator": conversion.estimator_text(parts),
        "others": list(parts.others),
        "task": "regression" if classes is None else "classification",
        "classes": None if classes is None else [_plain(each) for each in np.asarray(classes).tolist()],
        "labels": None if parts.labels is None else [_plain(each) for each in parts.labels],
        "features": None if vectorizer is None else [str(each) for each in vectorizer.vocabulary_],
        "separator": None if vectorizer is None else str(vectorizer.separator),
        "names": None if vectorizer is not None else names,
        "width": parts_of.width_of(parts),
        "values": {name: [_plain(each) for each in held] for name, held in values.items()},
        "texts": parts_of.text_columns(parts.steps[0][1], names or ()),
        "takes_nan": parts_of.takes_nan(parts),
    }
    held = sum(map(len, values.values()))
    features = 0 if vectorizer is None else len(vectorizer.vocabulary_)
    if max(features, len(names or ()), held) > MOST_NAMES:
        raise NotImportable(
            f"the pipeline knows more than {MOST_NAMES:,} columns or levels, which is the limit"
        )
    return described


def _plain(value: Any) -> Any:
    return value if isinstance(value, str | bool | int | float) or value is None else str(value)
