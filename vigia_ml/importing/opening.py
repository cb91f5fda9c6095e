"""Opens a file of a fitted pipeline; runs in `vigia_ml.sandbox`, and answers with JSON alone.

    vigia_ml.sandbox.call("vigia_ml.importing.opening:inspect", …)
    vigia_ml.sandbox.call("vigia_ml.importing.opening:convert", …)

A refusal is an answer, too: ``{"refused": "the reason in words"}``.
"""

from __future__ import annotations

import json
import platform
import warnings
from collections.abc import Callable
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, Final

import numpy as np

from vigia_ml.importing import parts as parts_of
from vigia_ml.importing import pickles, skops_files
from vigia_ml.importing.errors import NotImportable
from vigia_ml.importing.failures import Mismatches, in_words
from vigia_ml.importing.file_kinds import kind_of, unpacked
from vigia_ml.importing.parts import Parts
from vigia_ml.schema.faults import first_of

MOST_NAMES: Final = 50_000
"""Columns, features and categories that are reported."""
GRAPH, ANSWERS = "graph.onnx", "answers.parquet"
TRAIN, HOLDOUT = "train.parquet", "holdout.parquet"


def inspect(directory: str, files: list[str], options: dict[str, Any]) -> dict[str, Any]:
    """Opens the files and reports what they hold.

    Parameters
    ----------
    files : names of the files in `directory`. options : ``allowed`` names of classes, ``other_version``.

    Returns
    -------
    ``globals``, ``unknown`` names of the files; ``parts``, see `_described`; or ``refused``.
    """
    return _answered(lambda: _inspect(Path(directory), files, options))


def convert(directory: str, files: list[str], options: dict[str, Any], plan: dict[str, Any]) -> dict[str, Any]:
    """Compiles the files' pipeline for a schema, answers the hold-out with it and compares both engines.

    Reads `TRAIN` and `HOLDOUT` in `directory`, and writes `GRAPH` and `ANSWERS` there.

    Parameters
    ----------
    plan : see `vigia_ml.importing.plans.Plan.to_json`.
    """
    from vigia_ml.importing import conversion

    def work() -> dict[str, Any]:
        parts, mismatches = _opened(Path(directory), files, options)
        return conversion.convert(parts, plan, Path(directory)) | {"versions": mismatches.versions}

    return _answered(work)


def _answered(work: Callable[[], dict[str, Any]]) -> dict[str, Any]:
    with warnings.catch_warnings(), np.errstate(all="ignore"):
        warnings.simplefilter("ignore")
        try:
            # Through text, because an object of the file might pretend to be a plain value.
            return dict(json.loads(json.dumps(work(), default=str)))
        except NotImportable as error:
            return {"refused": error.message}


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
            f"the file needs {first_of(own, 4)}, defined in its author's script or notebook, and a pickle does "
            "not hold code. Replace it by steps of scikit-learn (FunctionTransformer with a function of numpy, "
            "ColumnTransformer, …), fit again and import that; or push the pipeline from the notebook, which "
            "says which step cannot be compiled"
        )
    return (
        f"the file asks for {first_of(names, 6)}, which no pipeline of scikit-learn, LightGBM, XGBoost or CatBoost "
        "needs. Opening it would run that code, so it was not opened. If you did not expect this, do not trust "
        f"the file; if it is a class that you know, allow it: --allow-class {names[0]}"
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
    ``features`` and ``separator`` of a DictVectorizer; ``names`` or ``width`` of the columns; ``values``, the
    categories of columns; ``takes_nan``.
    """
    vectorizer, names = parts_of.vectorizer_of(parts), parts_of.names_of(parts)
    values = {}
    if vectorizer is None and names is not None:
        values = parts_of.known_values(parts.steps[0][1], names)
    classes = getattr(parts.model, "classes_", None) if hasattr(parts.model, "predict_proba") else None
    described = {
        "estimator": estimator_text(parts),
        "others": list(parts.others),
        "task": "regression" if classes is None else "classification",
        "classes": None if classes is None else [_plain(each) for each in np.asarray(classes).tolist()],
        "labels": None if parts.labels is None else [_plain(each) for each in parts.labels],
        "features": None if vectorizer is None else [str(each) for each in vectorizer.vocabulary_],
        "separator": None if vectorizer is None else str(vectorizer.separator),
        "names": None if vectorizer is not None else names,
        "width": parts_of.width_of(parts),
        "values": {name: [_plain(each) for each in held] for name, held in values.items()},
        "takes_nan": parts_of.takes_nan(parts),
    }
    held = sum(len(each) for each in described["values"].values())
    if max(len(described["features"] or ()), len(described["names"] or ()), held) > MOST_NAMES:
        raise NotImportable(f"the pipeline knows more than {MOST_NAMES:,} columns or levels, which is the limit")
    return described


def _plain(value: Any) -> Any:
    return value if isinstance(value, str | bool | int | float) or value is None else str(value)


def estimator_text(parts: Parts) -> str:
    """Returns the estimator in words, as in ``Pipeline: StandardScaler, LogisticRegression``."""
    names = []
    for _, step in parts.steps:
        steps = [each for _, each in step.steps] if hasattr(step, "steps") else [step]
        names += [type(each).__name__ for each in steps if each not in parts_of.PASSED]
    return f"Pipeline: {', '.join(names)}"[:300] if len(names) > 1 else names[0][:300]


def libraries() -> dict[str, str]:
    """Returns the versions of the libraries that opened and compiled the file."""
    known = {"python": platform.python_version()}
    for name in ("scikit-learn", "numpy", "scipy", "pandas", "joblib", "onnx", "skl2onnx", "onnxruntime"):
        try:
            known[name] = version(name)
        except PackageNotFoundError:
            continue
    return known
