"""Texts are read as scikit-learn's vectorizers read them, and settings from clients are bounded."""

from __future__ import annotations

import json
import time
import warnings
from dataclasses import replace
from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.calibration import CalibratedClassifierCV
from sklearn.compose import ColumnTransformer
from sklearn.decomposition import TruncatedSVD
from sklearn.ensemble import (
    GradientBoostingClassifier,
    HistGradientBoostingRegressor,
    RandomForestClassifier,
    VotingClassifier,
)
from sklearn.feature_extraction.text import (
    CountVectorizer,
    HashingVectorizer,
    TfidfTransformer,
    TfidfVectorizer,
)
from sklearn.feature_selection import SelectKBest, chi2
from sklearn.linear_model import LogisticRegression, Ridge, SGDClassifier
from sklearn.naive_bayes import BernoulliNB, ComplementNB, MultinomialNB
from sklearn.pipeline import FeatureUnion, Pipeline, make_pipeline
from sklearn.preprocessing import MaxAbsScaler, StandardScaler
from sklearn.svm import LinearSVC

from vigia_ml.declaration import Task
from vigia_ml.engines import graph_check, onnx, parity, texts, tokens
from vigia_ml.engines.onnx import READ, OnnxEngine
from vigia_ml.engines.onnx_export import terms as converters
from vigia_ml.engines.onnx_export.compile import NotConvertible, compile_pipeline
from vigia_ml.engines.onnx_export.graph import Graph
from vigia_ml.engines.parity_rows import HARD_TEXTS
from vigia_ml.engines.terms import BadTerms, Terms, TextVector
from vigia_ml.schema import Column, DatasetSchema
from vigia_ml.transformers.text_column import TextColumn

WORDS = [
    "good", "bad", "Great", "café", "naïve", "İstanbul", "ıslak", "日本語", "😀", "straße", "GROß", "x",
    "the", "don't", "well-made", "2024", "ﬁne", *(f"w{number}" for number in range(200)),
]  # fmt: skip
LETTERS = st.sampled_from(
    [*"aAbB 12.-_'\t\n", "é", "\u0301", "İ", "ı", "ß", "ẞ", "ﬁ", "日", "😀", "\u200d", "\u2028"]
)
TEXTS = st.one_of(st.text(LETTERS, max_size=40), st.sampled_from(HARD_TEXTS), st.text(max_size=30))
REVIEW = Column("review", "text", max_length=2_000)
VECTORIZERS: list[Any] = [
    TfidfVectorizer(),
    TfidfVectorizer(ngram_range=(1, 3), stop_words=["a", "b1"], norm="l1", token_pattern=r"\w+"),
    TfidfVectorizer(ngram_range=(2, 2), strip_accents="unicode", sublinear_tf=True, token_pattern=r"\S+"),
    TfidfVectorizer(strip_accents="ascii", binary=True, use_idf=False, stop_words="english", norm=None),
    TfidfVectorizer(analyzer="char", ngram_range=(1, 3), smooth_idf=False),
    TfidfVectorizer(analyzer="char", ngram_range=(2, 4), lowercase=False, strip_accents="unicode"),
    CountVectorizer(analyzer="char_wb", ngram_range=(2, 5)),
    CountVectorizer(analyzer="char_wb", ngram_range=(1, 1), strip_accents="ascii"),
    CountVectorizer(token_pattern=r"\b([a-zé]{2,})\b", lowercase=False, binary=True),
    CountVectorizer(vocabulary=["aa", "b a", "é"], ngram_range=(1, 2), token_pattern=r"(?u)\b\w+\b"),
]


def reviews(rows: int = 300) -> pd.DataFrame:
    rng = np.random.default_rng(3)
    bodies = [" ".join(rng.choice(WORDS, rng.integers(2, 30))) for _ in range(rows)]
    columns = {
        "review": pd.Series(bodies, dtype=object),
        "title": pd.Series([body[:15].strip() for body in bodies], dtype=object),
        "price": rng.uniform(0, 9, rows),
    }
    return pd.DataFrame(columns)


def schema(*, nullable: bool = False) -> DatasetSchema:
    title, price = (
        Column("title", "text", nullable=nullable),
        Column("price", "number", minimum=0, maximum=10),
    )
    return DatasetSchema(columns=(REVIEW, title, price), target=Column("y", "boolean"))


def truth(frame: pd.DataFrame, task: Task) -> Any:
    rng = np.random.default_rng(4)
    sizes = frame["review"].str.len().to_numpy() + rng.normal(size=len(frame)) * 20
    if task == "regression":
        return sizes
    return sizes > 80 if task == "binary" else np.array(["a", "b", "c"])[np.digitize(sizes, [60, 120])]


def compared(pipeline: Any, task: Task = "binary", *, nullable: bool = False) -> tuple[bytes, parity.Parity]:
    """Fits and compiles the pipeline, and returns the model and its comparison with scikit-learn."""
    frame, declared = reviews(), schema(nullable=nullable)
    if nullable:
        frame.loc[::5, "title"] = None
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        pipeline.fit(frame, truth(frame, task))
    model = compile_pipeline(pipeline, declared, task)
    graph_check.check(model, declared, task, None if task == "regression" else pipeline.classes_.tolist())
    engine = OnnxEngine.from_bytes(model, declared)
    threshold = 0.5 if task == "binary" else None
    return model, parity.check(pipeline, engine, declared, frame, task, 1, 400, threshold)


def of(*parts: tuple[Any, ...]) -> ColumnTransformer:
    return ColumnTransformer([(f"part {at}", step, columns) for at, (step, columns) in enumerate(parts)])


# -- reading a text ------------------------------------------------------------------------------------


def fitted_terms(vectorizer: Any) -> Terms:
    if vectorizer.vocabulary is None:
        vectorizer.fit([*HARD_TEXTS, *reviews(40)["review"], "aa b1 a b aé İi ıI ß", "a  b\n1 . - _"])
    else:
        vectorizer.fit(["a"])
    return converters._terms(vectorizer, Graph())


FITTED = [(each, fitted_terms(each)) for each in VECTORIZERS]


@settings(max_examples=300, deadline=None)
@given(TEXTS, st.integers(0, len(VECTORIZERS) - 1))
def test_a_text_is_read_as_scikit_learn_reads_it_to_the_last_bit(text: str, which: int) -> None:
    vectorizer, terms = FITTED[which]
    expected = vectorizer.transform([text])
    at, values = terms.read(text)
    assert at.tolist() == expected.indices.tolist()
    assert values.tolist() == expected.data.astype(float).tolist()


@settings(max_examples=60, deadline=None)
@given(st.lists(TEXTS, min_size=1, max_size=4))
def test_sums_of_terms_are_those_of_a_sparse_product(bodies: list[str]) -> None:
    vectorizer, terms = FITTED[0]
    weights = np.random.default_rng(1).normal(size=(len(terms.vocabulary), 7))
    expected = vectorizer.transform(bodies) @ np.asfortranarray(weights)
    vector = TextVector(0, terms, weights)
    assert [vector.values(terms.read(body)).tolist() for body in bodies] == expected.tolist()


# -- whole pipelines -----------------------------------------------------------------------------------

PIPELINES: dict[str, tuple[Any, Task]] = {
    "a linear model beside numbers": (
        make_pipeline(of((TfidfVectorizer(), "review"), ("passthrough", ["price"])), LogisticRegression()),
        "binary",
    ),
    "two texts": (
        make_pipeline(
            of(
                (TfidfVectorizer(ngram_range=(1, 2), min_df=2), "review"),
                (CountVectorizer(analyzer="char_wb", ngram_range=(2, 4)), "title"),
                (StandardScaler(), ["price"]),
            ),
            LogisticRegression(max_iter=1000),
        ),
        "multiclass",
    ),
    "a regression": (make_pipeline(TextColumn("review"), TfidfVectorizer(norm=None), Ridge()), "regression"),
    "counts, then weights": (
        make_pipeline(
            TextColumn("review"), CountVectorizer(), TfidfTransformer(sublinear_tf=True), MultinomialNB()
        ),
        "binary",
    ),
    "complement naive Bayes": (
        make_pipeline(TextColumn("review"), CountVectorizer(), ComplementNB()),
        "multiclass",
    ),
    "Bernoulli naive Bayes": (
        make_pipeline(TextColumn("review"), TfidfVectorizer(), BernoulliNB()),
        "multiclass",
    ),
    "stochastic descent": (
        make_pipeline(
            TextColumn("review"), TfidfVectorizer(), SGDClassifier(loss="log_loss", random_state=1)
        ),
        "multiclass",
    ),
    "calibrated support vectors": (
        make_pipeline(of((TfidfVectorizer(), "review")), CalibratedClassifierCV(LinearSVC(), cv=3)),
        "multiclass",
    ),
    "components, then a forest": (
        make_pipeline(
            of((make_pipeline(TfidfVectorizer(), TruncatedSVD(8, random_state=1)), "review")),
            RandomForestClassifier(20, random_state=1),
        ),
        "binary",
    ),
    "components, then boosting": (
        make_pipeline(
            of((make_pipeline(TfidfVectorizer(), TruncatedSVD(8, random_state=1)), "review")),
            HistGradientBoostingRegressor(random_state=1),
        ),
        "regression",
    ),
    "a forest on the terms": (
        make_pipeline(of((TfidfVectorizer(), "review")), RandomForestClassifier(20, random_state=1)),
        "binary",
    ),
    "selected terms": (
        make_pipeline(
            of((TfidfVectorizer(ngram_range=(1, 3)), "review"), ("passthrough", ["price"])),
            SelectKBest(chi2, k=60),
            MaxAbsScaler(),
            GradientBoostingClassifier(random_state=1),
        ),
        "binary",
    ),
    "words and characters": (
        make_pipeline(
            of(
                (
                    FeatureUnion(
                        [("words", TfidfVectorizer()), ("letters", CountVectorizer(analyzer="char"))],
                        transformer_weights={"letters": 0.25},
                    ),
                    "review",
                )
            ),
            StandardScaler(with_mean=False),
            LogisticRegression(max_iter=2000),
        ),
        "binary",
    ),
    "a vote on the same terms": (
        make_pipeline(
            of((TfidfVectorizer(), "review")),
            VotingClassifier([("a", LogisticRegression()), ("b", MultinomialNB())], voting="soft"),
        ),
        "binary",
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", PIPELINES)
def test_a_pipeline_on_texts_compiles_and_gives_the_same_answers(name: str) -> None:
    pipeline, task = PIPELINES[name]
    _, verdict = compared(pipeline, task)
    assert verdict.passed, verdict.reason
    assert verdict.refused == 0


def test_terms_that_only_a_linear_step_reads_are_not_written() -> None:
    model, _ = compared(PIPELINES["a linear model beside numbers"][0])
    assert texts.width_of(texts.from_json(_metadata(model))) == 1


def test_a_missing_text_is_rejected_as_by_scikit_learn_unless_it_is_filled() -> None:
    _, verdict = compared(make_pipeline(of((TfidfVectorizer(), "review")), LogisticRegression()))
    assert verdict.refused == 0
    filled = make_pipeline(
        of((make_pipeline(TextColumn(), TfidfVectorizer()), "title")), LogisticRegression()
    )
    _, verdict = compared(filled, nullable=True)
    assert verdict.passed and verdict.refused == 0
    named = make_pipeline(TextColumn("title", missing="none given"), TfidfVectorizer(), LogisticRegression())
    _, verdict = compared(named, nullable=True)
    assert verdict.passed and verdict.refused == 0

    frame = reviews()
    strict = make_pipeline(of((TfidfVectorizer(), "title")), LogisticRegression())
    strict.fit(frame, truth(frame, "binary"))
    declared = schema(nullable=True)
    engine = OnnxEngine.from_bytes(compile_pipeline(strict, declared, "binary"), declared)
    verdict = parity.check(strict, engine, declared, frame, "binary", 1, 400, 0.5)
    assert verdict.passed, verdict.reason
    assert verdict.refused > 0


def test_many_rows_are_predicted_in_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    pipeline, _ = PIPELINES["a forest on the terms"]
    model, _ = compared(pipeline)
    rows: list[Any] = reviews().to_dict("records")
    engine = OnnxEngine.from_bytes(model, schema())
    whole = engine.predict(rows)
    monkeypatch.setattr(onnx, "TEXT_NUMBERS_AT_ONCE", 1_000)
    assert engine.predict(rows) == whole


@pytest.mark.parametrize(
    ("step", "reason"),
    [
        (HashingVectorizer(), "use TfidfVectorizer or CountVectorizer"),
        (TfidfVectorizer(tokenizer=str.split), "calls its own function (tokenizer=)"),
        (TfidfVectorizer(preprocessor=str.upper), "calls its own function (preprocessor=)"),
        (CountVectorizer(analyzer=str.split), "calls its own function (analyzer=)"),
        (TfidfVectorizer(strip_accents=str.strip), "calls its own function (strip_accents=)"),
        (TfidfVectorizer(token_pattern=r"\w+(?:-\w+)?"), "the token pattern"),
        (TfidfVectorizer(dtype=np.float32), "counts in float32"),
        (TfidfVectorizer(analyzer="char", ngram_range=(1, 60)), "n-grams of 1 to 60"),
    ],
)
def test_what_does_not_compile_is_said_with_step_and_remedy(step: Any, reason: str) -> None:
    pipeline = Pipeline(
        [("columns", ColumnTransformer([("text", step, "review")])), ("model", LogisticRegression())]
    )
    with pytest.raises(NotConvertible) as raised:
        compared(pipeline)
    assert "step columns / text" in str(raised.value) and reason in str(raised.value)


def test_too_many_terms_for_a_forest_are_refused_with_advice() -> None:
    vectorizer = TfidfVectorizer(ngram_range=(1, 3))
    with pytest.raises(
        NotConvertible, match="at most 4,096 are supported: set the vectorizer's max_features"
    ):
        compared(make_pipeline(of((vectorizer, "review")), RandomForestClassifier(2, random_state=1)))


# -- settings from clients -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    "pattern",
    [
        r"(?u)\b\w\w+\b", r"(?u)\b\w+\b", r"\w+", r"\b\w\w+\b", r"\S+", r"[a-z]+", r"[A-Za-zÀ-ÿ]{2,}",
        r"(?u)\b[a-zA-Z]{3,15}\b", r"[^\s]+", r"\b[^\d\W]+\b", r"(?u)(\w+)", r"\d", r"\w{1,20}", r"\w+\b",
    ],
)  # fmt: skip
def test_usual_token_patterns_are_accepted_and_linear(pattern: str) -> None:
    assert tokens.is_linear(pattern)
    find = tokens.finder(pattern)
    for letter in ("a", "a-", "é", "1", " ", "aa1", "_", "\u0301", "a "):
        text = (letter * 100_000)[:100_000]
        started = time.perf_counter()
        find(text)
        assert time.perf_counter() - started < 2.0  # a quadratic search takes minutes


@pytest.mark.parametrize(
    "pattern",
    [
        r"(a+)+b", r"(?:\w+\s?)+", r"(\w+)(\w+)", r"\w+\w+", r"[a-z]+\b", r"\w{2,5}\b", r"\w*",
        r"(?<=a)\w+", r"\w{0,}", r"\w{21}", r"\w{3,2}", r"[z-a]+", r"(\w)\1+", r"a|b", r"(?i)\w+", r".+",
        "", "(", r"\b", "[[:alpha:]]+", r"\w" * 200,
    ],
)  # fmt: skip
def test_other_token_patterns_are_refused(pattern: str) -> None:
    assert not tokens.is_linear(pattern)


def _metadata(model: bytes) -> str:
    import onnx as format_of_models

    loaded = format_of_models.load_from_string(model)
    return str(next(each.value for each in loaded.metadata_props if each.key == READ))


def _written(**changes: Any) -> dict[str, Any]:
    terms = Terms(
        ("a", "b", "c"),
        pattern=r"\w+",
        idf=np.array([1.0, 2.0, 3.0]),
        norm="l2",
        stop_words=frozenset(("x",)),
    )
    vector = TextVector(0, terms, weights=np.ones((3, 2)))
    written: dict[str, Any] = json.loads(
        texts.to_json([vector, TextVector(0, terms, chosen=np.array([0, 2]))])
    )
    for path, value in changes.items():
        place, _, name = path.partition("__")
        written[place][0][name] = value
    return written


def test_what_is_stored_reads_texts_alike() -> None:
    first, second = texts.from_json(json.dumps(_written()))
    assert isinstance(first, TextVector) and isinstance(second, TextVector)
    assert first.terms is second.terms
    texts.check([first, second], [REVIEW])
    reader = texts.TextNumbers([first, second])
    at, values = first.terms.read("a b b x")
    numbers = reader.read([["a b b x", None]])
    assert numbers.tolist() == [[values.sum(), values.sum(), values[0], 0.0], [0.0] * 4] and at.tolist() == [
        0,
        1,
    ]


def test_numbers_of_older_models_are_still_read() -> None:
    old = '[{"column": 0, "reader": "number", "kind": "number", "at": 0, "table": {}, "default": 0.0}]'
    numbers = texts.from_json(old)
    texts.check(numbers, [REVIEW])
    assert texts.TextNumbers(numbers).read([["3.5 kg"]]).tolist() == [[3.5]]


@pytest.mark.parametrize(
    "changes",
    [
        {"terms__pattern": r"(\w+)+x"},
        {"terms__pattern": 3},
        {"terms__analyzer": "code"},
        {"terms__ngrams": [1, 100_000]},
        {"terms__ngrams": [0, 1]},
        {"terms__ngrams": [2, 1]},
        {"terms__ngrams": [1.5, 2]},
        {"terms__accents": "eval"},
        {"terms__norm": "max"},
        {"terms__lowercase": 1},
        {"terms__missing": 7},
        {"terms__vocabulary": ["a", "a", "b"]},
        {"terms__vocabulary": ["a", "b"]},
        {"terms__vocabulary": "abc"},
        {"terms__vocabulary": ["a", "b", 3]},
        {"terms__vocabulary": [str(number) for number in range(200_001)]},
        {"terms__stop_words": [str(number) for number in range(10_001)]},
        {"terms__idf": "AAAA"},
        {"terms__idf": "no base64!"},
        {"terms__more": 1},
        {"numbers__weights": "AAAAAAAA8H8=" * 3},
        {"numbers__column": 1},
        {"numbers__column": -1},
        {"numbers__terms": 1},
        {"numbers__terms": -1},
        {"numbers__kind": "code"},
        {"numbers__weights": None, "numbers__chosen": [2, 1]},
        {"numbers__weights": None, "numbers__chosen": [0, 3]},
        {"numbers__weights": None, "numbers__chosen": []},
    ],
    ids=" ".join,
)  # fmt: skip
def test_settings_that_no_compiler_writes_are_refused(changes: dict[str, Any]) -> None:
    with pytest.raises(ValueError):
        texts.check(texts.from_json(json.dumps(_written(**changes))), [REVIEW])


def test_a_reader_of_listings_is_bounded_as_well() -> None:
    fields = {"column": 0, "reader": "number", "kind": "number", "at": 0, "table": {}, "default": 0.0}
    for change in (
        {"reader": "os.system"},
        {"kind": "call"},
        {"at": 5},
        {"at": "0"},
        {"kind": "tokens", "table": {"a": float("nan")}},
        {"kind": "tokens", "table": {"a": "b"}},
        {"kind": "tokens", "table": {str(number): 1.0 for number in range(200_001)}},
        {"column": 9},
    ):
        with pytest.raises(ValueError):
            texts.check(texts.from_json(json.dumps([fields | change])), [REVIEW])
    with pytest.raises(ValueError, match="is no text"):
        texts.check(texts.from_json(json.dumps([fields])), [Column("price", "number")])


def test_a_model_gives_a_bounded_number_of_numbers_per_row() -> None:
    wide = TextVector(0, Terms(tuple(map(str, range(3_000)))))
    texts.check([wide], [REVIEW])
    slow = [
        TextVector(0, Terms(("ab",), analyzer="char", ngrams=(1, 13)), np.ones((1, 1))) for _ in range(11)
    ]
    texts.check(slow[:10], [REVIEW])
    with pytest.raises(BadTerms, match="n-grams of a row's texts may have 2,002,000 characters"):
        texts.check(slow, [REVIEW])
    with pytest.raises(BadTerms, match="n-grams of 1 to 14 make 105 characters of each character"):
        texts.check([replace(slow[0], terms=replace(slow[0].terms, ngrams=(1, 14)))], [REVIEW])
    plain = Terms(("ab",), analyzer="char", ngrams=(1, 13))
    assert replace(plain, accents="unicode").work(REVIEW) == 18 * plain.work(REVIEW)
    with pytest.raises(BadTerms, match="6,000 numbers, at most 4,096"):
        texts.check([wide, wide], [REVIEW])
