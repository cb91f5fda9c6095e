"""The shape of an error's body, by the address of the request: each standard protocol has its own."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from vigia_ml.schema.faults import first_of

SHOWN_FAULTS: Final = 10
"""Faults that the sentence names, because these protocols have no field for details."""
SHOWN_VALUES: Final = 30
"""Accepted values that the sentence names for each fault."""

MLFLOW: Final = ("/models/", "/endpoints/", "/api/2.0/")
"""Beginnings of the addresses of MLflow's protocol."""
MLFLOW_CODES: Final[dict[int | str, str]] = {
    "invalid_input": "INVALID_PARAMETER_VALUE",
    "not_found": "ENDPOINT_NOT_FOUND",
    401: "UNAUTHENTICATED",
    403: "PERMISSION_DENIED",
    404: "RESOURCE_DOES_NOT_EXIST",
    409: "RESOURCE_CONFLICT",
    410: "RESOURCE_DOES_NOT_EXIST",
    429: "REQUEST_LIMIT_EXCEEDED",
    500: "INTERNAL_ERROR",
    503: "TEMPORARILY_UNAVAILABLE",
}
"""Code or status of an error -> MLflow's code; that of all others is BAD_REQUEST."""


def shaped(path: str, described: Mapping[str, Any], status: int) -> dict[str, Any]:
    """Returns the body of an error response.

    Parameters
    ----------
    described : code, message, request_id and details; see `web.errors.describe`.
    """
    if path == "/v2" or path.startswith("/v2/"):
        return {"error": sentence(described)}
    if path.startswith(MLFLOW):
        code = MLFLOW_CODES.get(described["code"]) or MLFLOW_CODES.get(status, "BAD_REQUEST")
        return {"error_code": code, "message": sentence(described)}
    return {"error": dict(described)}


def sentence(described: Mapping[str, Any]) -> str:
    """Returns an error as text, with the row, the column and the accepted values of the first faults."""
    details = [each for each in described.get("details", ()) if "message" in each]
    parts = [_fault(each) for each in details[:SHOWN_FAULTS]]
    if len(details) > SHOWN_FAULTS:
        parts.append(f"{len(details) - SHOWN_FAULTS} more")
    message = str(described["message"])
    if [each["message"] for each in details] == [message]:
        return parts[0]
    return f"{message}: {'; '.join(parts)}" if parts else message


def _fault(fault: Mapping[str, Any]) -> str:
    place = [f"row {fault['row']}"] if "row" in fault else []
    place += [f"line {fault['line']}"] if "line" in fault else []
    place += [f"column {fault['field']}"] if "field" in fault else []
    said = [str(fault["message"])]
    said += [f"sent: {fault['value']!r}"] if "value" in fault else []
    allowed = list(map(str, fault.get("allowed", ())))
    said += [f"accepted: {first_of(allowed, SHOWN_VALUES)}"] if allowed else []
    return ": ".join([part for part in (", ".join(place), ", ".join(said)) if part])
