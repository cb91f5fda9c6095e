"""Bicycles hired per hour, predicted from the calendar and the weather (Capital Bikeshare, Washington).

The columns are those of the hourly file of the UCI repository (Fanaee-T & Gama, Event labeling combining
ensemble detectors and background knowledge, Progress in Artificial Intelligence 2, 2013). `casual` and
`registered` add up to the target and are not features.

Hires grow from 2011 to 2012 and every year has its seasons: a model trained on one quarter soon predicts
values that it has never seen. The model demonstrates drift reviews; see docs/drift.md.
"""

from __future__ import annotations

from typing import Any

from vigia_ml.declaration import Gate, ModelDeclaration, Space
from vigia_ml.schema import Column, DatasetSchema

SCHEMA = DatasetSchema(
    columns=(
        Column(
            "season", "integer", "1 winter, 2 spring, 3 summer, 4 autumn.", minimum=1, maximum=4, example=1
        ),
        Column("yr", "integer", "Years since 2011.", minimum=0, maximum=100, example=0),
        Column("mnth", "integer", "Month.", minimum=1, maximum=12, example=3),
        Column("hr", "integer", "Hour of the day.", minimum=0, maximum=23, example=8),
        Column("holiday", "boolean", "Whether it is a public holiday.", example=False),
        Column("weekday", "integer", "Day of the week, from 0 for Sunday.", minimum=0, maximum=6, example=2),
        Column("workingday", "boolean", "Neither weekend nor holiday.", example=True),
        Column(
            "weathersit",
            "integer",
            "1 clear, 2 mist, 3 light rain or snow, 4 heavy.",
            minimum=1,
            maximum=4,
            example=1,
        ),
        Column("temp", "number", "Temperature, -8 to 39 °C as 0 to 1.", minimum=-1, maximum=2, example=0.32),
        Column(
            "atemp", "number", "As it feels, -16 to 50 °C as 0 to 1.", minimum=-1, maximum=2, example=0.33
        ),
        Column("hum", "number", "Relative humidity, as a share.", minimum=0, maximum=1, example=0.55),
        Column("windspeed", "number", "Wind, 0 to 67 km/h as 0 to 1.", minimum=0, maximum=3, example=0.19),
    ),
    target=Column("cnt", "integer", "Bicycles hired in the hour.", minimum=0, maximum=100_000),
    key="instant",
    ignored=("dteday", "casual", "registered"),
)


def build(seed: int) -> Any:
    """Returns a histogram boosting on the square root of the count, because the spread of a count grows with
    it."""
    import numpy as np
    from sklearn.compose import TransformedTargetRegressor
    from sklearn.ensemble import HistGradientBoostingRegressor
    from sklearn.pipeline import Pipeline

    from vigia_ml.transformers.text import ToFloat

    boosting = HistGradientBoostingRegressor(
        max_iter=200, learning_rate=0.08, l2_regularization=1.0, early_stopping=False, random_state=seed
    )
    on_root = TransformedTargetRegressor(boosting, func=np.sqrt, inverse_func=np.square)
    return Pipeline([("numbers", ToFloat()), ("model", on_root)])


def space() -> Space:
    """Returns the search space: learning rate, iterations, tree size and regularisation of the boosting."""
    from scipy.stats import loguniform, randint

    model = "model__regressor__"
    return {
        f"{model}learning_rate": loguniform(0.02, 0.2),
        f"{model}max_iter": randint(100, 401),
        f"{model}max_leaf_nodes": randint(10, 61),
        f"{model}min_samples_leaf": randint(5, 41),
        f"{model}l2_regularization": loguniform(1e-2, 1e1),
    }


MODEL = ModelDeclaration(
    name="bikes",
    title="Hired bicycles",
    description="How many bicycles are hired in an hour, from the calendar and the weather.",
    task="regression",
    schema=SCHEMA,
    build=build,
    primary_metric="mae",
    gate=Gate(minimum={"r2": 0.5}, max_regression=0.05),
    policy="manual",
    search=space,
)
