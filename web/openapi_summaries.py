"""The summary of each API operation, and the groups that the documentation shows them in."""

from __future__ import annotations

from typing import Final

GROUPS: Final[dict[str, tuple[str, dict[str, str]]]] = {
    "Start": (
        "The models and the addresses of the API.",
        {
            "get_api_root": "List the addresses of the API",
            "list_models": "List the models",
            "get_model": "Show a model: schema, example, active version",
        },
    ),
    "Predict": (
        "Predictions for rows. Each answer is committed in the log before it is sent.",
        {
            "predict": "Predict with the active version",
            "predict_version": "Predict with one version, active or not",
        },
    ),
    "Batches": (
        "Files of any size, scored as jobs. Every row is committed in the log.",
        {
            "request_batch": "Score a file",
            "list_batches": "List the batches of a model",
            "get_batch": "Show one batch",
            "cancel_batch": "Cancel a batch",
            "get_batch_results": "Download the results of a batch",
            "get_batch_errors": "Download the faults of a batch",
        },
    ),
    "Log": (
        "Logged predictions with inputs, version and lineage.",
        {
            "list_predictions": "List the predictions of a model",
            "get_prediction": "Show one prediction with its lineage",
            "request_log_export": "Export a window of the log as Parquet",
            "list_log_exports": "List the exports of a model's log",
            "get_log_export": "Show one export with its files",
            "cancel_log_export": "Cancel an export",
            "get_log_export_file": "Download one file of an export",
            "get_log_export_archive": "Download all files of an export",
        },
    ),
    "Outcomes and quality": (
        "Actual values of earlier predictions, and quality metrics computed from them.",
        {
            "give_outcomes": "Record outcomes",
            "list_outcomes": "List the outcomes of a model",
            "get_quality": "Show the realised quality of a model",
        },
    ),
    "Drift": (
        "Comparisons of a window of the log with the training data of a version.",
        {
            "review_drift": "Show the latest drift review, or review a window now",
            "list_drift_reviews": "List the drift reviews of a model",
            "get_drift_review": "Show one drift review",
            "keep_drift_review": "Keep a drift review beyond its retention",
        },
    ),
    "Train": (
        "Training runs on new rows, and evaluation of a version on labelled rows.",
        {
            "request_training_run": "Request a training run",
            "list_training_runs": "List the training runs of a model",
            "get_training_run": "Show one training run",
            "cancel_training_run": "Cancel a training run",
            "evaluate": "Evaluate a version on labelled rows",
        },
    ),
    "Versions": (
        "Trained versions, their activation and rollback.",
        {
            "list_versions": "List the versions of a model",
            "push_version": "Push a version as a compiled graph",
            "get_version": "Show one version",
            "get_model_card": "Get the model card of a version",
            "get_active": "Show the version active now, or at a time",
            "activate": "Activate a version",
            "rollback": "Roll back to the previous version",
            "request_comparison": "Compare two versions",
            "get_comparison": "Show one comparison",
        },
    ),
    "Archive": (
        "Archived models, versions and datasets serve no request; their rows and their lineage stay.",
        {
            "list_datasets": "List the datasets of a model",
            "get_dataset": "Show one dataset",
            "references_model": "List the references to a model",
            "references_version": "List the references to a version",
            "references_dataset": "List the references to a dataset",
            "archive_model": "Archive a model",
            "archive_version": "Archive a version",
            "archive_dataset": "Archive a dataset",
            "restore_model": "Restore a model",
            "restore_version": "Restore a version",
            "restore_dataset": "Restore a dataset",
            "delete_bytes_model": "Delete the bytes of an archived model",
            "delete_bytes_version": "Delete the bytes of an archived version",
            "delete_bytes_dataset": "Delete the bytes of an archived dataset",
        },
    ),
    "Rollouts and replays": (
        "Trials of a version: beside the active version, or on the log.",
        {
            "start_rollout": "Start a shadow or a canary",
            "list_rollouts": "List the rollouts of a model",
            "get_rollout": "Show one rollout with its arms",
            "raise_rollout": "Raise the share of a canary",
            "stop_rollout": "Stop a rollout",
            "request_replay": "Score a window of the log with a version",
            "list_replays": "List the replays of a version",
            "get_replay": "Show one replay",
            "cancel_replay": "Cancel a replay",
        },
    ),
    "Events": (
        "Events, and the subscriptions that send them to webhooks, e-mail and Slack.",
        {
            "list_events": "List the events",
            "list_subscriptions": "List the subscriptions",
            "create_subscription": "Subscribe to events",
            "get_subscription": "Show one subscription",
            "change_subscription": "Change a subscription",
            "delete_subscription": "Delete a subscription",
            "test_subscription": "Send a test message",
            "rotate_subscription_secret": "Give a webhook a new secret",
            "list_deliveries": "List the deliveries of a subscription",
            "replay_subscription": "Deliver dead letters or a span of events again",
            "replay_delivery": "Deliver one event again",
        },
    ),
    "Recommend": (
        "Recommended movies for a movie, a text or a user, with reasons.",
        {
            "recommend": "Recommend movies",
            "describe_recommendations": "Show an example request",
            "get_recommendation": "Show one recommendation from the log",
            "give_feedback": "Record feedback on a recommendation",
            "get_recommendation_quality": "Show the click-through by version",
        },
    ),
    "Movies": (
        "The catalogue of movies, and interactions of users with them.",
        {
            "list_movies": "List the movies of the catalogue",
            "add_movie": "Add a movie",
            "get_movie": "Show one movie",
            "put_movie": "Replace a movie",
            "change_movie": "Change fields of a movie",
            "withdraw_movie": "Withdraw a movie",
            "suggest_movies": "Suggest titles for a prefix",
            "give_interactions": "Record interactions of users with movies",
            "list_interactions": "List the interactions",
        },
    ),
    "Standard protocols": (
        "Routes for clients of other model servers; rights, limits and log are those of the routes above.",
        {
            "v2_server": "Show the server in the Open Inference Protocol V2",
            "v2_model": "Show a model's tensors",
            "v2_version": "Show a version's tensors",
            "v2_model_ready": "Ask whether the active version can predict",
            "v2_version_ready": "Ask whether a version can predict",
            "v2_infer": "Predict with tensors",
            "v2_version_infer": "Predict with tensors and one version, active or not",
            "mlflow_invocations": "Predict with MLflow's scoring protocol",
            "mlflow_list_endpoints": "List the models as endpoints of MLflow's client",
            "mlflow_get_endpoint": "Show a model as an endpoint of MLflow's client",
        },
    ),
    "First routes": (
        "The routes of the original tutorials, kept for their clients.",
        {
            "tutorial_churn": "Predict churn (/predict)",
            "tutorial_houses": "Predict a price (/predecir)",
            "tutorial_movies": "Recommend five titles (/recommend)",
        },
    ),
}
"""Group -> (its description, operation -> summary), in the order of the documentation."""

OPERATIONS: Final = {
    operation: (group, summary)
    for group, (_, operations) in GROUPS.items()
    for operation, summary in operations.items()
}
TAGS: Final = [{"name": group, "description": about} for group, (about, _) in GROUPS.items()]
