"""Asks the service with tritonclient; see `tests.clients.conftest`."""

import json
import sys

import numpy as np
import tritonclient.http as triton
from tritonclient.utils import InferenceServerException

asked = json.load(sys.stdin)
headers = {"Authorization": f"Bearer {asked['key']}"}
client = triton.InferenceServerClient(f"127.0.0.1:{asked['port']}")
TYPES = {"BYTES": np.object_, "BOOL": np.bool_, "INT64": np.int64, "FP64": np.float64}


def tensors(metadata, rows, binary):
    inputs = []
    for column in metadata["inputs"]:
        values = np.array([row[column["name"]] for row in rows], dtype=TYPES[column["datatype"]])
        tensor = triton.InferInput(column["name"], list(values.shape), column["datatype"])
        tensor.set_data_from_numpy(values, binary_data=binary)
        inputs.append(tensor)
    return inputs


def plain(result):
    response = result.get_response()
    values = {output["name"]: result.as_numpy(output["name"]) for output in response["outputs"]}
    values = {
        name: [each.decode() if isinstance(each, bytes) else each for each in value.ravel().tolist()]
        for name, value in values.items()
    }
    return {
        "outputs": values,
        "ids": response["parameters"]["prediction_ids"],
        "version": response["model_version"],
        "id": response.get("id"),
    }


metadata = client.get_model_metadata("churn", headers=headers)
rows = asked["rows"]
answers = [
    # The client adds the length of the JSON to the headers that it gets, also for a later request in JSON.
    plain(client.infer("churn", tensors(metadata, rows, binary), headers=dict(headers), **more))
    for _ in range(2)  # the second time on the fast path
    for binary in (True, False)
    for more in (
        {"request_id": "mine"},
        {"model_version": "1", "outputs": [triton.InferRequestedOutput("prediction")]},
        {"outputs": [triton.InferRequestedOutput("probabilities", binary_data=False)]},
        {"priority": 3, "parameters": {"trace": "x"}},
    )
]

matrix = np.array(asked["matrix"], dtype=np.float32)
whole = triton.InferInput("features", list(matrix.shape), "FP32")
whole.set_data_from_numpy(matrix)
grapes = plain(client.infer("grapes", [whole], headers=headers))

errors = []
for model, sent in (("churn", [rows[0] | {"tenure": -5, "contract": "weekly"}]), ("none", rows)):
    try:
        client.infer(model, tensors(metadata, sent, True), headers=headers)
    except InferenceServerException as error:
        errors.append([error.status(), error.message()])
try:
    client.get_model_metadata("churn")
except InferenceServerException as error:
    errors.append([error.status(), error.message()])

print(json.dumps({
    "live": client.is_server_live(),
    "ready": client.is_server_ready(),
    "model_ready": client.is_model_ready("churn", headers=headers),
    "version_ready": client.is_model_ready("churn", "1", headers=headers),
    "unknown_ready": client.is_model_ready("none", headers=headers),
    "server": client.get_server_metadata(headers=headers),
    "metadata": metadata,
    "answers": answers,
    "grapes": grapes,
    "errors": errors,
}))  # fmt: skip
