"""Pydantic models of the request and the answer, with levels and bounds."""

from typing import Annotated, Any, Literal

import pandas as pd
from pydantic import BaseModel, Field

YesNo = Literal["no", "yes"]
InternetExtra = Literal["no", "no_internet_service", "yes"]


class Customer(BaseModel):
    gender: Literal["female", "male"]
    seniorcitizen: bool
    partner: YesNo
    dependents: YesNo
    tenure: Annotated[int, Field(ge=0, le=1200)]
    phoneservice: YesNo
    multiplelines: Literal["no", "no_phone_service", "yes"]
    internetservice: Literal["dsl", "fiber_optic", "no"]
    onlinesecurity: InternetExtra
    onlinebackup: InternetExtra
    deviceprotection: InternetExtra
    techsupport: InternetExtra
    streamingtv: InternetExtra
    streamingmovies: InternetExtra
    contract: Literal["month-to-month", "one_year", "two_year"]
    paperlessbilling: YesNo
    paymentmethod: Literal[
        "bank_transfer_(automatic)", "credit_card_(automatic)", "electronic_check", "mailed_check"
    ]
    monthlycharges: Annotated[float, Field(ge=0, le=100_000)]
    totalcharges: Annotated[float, Field(ge=0, le=100_000_000)] | None = None


class Answer(BaseModel):
    prediction: bool
    probability: float


def answers(pipeline: Any, customers: list[Customer]) -> list[Answer]:
    """Returns the model's answers to the customers."""
    frame = pd.DataFrame([customer.model_dump() for customer in customers])
    frame["totalcharges"] = frame["totalcharges"].astype(float).fillna(0.0)
    probabilities = pipeline.predict_proba(frame)[:, 1].tolist()
    return [Answer(prediction=one >= 0.5, probability=one) for one in probabilities]
