"""The summary of each API operation, and the groups that the documentation shows them in."""

from __future__ import annotations

from typing import Final

GROUPS: Final[dict[str, tuple[str, dict[str, str]]]] = {
    "Start": (
        "What is served, and where everything lies.",
        {
            "get_api_root": "List the addresses of the API",
            "list_models": "List the models",
            "get_model": "Show a model: schema, example, active version",
        },
    ),
    "Predict": (
        "Rows in, answers out. Each answer is in the log before it is sent.",
        {
            "predict": "Predict with the active version",
            "predict_version": "Predict with one version, active or not",
        },
    ),
    "Log": (
        "Every answer, with its inputs, its version and its lineage.",
        {
            "list_predictions": "List the predictions of a model",
            "get_prediction": "Show one prediction with its lineage",
        },
    ),
    "Outcomes and quality": (
        "Actual values, learned later, and how good the answers were.",
        {
            "give_outcomes": "Record outcomes",
            "list_outcomes": "List the outcomes of a model",
            "get_quality": "Show the realised quality of a model",
        },
    ),
    "Drift": (
        "Whether the rows still look like those a version was trained on.",
        {
            "review_drift": "Show the latest drift review, or review a window now",
            "list_drift_reviews": "List the drift reviews of a model",
            "get_drift_review": "Show one drift review",
            "keep_drift_review": "Keep a drift review beyond its retention",
        },
    ),
    "Train": (
        "Retrain with new rows, and measure a version on labelled ones.",
        {
            "request_training_run": "Request a training run",
            "list_training_runs": "List the training runs of a model",
            "get_training_run": "Show one training run",
            "cancel_training_run": "Cancel a training run",
            "evaluate": "Evaluate a version on labelled rows",
        },
    ),
    "Versions": (
        "Trained versions: which one answers now, and which one answered then.",
        {
            "list_versions": "List the versions of a model",
            "get_version": "Show one version",
            "get_model_card": "Get the model card of a version",
            "get_active": "Show the version active now, or at a time",
            "activate": "Activate a version",
            "rollback": "Roll back to the version before",
            "request_comparison": "Compare two versions",
            "get_comparison": "Show one comparison",
        },
    ),
    "Rollouts and replays": (
        "Try a version beside the active one, or on the log.",
        {
            "start_rollout": "Start a shadow or a canary",
            "list_rollouts": "List the rollouts of a model",
            "get_rollout": "Show one rollout with its arms",
            "raise_rollout": "Raise the share of a canary",
            "stop_rollout": "Stop a rollout",
            "request_replay": "Replay a part of the log with a version",
            "list_replays": "List the replays of a version",
            "get_replay": "Show one replay",
            "cancel_replay": "Cancel a replay",
        },
    ),
    "Recommend": (
        "Movies like one, for a text or for a user, with the reasons.",
        {
            "recommend": "Recommend movies",
            "describe_recommendations": "Show an example request",
            "get_recommendation": "Show one recommendation from the log",
            "give_feedback": "Record feedback on a recommendation",
            "get_recommendation_quality": "Show the click-through by version",
        },
    ),
    "Movies": (
        "The catalogue, and what users did with its movies.",
        {
            "list_movies": "List the movies of the catalogue",
            "add_movie": "Add a movie",
            "get_movie": "Show one movie",
            "put_movie": "Replace a movie",
            "change_movie": "Change fields of a movie",
            "withdraw_movie": "Withdraw a movie",
            "suggest_movies": "Suggest titles while somebody types",
            "give_interactions": "Record interactions of users with movies",
            "list_interactions": "List the interactions",
        },
    ),
    "First routes": (
        "The routes of the tutorials, for their clients.",
        {
            "tutorial_churn": "Predict churn (/predict)",
            "tutorial_houses": "Predict a price (/predecir)",
            "tutorial_movies": "Recommend five titles (/recommend)",
        },
    ),
}
"""Group -> (its description, operation -> summary), in the order of use."""

OPERATIONS: Final = {
    operation: (group, summary)
    for group, (_, operations) in GROUPS.items()
    for operation, summary in operations.items()
}
TAGS: Final = [{"name": group, "description": about} for group, (about, _) in GROUPS.items()]
