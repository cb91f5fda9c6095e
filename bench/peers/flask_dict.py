"""Flask, DictVectorizer, logistic regression: no DataFrame, no validation, nothing stored."""

import os
from pathlib import Path
from typing import Any

import joblib
from flask import Flask, jsonify, request
from flask.typing import ResponseReturnValue

vectorizer, model = joblib.load(Path(os.environ["BENCH_MODELS"]) / "churn-dict.joblib")
app = Flask(__name__)


def answers(customers: list[dict[str, Any]]) -> list[dict[str, Any]]:
    for customer in customers:
        customer["totalcharges"] = customer["totalcharges"] or 0.0
    probabilities = model.predict_proba(vectorizer.transform(customers))[:, 1].tolist()
    return [{"prediction": one >= 0.5, "probability": one} for one in probabilities]


@app.post("/churn")
def predict_churn() -> ResponseReturnValue:
    return jsonify(answers([request.get_json()])[0])


@app.post("/churn/many")
def predict_many() -> ResponseReturnValue:
    return jsonify(answers(request.get_json()))
