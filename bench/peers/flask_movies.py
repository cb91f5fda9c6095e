"""The tutorial's movie recommender: it computes all similarities at the start and sorts all movies per
request.

`BENCH_MOVIES` names the catalogue, a CSV with TMDB's columns. The service validates, explains and stores
nothing.
"""

import os

import pandas as pd
from flask import Flask, jsonify, request
from flask.typing import ResponseReturnValue
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.metrics.pairwise import cosine_similarity

movies = pd.read_csv(os.environ["BENCH_MOVIES"])
vectorizer = TfidfVectorizer(stop_words="english")
sim = cosine_similarity(vectorizer.fit_transform(movies["overview"].fillna("")))  # (movies, movies)
app = Flask(__name__)


@app.post("/recommend")
def recommend() -> ResponseReturnValue:
    movie_id = request.get_json()["movie_id"]
    idx = movies.index[movies["id"] == movie_id][0]
    scores = sorted(list(enumerate(sim[idx])), key=lambda pair: pair[1], reverse=True)  # noqa: C414
    best = [i for i, _ in scores[1:6]]
    return jsonify({"recommendations": movies["title"].iloc[best].tolist()})
