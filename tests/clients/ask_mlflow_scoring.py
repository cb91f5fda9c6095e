"""Asks with MLflow's scoring client, which sends no key itself: `requests` finds it in ~/.netrc. Runs in
MLflow's environment, and imports nothing of Vigía."""

import json
import sys

import numpy as np
import pandas as pd
from mlflow.pyfunc.scoring_server.client import ScoringServerClient

asked = json.load(sys.stdin)
# The client takes a host and a port and appends /invocations: the model's address stands behind the port.
client = ScoringServerClient("127.0.0.1", f"{asked['port']}/models/churn")
client.wait_server_ready(timeout=asked["wait"])
rows = asked["rows"]
frame = pd.DataFrame(rows)
frame["tenure"] = frame["tenure"].astype("float64")
frame["contract"] = frame["contract"].astype("category")
indexed = frame.set_index(pd.Index([f"c-{at}" for at in range(len(frame))], name="customerid"))
sent = {
    "frame": frame,
    "frame with an index of texts": indexed,
    "columns in another order": frame[frame.columns[::-1]],
    "with the key": indexed.reset_index(),
    "matrix": frame.astype(object).where(frame.notna(), None).to_numpy(),
    "list of rows": rows,
}
answers = {}
for name, data in sent.items():
    response = client.invoke(data, params={"unused": 1} if name == "frame" else None)
    answers[name] = {
        "frame": response.get_predictions()[0].tolist(),
        "array": response.get_predictions("ndarray", dtype=np.bool_).tolist(),
        "all": dict(response),
    }
errors = []
for data in (frame.drop(columns="tenure"), frame.assign(tenure="x"), np.array([[1.0, 2.0]])):
    try:
        client.invoke(data)
    except Exception as error:
        errors.append(str(error))
root = ScoringServerClient("127.0.0.1", str(asked["port"]))
root.ping()
print(json.dumps({"answers": answers, "errors": errors, "version": root.get_version()}))
