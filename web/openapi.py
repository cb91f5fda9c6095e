"""OpenAPI hooks: they keep the API's routes alone and add one predict route per declared model.

The generic route ``/models/{model}/predictions/`` cannot describe the fields of a model. So each file of the
catalogue adds its own path with the fields, limits, levels and an example derived from its schema.
"""

from __future__ import annotations

import copy
from typing import Any

from training import catalogue, idempotency
from vigia_ml.declaration import ModelDeclaration
from vigia_ml.schema import Column, DatasetSchema
from vigia_ml.schema.row_keys import KEY_FIELD, KEY_LENGTH
from web.openapi_summaries import OPERATIONS, TAGS

SHOWN = ("/api/v1/", "/api/2.0/", "/models/", "/v2", "/predict", "/predecir", "/recommend")
TUTORIALS = {"/predict": "ChurnInstance", "/predecir": "HousesInstance"}
GENERIC = "/api/v1/models/{model}/predictions/"


def only_the_api(endpoints: list[Any]) -> list[Any]:
    """Returns the endpoints of the API, without those of the admin and the home page."""
    return [endpoint for endpoint in endpoints if endpoint[0].startswith(SHOWN)]


def add_models(result: dict[str, Any], generator: Any, request: Any, public: bool) -> dict[str, Any]:
    """Adds the paths and components of the declared models, the error shape and the key scheme."""
    components = result.setdefault("components", {})
    schemas = components.setdefault("schemas", {})
    schemas["Error"] = _ERROR
    schemas["MlflowError"] = _MLFLOW_ERROR
    schemas["V2Error"] = _V2_ERROR
    components["securitySchemes"] = {"key": _KEY}
    result["tags"] = TAGS
    generic = result["paths"].get(GENERIC, {}).get("post")
    for path in result["paths"].values():
        for method, operation in path.items():
            _complete(operation)
            if method == "post":
                operation.setdefault("parameters", []).append(_IDEMPOTENCY_KEY)
            csv = operation.get("requestBody", {}).get("content", {}).get("text/csv")
            if csv:
                csv["schema"] = _CSV
    _unite_with_null(result)
    if generic is not None:
        for name in catalogue.names():
            declared = catalogue.get(name)
            component = f"{name.title().replace('_', '')}Instance"
            schemas[component] = json_schema(declared.schema)
            result["paths"][f"/api/v1/models/{name}/predictions/"] = {
                "post": _predict(generic, declared, component)
            }
    for path, component in TUTORIALS.items():
        if component in schemas and path in result["paths"]:
            one = {"$ref": f"#/components/schemas/{component}"}
            body = result["paths"][path]["post"]["requestBody"]
            body["required"] = True
            body["content"]["application/json"]["schema"] = one
    return result


def _complete(operation: dict[str, Any]) -> None:
    operation["security"] = [{"key": []}]
    group, operation["summary"] = OPERATIONS[operation["operationId"]]
    operation["tags"] = [group]
    shape = _ERRORS_OF.get(operation["operationId"].partition("_")[0], "Error")
    error = {"content": {"application/json": {"schema": {"$ref": f"#/components/schemas/{shape}"}}}}
    operation["responses"].setdefault("default", {"description": "Error.", **error})


def _unite_with_null(node: Any) -> None:
    """Removes the ``oneOf`` of nullable JSON fields: null matches both of "any value" and "null"."""
    if isinstance(node, dict):
        if node.get("oneOf") == [{}, {"type": "null"}]:
            del node["oneOf"]
        for inner in node.values():
            _unite_with_null(inner)
    elif isinstance(node, list):
        for inner in node:
            _unite_with_null(inner)


def _predict(generic: dict[str, Any], declared: ModelDeclaration, component: str) -> dict[str, Any]:
    operation = copy.deepcopy(generic)
    one = {"$ref": f"#/components/schemas/{component}"}
    operation["operationId"] = f"predict_{declared.name}"
    operation["summary"] = f"Predict with {declared.name}: {declared.title}"
    operation["description"] = f"{declared.description} Send one object, an array of objects, or a CSV."
    operation["tags"] = ["Predict"]
    operation["parameters"] = [p for p in operation["parameters"] if p["name"] != "model"]
    operation["requestBody"] = {
        "required": True,
        "content": {
            "application/json": {
                "schema": {"oneOf": [one, {"type": "array", "items": one, "minItems": 1}]},
                "example": declared.schema.example,
            },
            "text/csv": {"schema": _CSV},
        },
    }
    return operation


def json_schema(schema: DatasetSchema) -> dict[str, Any]:
    """Returns the JSON Schema of one instance.

    Descriptions name the aliases, so the schema allows additional names; the service checks them."""
    properties = {column.name: _property(column) for column in schema.columns}
    properties[KEY_FIELD] = {
        "type": "string",
        "maxLength": KEY_LENGTH,
        "description": "Your own reference for this row; stored with it, searchable, usable for outcomes."
        + (f" {schema.key} serves as well." if schema.key else ""),
    }
    body: dict[str, Any] = {"type": "object", "properties": properties}
    required = [column.name for column in schema.columns if not column.nullable and not column.aliases]
    return body | ({"required": required} if required else {})


def _property(column: Column) -> dict[str, Any]:
    kind = column.type if column.is_numeric or column.type == "boolean" else "string"
    sentences = [column.description] if column.description else []
    if column.unit:
        sentences.append(f"Unit: {column.unit}.")
    if column.aliases:
        sentences.append(f"Also accepted as {', '.join(column.aliases)}.")
    if column.is_temporal:
        sentences += _moment_sentences(column)
    property_schema: dict[str, Any] = {"type": [kind, "null"] if column.nullable else kind}
    if sentences:
        property_schema["description"] = " ".join(sentences)
    if column.levels:
        property_schema["enum"] = [*column.levels, *([None] if column.nullable else [])]
    if column.is_temporal:
        property_schema["format"] = "date" if column.type == "date" else "date-time"
    elif column.minimum is not None or column.maximum is not None:
        bounds = {"minimum": column.minimum, "maximum": column.maximum}
        property_schema |= {name: bound for name, bound in bounds.items() if bound is not None}
    if column.type == "text" or (column.type == "category" and not column.levels):
        property_schema["maxLength"] = column.max_length
    return property_schema


def _moment_sentences(column: Column) -> list[str]:
    sentences = [f"At least {column.minimum}."] if column.minimum is not None else []
    if column.maximum is not None:
        sentences.append(f"At most {column.maximum}.")
    if column.type == "datetime":
        sentences.append("Without a zone: UTC.")
    if column.format:
        sentences.append(f"Also accepted in the form {column.format}.")
    return sentences


_CSV: dict[str, Any] = {"type": "string", "minLength": 1}
_KEY: dict[str, Any] = {
    "type": "http",
    "scheme": "bearer",
    "description": (
        "Paste a client key. `make run` writes one to var/client-key; the admin issues others under Keys. "
        "Clients send it as `Authorization: Bearer <key>` or `Authorization: Token <key>`."
    ),
}
_IDEMPOTENCY_KEY: dict[str, Any] = {
    "in": "header",
    "name": "Idempotency-Key",
    "schema": {
        "type": "string",
        "minLength": 1,
        "maxLength": idempotency.KEY_LENGTH,
        "pattern": r"^[\x20-\x7e]+$",
    },
    "description": "Makes a retry safe: the same key and body get the stored response, for a day.",
}

_TEXT: dict[str, Any] = {"type": "string"}
_FAULT: dict[str, Any] = {
    "row": {"type": "integer", "description": "Zero-based position in the request."},
    "line": {"type": "integer", "description": "Line of a CSV."},
    "field": _TEXT,
    "code": _TEXT,
    "message": _TEXT,
    "value": {},
    "allowed": {"type": "array", "items": {}},
}
_ERROR_BODY: dict[str, Any] = {
    "code": _TEXT,
    "message": _TEXT,
    "request_id": _TEXT,
    "truncated": {"type": "boolean"},
    "details": {"type": "array", "items": {"type": "object", "properties": _FAULT}},
}
_ERROR: dict[str, Any] = {
    "type": "object",
    "required": ["error"],
    "properties": {
        "error": {
            "type": "object",
            "required": ["code", "message", "request_id"],
            "properties": _ERROR_BODY,
        }
    },
}
_MLFLOW_ERROR: dict[str, Any] = {
    "type": "object",
    "required": ["error_code", "message"],
    "properties": {"error_code": _TEXT, "message": _TEXT},
}
_V2_ERROR: dict[str, Any] = {"type": "object", "required": ["error"], "properties": {"error": _TEXT}}
_ERRORS_OF = {"mlflow": "MlflowError", "v2": "V2Error"}
"""Beginning of an operation's id -> component of its errors."""
