"""FastAPI, pydantic, a DataFrame and a pipeline; it commits each answer to PostgreSQL first, one INSERT a
request."""

import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import joblib
from fastapi import FastAPI
from psycopg.types.json import Jsonb
from psycopg_pool import AsyncConnectionPool

from bench.peers.churn_types import Answer, Customer, answers

INSERT = "INSERT INTO bench_prediction (inputs, prediction, probability) VALUES (%s, %s, %s)"

churn = joblib.load(Path(os.environ["BENCH_MODELS"]) / "churn-frame.joblib")
pool = AsyncConnectionPool(os.environ["DATABASE_URL"], min_size=2, max_size=16, open=False)


@asynccontextmanager
async def lifespan(_: FastAPI) -> AsyncIterator[None]:
    async with pool:
        yield


app = FastAPI(lifespan=lifespan)


def row(customer: Customer, answer: Answer) -> tuple[Any, ...]:
    return Jsonb(customer.model_dump()), answer.prediction, answer.probability


@app.post("/churn")
async def predict_churn(customer: Customer) -> Answer:
    answer = answers(churn, [customer])[0]
    async with pool.connection() as connection:  # commits at the end of the block
        await connection.execute(INSERT, row(customer, answer))
    return answer


@app.post("/churn/many")
async def predict_many(customers: list[Customer]) -> list[Answer]:
    results = answers(churn, customers)
    async with pool.connection() as connection, connection.cursor() as cursor:
        # psycopg sends these in one pipeline: one round trip, one transaction.
        await cursor.executemany(INSERT, [row(*pair) for pair in zip(customers, results, strict=True)])
    return results
