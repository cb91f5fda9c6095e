"""A pipeline's own columns, spelling, nulls and classes fit a schema, or the refusal says why not."""

from __future__ import annotations

import io
from typing import Any

import pytest

from vigia_ml.importing import inferred_schema, plans
from vigia_ml.importing.description import Description, Original
from vigia_ml.importing.errors import NotImportable
from vigia_ml.importing.plans import Plan, Wishes
from vigia_ml.scaffold import csv_survey
from vigia_ml.schema import Column, DatasetSchema

SCHEMA = DatasetSchema(
    columns=(
        Column("tenure", "integer"),
        Column("contract", "category", levels=("month-to-month", "one_year"), normalise="lower_snake"),
        Column("total", "number", nullable=True, aliases=("TotalCharges",)),
    ),
    target=Column("left", "boolean"),
    key="customer",
    fold_names=True,
)


def description(**changes: Any) -> Description:
    fields: dict[str, Any] = {
        "estimator": "LogisticRegression",
        "task": "classification",
        "classes": (0, 1),
        "labels": None,
        "features": None,
        "separator": None,
        "names": ("tenure", "contract"),
        "width": 2,
        "values": {"contract": ["month-to-month", "one_year"]},
        "takes_nan": False,
    }
    return Description.of(fields | changes)


def planned(wishes: Wishes = Wishes(), with_nulls: tuple[str, ...] = (), **changes: Any) -> Plan:  # noqa: B008
    return plans.plan(SCHEMA, "binary", description(**changes), wishes, with_nulls)


def dicts(*features: str, **changes: Any) -> dict[str, Any]:
    return {"features": features, "separator": "=", "names": None, "values": {}} | changes


def test_names_of_other_case_and_signs_are_matched_in_their_order() -> None:
    plan = planned(names=("Total Charges", "Contract", "TENURE"), values={})
    assert list(plan.names.items()) == [
        ("total", "Total Charges"),
        ("contract", "Contract"),
        ("tenure", "TENURE"),
    ]
    assert (plan.classes, plan.order, plan.dicts) == ((False, True), (0, 1), False)


def test_the_authors_spelling_is_restored() -> None:
    plan = planned(values={"contract": ["Month-to-month", "One year", "Two year"]})
    assert plan.levels == {"contract": {"month-to-month": "Month-to-month", "one_year": "One year"}}
    assert any("does not accept 'Two year'" in note for note in plan.notes)


def test_a_level_that_the_pipeline_does_not_know_is_noted() -> None:
    plan = planned(values={"contract": ["one_year"]})
    assert any("does not know 'month-to-month' of contract" in note for note in plan.notes)


def test_features_are_divided_by_the_schemas_columns() -> None:
    plan = planned(**dicts("tenure", "contract=one_year", "contract=a=b", "TotalCharges"))
    assert plan.names == {"tenure": "tenure", "contract": "contract", "total": "TotalCharges"}
    assert plan.dicts
    original = Original(description(**dicts("contract=a=b")), ["contract"])
    assert original.texts == {"contract": ["a=b"]}


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"task": "regression", "classes": None}, "predicts a number, and the model predicts classes"),
        ({"names": ("tenure", "age")}, "fitted on 'age', which the model's schema lacks; it has tenure"),
        ({"names": ("tenure", "left")}, "fitted on 'left', which is the model's target"),
        ({"names": ("tenure", "customer")}, "which is the model's key"),
        ({"names": ("tenure", "Tenure")}, "one column, twice"),
        ({"names": None}, "named|name them in the author's order.*--columns tenure,contract,total"),
        ({"values": {"tenure": ["1", "2"]}}, "knows texts of 'tenure', such as '1'"),
        ({"values": {"contract": [1, 2]}}, "knows numbers of 'contract'"),
        ({"values": {"contract": ["weekly"]}}, "none of the texts.*'weekly'.*'month-to-month'"),
        ({"values": {"contract": ["One year", "ONE year"]}}, "which the model reads as one level"),
        (dicts("tenure", "city=Rome"), "fitted on 'city', which the table lacks"),
        (dicts("contract", "contract=one_year"), "both texts and numbers of 'contract'"),
        ({"classes": ("a", "b")}, "classes are 'a', 'b', and those of left are False, True.*--classes"),
        ({"classes": (0, 1, 2)}, "--classes a,b"),
    ],
)
def test_what_does_not_fit_is_refused_in_words(changes: dict[str, Any], words: str) -> None:
    with pytest.raises(NotImportable, match=words):
        planned(**changes)


def test_classes_of_other_labels_and_orders_are_mapped() -> None:
    assert planned(classes=("no", "yes")).order == (0, 1)
    assert planned(classes=("yes", "no")).order == (1, 0)
    assert planned(classes=(0.0, 1.0)).order == (0, 1)
    assert planned(Wishes(classes=("yes", "no"))).order == (1, 0)
    assert planned(labels=("yes", "no")).order == (1, 0)
    with pytest.raises(NotImportable, match="names 3 labels, and the model has 2 classes"):
        planned(Wishes(classes=("a", "b", "c")))


def test_a_null_of_a_vectorizer_is_absent_unless_its_model_accepts_nan() -> None:
    features = dicts("tenure", "total")
    plan = planned(with_nulls=("total",), **features)
    assert plan.nulls == "absent"
    assert any("nulls of total are left out of the dict" in note for note in plan.notes)
    with pytest.raises(NotImportable, match=r"only its author knows.*--nulls nan"):
        planned(with_nulls=("total",), **features, takes_nan=True)
    assert planned(Wishes(nulls="nan"), ("total",), **features, takes_nan=True).nulls == "nan"
    assert planned(Wishes(fill={"total": "0"}), ("total",), **features, takes_nan=True).fill == {"total": 0.0}
    with pytest.raises(NotImportable, match="--nulls is for a DictVectorizer"):
        planned(Wishes(nulls="nan"))


@pytest.mark.parametrize(
    ("fill", "words"),
    [
        ({"totals": "0"}, "the model has no column 'totals'"),
        ({"total": "many"}, "--fill total=many: total must be a number"),
        ({"contract": "weekly"}, "contract must be one of its levels"),
    ],
)
def test_a_fill_is_a_value_of_its_column(fill: dict[str, str], words: str) -> None:
    with pytest.raises(NotImportable, match=words):
        planned(Wishes(fill=fill))


def test_a_forged_description_is_refused() -> None:
    for forged in (None, [], {"estimator": 1}, {"features": [1, 2]}):
        with pytest.raises(NotImportable, match="do not trust it"):
            Description.of(forged)


# -- schemas of new models -----------------------------------------------------------------------------

CSV = "customerID,Tenure,Contract,Paper,Active,Note,Churn\n" + "\n".join(
    f"c{n},{n % 50 + 1},{('Two year', 'Month-to-month')[n % 2]},{('Yes', 'No')[n % 3 % 2]},"
    f"{('True', 'False')[n % 2]},{'x' if n % 7 else ''},{('Yes', 'No')[n % 2]}"
    for n in range(120)
)


def inferred(wishes: Wishes = Wishes(), target: str = "Churn", **changes: Any) -> inferred_schema.Inferred:  # noqa: B008
    survey = csv_survey.survey(io.BytesIO(CSV.encode()))
    return inferred_schema.infer(survey, description(**changes), wishes, target, "customerID")


def test_the_schema_has_the_pipelines_names_and_spelling_and_reads_the_csvs() -> None:
    found = inferred(**dicts("tenure", "contract=two_year", "contract=month-to-month", "contract=one_year"))
    tenure, contract = found.schema.columns
    assert (tenure.name, tenure.aliases, tenure.type) == ("tenure", ("Tenure",), "integer")
    assert (contract.normalise, contract.levels) == (
        "lower_snake",
        ("month-to-month", "one_year", "two_year"),
    )
    assert contract.from_text("Two year") == "two_year"
    assert (found.task, found.schema.key, found.schema.target.type) == ("binary", "customerID", "boolean")
    assert set(found.schema.ignored) == {"Paper", "Active", "Note"}


def test_columns_are_read_as_pandas_read_them_for_the_author() -> None:
    found = inferred(names=("Paper", "Active", "Note", "Tenure"), values={"Paper": ["No", "Yes"]})
    kinds = {column.name: (column.type, column.levels, column.nullable) for column in found.schema.columns}
    assert kinds["Paper"] == ("category", ("No", "Yes"), False)
    assert kinds["Active"][0] == "boolean"
    assert kinds["Note"][2]
    words = inferred(names=("Contract",), values={}, texts=("Contract",)).schema.columns[0]
    assert (words.type, words.levels) == ("text", ())
    unknown = inferred(names=("Paper",), values={}).schema.columns[0]
    assert (unknown.type, unknown.levels) == ("category", ("No", "Yes"))


@pytest.mark.parametrize(
    ("target", "changes", "words"),
    [
        ("Left", {}, "--target: the CSV has no column 'Left'"),
        ("Churn", {"names": ("Age",)}, "fitted on 'Age', which the CSV lacks; it has 'Tenure'"),
        ("Tenure", {"names": ("tenure",)}, "--target or --key names: it cannot be both"),
        ("Churn", {"task": "regression", "classes": None, "names": ("Tenure",)}, "a regression needs"),
        ("Churn", dicts("contract"), "knows 'contract' as a number, and the CSV holds texts"),
    ],
)
def test_a_schema_that_cannot_be_inferred_is_refused_in_words(
    target: str, changes: dict[str, Any], words: str
) -> None:
    with pytest.raises(NotImportable, match=words):
        inferred(target=target, **changes)
