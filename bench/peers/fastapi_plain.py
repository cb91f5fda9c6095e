"""FastAPI, pydantic, a DataFrame and a scikit-learn pipeline; it stores nothing."""

import os
from pathlib import Path
from typing import Annotated, Literal

import joblib
import pandas as pd
from fastapi import FastAPI
from pydantic import BaseModel, Field

from bench.peers.churn_types import Answer, Customer, answers
from bench.samples import HOUSE_NUMBERS

churn = joblib.load(Path(os.environ["BENCH_MODELS"]) / "churn-frame.joblib")
houses = joblib.load(Path(os.environ["BENCH_MODELS"]) / "houses-frame.joblib")
app = FastAPI()


class House(BaseModel):
    lat: Annotated[float, Field(ge=35.0, le=44.5)] | None = None
    lng: Annotated[float, Field(ge=-10.0, le=5.0)] | None = None
    surface: Annotated[float, Field(ge=5, le=5_000)]
    bathrooms: Annotated[int, Field(ge=0, le=50)] | None = None
    rooms: Annotated[int, Field(ge=0, le=100)] | None = None
    garden: bool | None = None
    age: Annotated[float, Field(ge=0, le=1_000)] | None = None
    net_surface: Annotated[float, Field(ge=0, le=5_000)] | None = None
    lift: bool | None = None
    garage: bool | None = None
    condition: Literal["A estrenar", "A reformar", "En buen estado", "Reformado"] | None = None


class Price(BaseModel):
    prediction: float


# `async def` without an await, because a `def` would go through a thread pool, which is slower here.
@app.post("/churn")
async def predict_churn(customer: Customer) -> Answer:
    return answers(churn, [customer])[0]


@app.post("/churn/many")
async def predict_many(customers: list[Customer]) -> list[Answer]:
    return answers(churn, customers)


@app.post("/houses")
async def predict_house(house: House) -> Price:
    frame = pd.DataFrame([house.model_dump()]).astype(dict.fromkeys(HOUSE_NUMBERS, float))
    return Price(prediction=float(houses.predict(frame)[0]))
