"""Asks with `mlflow.deployments`; runs in MLflow's environment, and imports nothing of Vigía."""

import json
import os
import sys

asked = json.load(sys.stdin)
os.environ["MLFLOW_TRACKING_TOKEN"] = asked["key"]
os.environ["MLFLOW_HTTP_REQUEST_MAX_RETRIES"] = "0"

from mlflow.deployments import get_deploy_client  # noqa: E402 (the environment decides about the token)
from mlflow.exceptions import ERROR_CODE_TO_HTTP_STATUS  # noqa: E402

client = get_deploy_client(f"http://127.0.0.1:{asked['port']}")
answers = [client.predict(endpoint="churn", inputs=body) for body in asked["bodies"]]
errors = []
for endpoint, body in asked["refused"]:
    try:
        client.predict(endpoint=endpoint, inputs=body)
    except Exception as error:
        errors.append(str(error))
endpoints = [endpoint.model_dump() for endpoint in client.list_endpoints()]
one = client.get_endpoint("churn").model_dump()
given = {"answers": answers, "errors": errors, "endpoints": endpoints, "one": one}
print(json.dumps(given | {"statuses": ERROR_CODE_TO_HTTP_STATUS}))
