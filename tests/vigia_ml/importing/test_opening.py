"""A file is recognised, listed and opened; every refusal says what to do, and hostile code does nothing."""

from __future__ import annotations

import importlib
import io
import os
import pickle
import re
import time
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

import joblib
import numpy as np
import pandas as pd
import pytest
import skops.io
from sklearn.cluster import KMeans
from sklearn.compose import ColumnTransformer
from sklearn.ensemble import RandomForestClassifier
from sklearn.feature_extraction import DictVectorizer
from sklearn.feature_extraction.text import CountVectorizer
from sklearn.linear_model import LinearRegression, LogisticRegression
from sklearn.model_selection import GridSearchCV
from sklearn.pipeline import Pipeline, make_pipeline
from sklearn.preprocessing import FunctionTransformer, LabelEncoder, OneHotEncoder, StandardScaler
from sklearn.svm import LinearSVC

from vigia_ml.importing import opening, package, pickles
from vigia_ml.importing.errors import NotImportable
from vigia_ml.importing.package import Source

ROWS: Final = pd.DataFrame({"a": [1.0, 2, 3, 4] * 10, "b": ["x", "y"] * 20})
CLASSES: Final = [0, 1] * 20
OPTIONS: Final = {"allowed": [], "other_version": False}


def pipeline(model: Any = None) -> Pipeline:
    encoder = ColumnTransformer([("b", OneHotEncoder(), ["b"]), ("a", StandardScaler(), ["a"])])
    return Pipeline([("encoder", encoder), ("model", LogisticRegression() if model is None else model)]).fit(
        ROWS, CLASSES
    )


def pair() -> tuple[DictVectorizer, LogisticRegression]:
    vectorizer = DictVectorizer()
    return vectorizer, LogisticRegression().fit(
        vectorizer.fit_transform(ROWS.to_dict(orient="records")), CLASSES
    )


def described(directory: Path, *contents: bytes, **options: Any) -> dict[str, Any]:
    """Opens files in this process: the tests' own files are harmless."""
    names = []
    for at, content in enumerate(contents):
        (directory / f"model-{at}").write_bytes(content)
        names.append(f"model-{at}")
    report: dict[str, Any] = opening.inspect(directory, names, OPTIONS | options)["parts"]
    return report


def by_joblib(value: Any, compress: Any = 0) -> bytes:
    stream = io.BytesIO()
    joblib.dump(value, stream, compress=compress)
    return stream.getvalue()


WRITERS: Final[dict[str, Callable[[Any], bytes]]] = {
    **{f"pickle {number}": lambda value, n=number: pickle.dumps(value, n) for number in range(6)},  # type: ignore[misc]
    "joblib": by_joblib,
    **{
        name: lambda value, n=name: by_joblib(value, (n, 3)) for name in ("zlib", "gzip", "bz2", "lzma", "xz")
    },  # type: ignore[misc]
    "skops": skops.io.dumps,
}


@pytest.mark.parametrize("how", WRITERS)
def test_a_pipeline_is_described_however_it_was_written(tmp_path: Path, how: str) -> None:
    found = described(tmp_path, WRITERS[how](pipeline(RandomForestClassifier(3))))
    assert found["estimator"] == "Pipeline: ColumnTransformer, RandomForestClassifier"
    assert (found["names"], found["values"]) == (["a", "b"], {"b": ["x", "y"]})
    assert (found["task"], found["classes"], found["features"]) == ("classification", [0, 1], None)


@pytest.mark.parametrize(
    "contents",
    [
        [pickle.dumps(pair())],
        [pickle.dumps(pair()[::-1])],
        [pickle.dumps({"dv": pair()[0], "model": pair()[1]})],
        [pickle.dumps(each) for each in pair()],
        [pickle.dumps(each) for each in pair()[::-1]],
        [b"".join(pickle.dumps(each) for each in pair())],
        [by_joblib(make_pipeline(*pair()), 3)],
        [pickle.dumps({"threshold": 0.5, "pair": list(pair())})],
    ],
    ids=[
        "pair",
        "other order",
        "dict",
        "two files",
        "two files, other order",
        "one by one",
        "pipeline",
        "nested",
    ],
)
def test_the_tutorials_pair_is_found_in_every_form(tmp_path: Path, contents: list[bytes]) -> None:
    found = described(tmp_path, *contents)
    assert found["features"] == ["a", "b=x", "b=y"]
    assert found["estimator"] == "Pipeline: DictVectorizer, LogisticRegression"


def test_a_search_and_a_label_encoder_are_understood(tmp_path: Path) -> None:
    labels = LabelEncoder().fit(["no", "yes"])
    search = GridSearchCV(pipeline(), {"model__C": [0.1, 1.0]}, cv=2).fit(ROWS, CLASSES)
    found = described(tmp_path, by_joblib({"labels": labels, "search": search}))
    assert (found["labels"], found["names"], found["values"]) == (
        ["no", "yes"],
        ["a", "b"],
        {"b": ["x", "y"]},
    )


def test_columns_whose_words_are_read_are_named(tmp_path: Path) -> None:
    encoder = ColumnTransformer(
        [
            ("t", make_pipeline(CountVectorizer(token_pattern="."), FunctionTransformer()), "b"),
            ("a", StandardScaler(), ["a"]),
        ]
    )
    model = make_pipeline(encoder, LogisticRegression()).fit(ROWS, CLASSES)
    assert described(tmp_path, pickle.dumps(model))["texts"] == ["b"]


def zipped(*names: str) -> bytes:
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w") as archive:
        for name in names:
            archive.writestr(name, "x")
    return stream.getvalue()


class Mine:
    """A class of its author's notebook."""


GOOD: Final = pickle.dumps(pipeline())
LOGISTIC: Final = pickle.dumps(LogisticRegression().fit([[1], [2]], [0, 1]))
REFUSED: Final[dict[str, tuple[bytes, str]]] = {
    "empty": (b"", "the file is empty"),
    "a web page": (b"\n<!DOCTYPE html><html>", "Download raw file"),
    "a pointer": (b"version https://git-lfs.github.com/spec/v1", "git lfs pull"),
    "rows": (b"customerID,gender\n1,2\n", "not a pickle: it begins with b'customerID"),
    "Keras": (b"\x89HDF\r\n\x1a\n", "HDF5 file, as Keras writes"),
    "newer Keras": (zipped("config.json", "model.weights.h5"), "Keras or TensorFlow"),
    "PyTorch": (zipped("archive/data.pkl"), "PyTorch"),
    "arrays": (zipped("a.npy"), "arrays of NumPy"),
    "an archive": (zipped("model.pkl"), "unpack it and import the pickle"),
    "a damaged archive": (b"PK\x03\x04abc", "damaged zip archive"),
    "ONNX": (b"\x08\x0a\x12\x05vigia", "compiled already"),
    "XGBoost": (b'{"learner": {}}', "XGBClassifier or XGBRegressor"),
    "LightGBM": (b"tree\nversion=v4\n", "LGBMClassifier, LGBMRegressor"),
    "CatBoost": (b"CBM1abc", "CatBoostClassifier or CatBoostRegressor"),
    "cut": (GOOD[: len(GOOD) // 2], "the file is cut"),
    "cut by joblib": (by_joblib(pipeline())[:3000], "the file is cut"),
    "cut and compressed": (by_joblib(pipeline(), 3)[:-200], "damaged or cut"),
    "damaged": (GOOD[:200] + b"\xff\xfe" + GOOD[202:], "the file is damaged"),
    "a newer protocol": (b"\x80\x09" + GOOD[2:], "protocol 9, and this Python reads protocols up to 5"),
    "a script's class": (
        pickle.dumps(Mine(), 0).replace(Mine.__module__.encode(), b"__main__"),
        "__main__.Mine",
    ),
    "another library": (b"cimblearn.pipeline\nPipeline\n(tR.", "from a library that Vigía does not know"),
    "a library that is missing": (b"csklearn.nothing\nModel\n(tR.", "the module sklearn.nothing"),
    "NumPy 2 under 1": (b"cnumpy._core.nothing\n_reconstruct\n(tR.", "written under NumPy 2"),
    "an old NumPy": (b"cnumpy.nothing\n_reconstruct\n(tR.", "old NumPy 1"),
    "another version's class": (b"csklearn.linear_model._logistic\nNone_such\n(tR.", "another version"),
    "another release": (GOOD.replace(b"1.9.", b"1.0."), "written by scikit-learn 1.0.. and is read by 1.9"),
    "not fitted": (pickle.dumps(LogisticRegression()), "LogisticRegression is not fitted"),
    "a pair that is not fitted": (
        pickle.dumps((DictVectorizer(), pair()[1])),
        "DictVectorizer is not fitted",
    ),
    "no model": (pickle.dumps(StandardScaler().fit([[1.0], [2.0]])), "no model with a predict method"),
    "several models": (pickle.dumps((pipeline(), pipeline())), "several models"),
    "clusters": (pickle.dumps(KMeans(2, n_init=1).fit([[1], [2]])), "neither a classifier nor a regressor"),
    "a vectorizer of texts": (
        pickle.dumps(
            make_pipeline(CountVectorizer(), LogisticRegression()).fit(["ab cd", "ef"] * 9, [0, 1] * 9)
        ),
        r"make_pipeline\(TextColumn\(",
    ),
    "no probabilities": (pickle.dumps(LinearSVC().fit([[1], [2]], [0, 1])), "CalibratedClassifierCV"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_a_refusal_says_what_the_file_is_and_what_to_do(tmp_path: Path, name: str) -> None:
    content, words = REFUSED[name]
    with pytest.raises(NotImportable, match=words):
        described(tmp_path, content)


def test_another_release_is_opened_on_demand_and_a_patch_release_at_once(tmp_path: Path) -> None:
    old = re.sub(rb"1\.9\.\d", b"1.0.2", GOOD)
    assert described(tmp_path, old, other_version=True)["names"] == ["a", "b"]
    assert described(tmp_path, re.sub(rb"1\.9\.\d", b"1.9.9", GOOD))["names"] == ["a", "b"]


# -- hostile files -------------------------------------------------------------------------------------


class Calls:
    """A pickle of it calls a function when it is opened."""

    def __init__(self, function: Any, *arguments: Any) -> None:
        self.call = (function, arguments)

    def __reduce__(self) -> Any:
        return self.call


HOSTILE: Final[dict[str, tuple[bytes, str]]] = {
    "a command": (pickle.dumps(Calls(os.system, "true")), "posix.system"),
    "a command beside a model": (pickle.dumps({"m": pair(), "x": Calls(os.system, "true")}), "posix.system"),
    "in an array of joblib": (
        by_joblib([pair(), np.array([Calls(os.system, "true")], dtype=object)]),
        "posix.system",
    ),
    "eval": (pickle.dumps(Calls(eval, "1")), "builtins.eval"),
    "a function of numpy": (b"cnumpy\nfromfile\n(S'/etc/passwd'\ntR.", "numpy.fromfile"),
    "numpy's tests": (b"cnumpy.testing\nrunstring\n(S'1'\n}tR.", "numpy.testing.runstring"),
    "a pickle by pandas": (b"cpandas\nread_pickle\n(S'/etc/passwd'\ntR.", "pandas.read_pickle"),
    "a dotted name": (
        b"\x80\x04\x8c\x07sklearn\x8c\x12utils._joblib.load\x93.",
        "utils._joblib.load|cut|damaged|not in",
    ),
    "in the second pickle": (GOOD + pickle.dumps(Calls(os.system, "true")), "posix.system"),
}


@pytest.mark.parametrize("name", HOSTILE)
def test_a_call_is_named_and_not_made(tmp_path: Path, name: str) -> None:
    content, words = HOSTILE[name]
    with pytest.raises(NotImportable, match=words):
        described(tmp_path, content)


def test_listing_runs_nothing_and_reads_arrays_of_joblib(tmp_path: Path) -> None:
    path = tmp_path / "model"
    path.write_bytes(
        by_joblib([pipeline(), np.arange(1e5), np.array([Calls(os.mkdir, str(tmp_path / "x"))])])
    )
    names = pickles.listed(path)
    assert {"posix.mkdir", "sklearn.pipeline.Pipeline", "numpy.ndarray"} <= set(names)
    assert not (tmp_path / "x").exists()


def inspected(path: Path, **limits: Any) -> Any:
    digest = package.copy(path, None)
    return package.inspect(Source((path,), (digest,), **limits))


def test_an_allowed_call_is_made_in_the_sandbox_and_changes_nothing(tmp_path: Path) -> None:
    path, trace = tmp_path / "model", tmp_path / "trace"
    for name, call in {
        "posix.system": Calls(os.system, f"touch {trace}"),
        "posix.mkdir": Calls(os.mkdir, str(trace)),
        "posix.open": Calls(os.open, str(trace), os.O_CREAT | os.O_WRONLY),
    }.items():
        path.write_bytes(pickle.dumps({"model": pair(), "x": call}))
        try:
            inspected(path, allowed=(name,))
        except NotImportable as error:
            assert "Permission" in error.message or "not permitted" in error.message, error.message
        assert not trace.exists()


def test_the_sandbox_has_no_secret(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SECRET_KEY", "a secret of the service")
    path = tmp_path / "model"
    path.write_bytes(
        pickle.dumps({"model": pair(), "x": Calls(exec, "raise ValueError(dict(__import__('os').environ))")})
    )
    with pytest.raises(NotImportable) as caught:
        inspected(path, allowed=("builtins.exec",))
    assert "ValueError" in caught.value.message
    assert "a secret of the service" not in caught.value.message
    assert "SECRET_KEY" not in caught.value.message


def test_a_file_that_burns_time_or_memory_is_stopped(tmp_path: Path) -> None:
    path = tmp_path / "model"
    path.write_bytes(pickle.dumps(Calls(exec, "while True: pass")))
    began = time.monotonic()
    with pytest.raises(NotImportable, match="more than 2 seconds and was stopped"):
        inspected(path, allowed=("builtins.exec",), seconds=2)
    assert time.monotonic() - began < 30
    path.write_bytes(pickle.dumps(Calls(exec, "x = bytearray(8 << 30)")))
    with pytest.raises(NotImportable, match=r"needed more than 2\.0 GiB of memory|MemoryError"):
        inspected(path, allowed=("builtins.exec",), memory=2 << 30)


def test_a_forged_report_is_refused(tmp_path: Path) -> None:
    forged = (
        "import vigia_ml.importing.opening as o; o._described = lambda parts: {'estimator': 7, 'task': []}"
    )
    path = tmp_path / "model"
    path.write_bytes(pickle.dumps({"model": pair(), "x": Calls(exec, forged)}))
    with pytest.raises(NotImportable, match="a report of another form"):
        inspected(path, allowed=("builtins.exec",))


def test_functions_of_numpy_that_the_compiler_knows_are_opened(tmp_path: Path) -> None:
    steps = make_pipeline(FunctionTransformer(np.log1p), LinearRegression()).fit(ROWS[["a"]], ROWS["a"])
    assert described(tmp_path, pickle.dumps(steps))["task"] == "regression"


BOOSTERS: Final = {
    "lightgbm": ("LGBMClassifier", {"n_estimators": 3, "verbose": -1}),
    "xgboost": ("XGBClassifier", {"n_estimators": 3}),
    "catboost": ("CatBoostClassifier", {"iterations": 3, "verbose": 0, "allow_writing_files": False}),
}


@pytest.mark.parametrize("library", BOOSTERS)
def test_an_estimator_of_a_boosting_library_is_described_by_the_sandbox(tmp_path: Path, library: str) -> None:
    name, settings = BOOSTERS[library]
    build = getattr(importlib.import_module(library), name)
    (tmp_path / "named").write_bytes(pickle.dumps(build(**settings).fit(ROWS[["a"]], CLASSES)))
    report = inspected(tmp_path / "named")
    assert (report.description.estimator, report.description.names) == (name, ("a",))

    (tmp_path / "array").write_bytes(pickle.dumps(build(**settings).fit(ROWS[["a"]].to_numpy(), CLASSES)))
    assert inspected(tmp_path / "array").description.names is None

    with pytest.raises(NotImportable, match="is not fitted"):
        described(tmp_path, pickle.dumps(build(**settings)))


@pytest.mark.parametrize(
    ("module", "name"),
    [
        ("sklearn.base", "inspect.os.listdir"),
        ("sklearn.utils.discovery", "import_module"),
        ("sklearn.base", "warnings"),
        ("numpy", "ctypeslib.ctypes.CDLL"),
        ("pandas.core.frame", "collections.abc"),
    ],
)
def test_what_a_known_library_imports_is_not_known(tmp_path: Path, module: str, name: str) -> None:
    words = (b"\x8c" + bytes([len(word)]) + word.encode() for word in (module, name))
    (tmp_path / "model").write_bytes(b"\x80\x04" + b"".join(words) + b"\x93.")
    with pytest.raises(pickles.Forbidden, match=re.escape(f"{module}.{name}")):
        pickles.opened(tmp_path / "model")
