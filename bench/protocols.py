"""Requests in the standard protocols, the same for Vigía and for the servers that the protocols come from."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from bench import samples
from bench.services import Bodies, Service, Target, Vigia

DATATYPES = {bool: "BOOL", int: "INT64", float: "FP64", str: "BYTES"}


def open_inference(rows: Sequence[samples.Row]) -> dict[str, Any]:
    """Returns rows as the columns of an Open Inference Protocol (V2) request that becomes a DataFrame."""
    inputs = []
    for name in rows[0]:
        values = [row[name] for row in rows]
        if name == "totalcharges":  # the protocol has no null
            values = [value or 0.0 for value in values]
        kind = DATATYPES[type(values[0])]
        column = {"name": name, "shape": [len(rows), 1], "datatype": kind, "data": values}
        inputs.append(column | ({"parameters": {"content_type": "str"}} if kind == "BYTES" else {}))
    return {"parameters": {"content_type": "pd"}, "inputs": inputs}


def dataframe_records(rows: Sequence[samples.Row]) -> dict[str, Any]:
    """Returns rows as a request to MLflow's scoring server."""
    return {"dataframe_records": [row | {"totalcharges": row["totalcharges"] or 0.0} for row in rows]}


def open_inference_targets(bodies: Bodies) -> dict[str, Target]:
    path = "/v2/models/churn/infer"
    one = Target("POST", path, [open_inference([row]) for row in bodies.one])
    many = Target("POST", path, [open_inference(rows) for rows in bodies.many])
    return {"churn-16": one, "churn-64": one, "churn-many": many}


def mlflow_targets(bodies: Bodies, path: str) -> dict[str, Target]:
    one = Target("POST", path, [dataframe_records([row]) for row in bodies.one])
    many = Target("POST", path, [dataframe_records(rows) for rows in bodies.many])
    return {"churn-16": one, "churn-64": one, "churn-many": many}


def services(vigia: Vigia, bodies: Bodies) -> list[Service]:
    """Returns Vigía's own routes of the protocols; its native route and its log stay as they are."""

    def route(name: str, protocol: str, peer: str, targets: dict[str, Target], read: Any) -> Service:
        own = vigia.service
        return Service(
            name=f"vigia-{name}",
            title=f"**Vigía, {protocol}**",
            note=f"the same process, key and log; the bodies that {peer} gets",
            stores=own.stores,
            port=own.port,
            targets=targets,
            pid=own.pid,
            key=own.key,
            table=own.table,
            read=read,
        )

    def probability(answer: Any) -> float:
        [output] = [each for each in answer["outputs"] if each["name"] == "probability"]
        return float(output["data"][0])

    return [
        route("v2", "V2 protocol", "MLServer", open_inference_targets(bodies), probability),
        route(
            "mlflow",
            "MLflow protocol",
            "MLflow",
            mlflow_targets(bodies, "/models/churn/invocations"),
            lambda answer: answer["probability"][0],
        ),
    ]
