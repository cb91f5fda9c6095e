"""Asks the service with KServe's REST client; see `tests.clients.conftest`."""

import asyncio
import json
import sys

import httpx
import numpy as np
from kserve import InferenceRESTClient, InferInput, InferRequest, RESTConfig
from kserve.protocol.infer_type import RequestedOutput

asked = json.load(sys.stdin)
headers = {"Authorization": f"Bearer {asked['key']}"}
address = f"http://127.0.0.1:{asked['port']}"
TYPES = {"BYTES": np.object_, "BOOL": np.bool_, "INT64": np.int64, "FP64": np.float64}


def request(rows, binary, outputs=None):
    inputs = []
    for column in asked["columns"]:
        values = np.array([row[column["name"]] for row in rows], dtype=TYPES[column["datatype"]])
        tensor = InferInput(column["name"], list(values.shape), column["datatype"])
        tensor.set_data_from_numpy(values, binary_data=binary)
        inputs.append(tensor)
    return InferRequest("churn", inputs, "mine", request_outputs=outputs)


def plain(response):
    return {
        "outputs": {output.name: output.as_numpy().ravel().tolist() for output in response.outputs},
        "ids": response.parameters["prediction_ids"],
        "version": str(response.parameters["version"]),
        "model": response.model_name,
        "id": response.id,
    }


async def main():
    client = InferenceRESTClient(RESTConfig(protocol="v2"))
    rows = asked["rows"]
    binary_outputs = [RequestedOutput("prediction", {"binary_data": True})]
    answers = []
    for _ in range(2):
        for binary in (False, True):
            for outputs in (None, binary_outputs):
                sent = request(rows, binary, outputs)
                answers.append(
                    plain(await client.infer(address, sent, model_name="churn", headers=dict(headers)))
                )
    errors = []
    for model, sent in (("churn", [rows[0] | {"tenure": -5}]), ("none", rows)):
        try:
            await client.infer(address, request(sent, False), model_name=model, headers=dict(headers))
        except httpx.HTTPStatusError as error:
            errors.append([error.response.status_code, str(error)])
    print(json.dumps({
        "live": await client.is_server_live(address),
        "ready": await client.is_server_ready(address),
        "model_ready": await client.is_model_ready(address, "churn", headers=headers),
        "unknown_ready": await client.is_model_ready(address, "none", headers=headers),
        "answers": answers,
        "errors": errors,
    }))  # fmt: skip


asyncio.run(main())
