"""The manifest of a push: what a client says about the graph and the rows that it sends.

A web process reads it, so this module imports neither pandas nor pyarrow. It reads every field by itself, to
report every fault.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import fields
from typing import Annotated, Any, Final, Literal, get_type_hints

import msgspec
from msgspec import Meta, Struct

from training.registry import declarations
from vigia_ml.declaration import PRIMARY, Task
from vigia_ml.schema import Column, DatasetSchema, Fault, InvalidRows
from vigia_ml.schema.columns import is_storable
from vigia_ml.schema.dataset import RepeatedNames
from vigia_ml.schema.faults import REPORTED_FAULTS, clip, echo
from vigia_ml.schema.json_body import decode_json

FORMAT: Final = 1
LARGEST: Final = 4 * 2**20
"""Bytes of a manifest."""
FILES: Final = ("graph", "train", "holdout", "answers")
MOST_COLUMNS: Final = 5_000
MOST_CLASSES: Final = 10_000
MOST_LEVELS: Final = 10_000
"""Levels of the training data that a version remembers; see `vigia_ml.fitting.fit.LEVELS_REMEMBERED`."""
LONGEST_TEXT: Final = 1_000_000
"""Largest `max_length` of a column, in characters."""

Digest = Annotated[str, Meta(pattern=r"^[0-9a-f]{64}\Z")]
Count = Annotated[int, Meta(ge=0, le=2**53)]
Word = Annotated[str, Meta(max_length=100)]
Sentence = Annotated[str, Meta(max_length=300)]


class SentFile(Struct, frozen=True, forbid_unknown_fields=True):
    """Digest of one file, and its length in bytes."""

    sha256: Digest
    size: Annotated[int, Meta(ge=1, le=2**53)]


class SentFiles(Struct, frozen=True, forbid_unknown_fields=True):
    """The files of a push: the graph, training rows, hold-out rows, the pipeline's answers to these."""

    graph: SentFile
    train: SentFile
    holdout: SentFile
    answers: SentFile

    def of(self, name: str) -> SentFile:
        file: SentFile = getattr(self, name)
        return file


class ClientParity(Struct, frozen=True, forbid_unknown_fields=True):
    """The client's own comparison of pipeline and graph; see `vigia_ml.engines.parity.Parity`."""

    passed: bool
    tolerance: float
    measure: Word
    worst: float | None
    where: Sentence
    rows: Count
    refused: Count = 0
    decided_otherwise: Count = 0
    edges: Count = 0
    edges_asked: Count = 0
    seconds: float = 0.0
    protocol: Count = 1


class Manifest(Struct, frozen=True, forbid_unknown_fields=True):
    """The manifest, decoded and checked.

    task : see `vigia_ml.declaration.ModelDeclaration`. schema : with the training data's ranges and levels.
    classes : in the order of the graph's probabilities; None for a regression.
    primary_metric, threshold : None for the model's. estimator : the pipeline in words.
    libraries : versions of the client's libraries. parity : the client's own comparison, if it made one.
    activation_reason : if set, the run activates a version that passes its gate, whatever the policy.
    """

    format: Literal[1]
    task: Task
    schema: DatasetSchema
    files: SentFiles
    classes: list[str | bool] | None = None
    title: Annotated[str, Meta(max_length=200)] = ""
    description: Annotated[str, Meta(max_length=4000)] = ""
    primary_metric: Word | None = None
    threshold: Annotated[float, Meta(ge=0.0, le=1.0)] | None = None
    estimator: Sentence = ""
    libraries: Annotated[dict[Word, Word], Meta(max_length=100)] = {}
    parity: ClientParity | None = None
    activation_reason: Annotated[str, Meta(max_length=500)] = ""

    def declared(self) -> dict[str, Any]:
        """Returns what a model that this push creates declares; see `declarations.build`."""
        return {
            "task": self.task,
            "description": self.description,
            "primary_metric": self.primary_metric or PRIMARY[self.task],
            "threshold": 0.5 if self.threshold is None else self.threshold,
            "target": self.schema.to_json()["target"],
        }


def read(text: bytes) -> Manifest:
    """Decodes and checks a manifest.

    Raises
    ------
    InvalidRows : lists every fault. Malformed : the text is not JSON.
    """
    if len(text) > LARGEST:
        message = f"manifest has {len(text):,} bytes; accepted: at most {LARGEST:,}"
        raise InvalidRows.single("manifest", "too_long", message)
    plain = decode_json(text)
    if not isinstance(plain, dict):
        raise InvalidRows.single("manifest", "not_an_object", "manifest must be a JSON object")
    faults = list(_strings(plain, "manifest"))
    values: dict[str, Any] = {}
    if not faults:
        faults = list(_fields(plain, values))
    if not faults:
        faults = list(_contradictions(values))
    if faults:
        raise InvalidRows(faults, message="the manifest is invalid")
    return Manifest(**values)


def _strings(value: Any, path: str) -> Iterator[Fault]:
    """Yields a fault for each repeated name, text that cannot be stored, and number that is not finite."""
    if isinstance(value, Mapping):
        for name in value.repeated if isinstance(value, RepeatedNames) else ():
            yield Fault(clip(f"{path}.{name}"), "duplicate_field", f"{clip(name)} is given twice")
        for name, inner in value.items():
            if not is_storable(name):
                yield Fault(path, "bad_text", "a name holds NUL or a lone surrogate")
            yield from _strings(inner, f"{path}.{name}")
    elif isinstance(value, list):
        for place, inner in enumerate(value):
            yield from _strings(inner, f"{path}[{place}]")
    elif isinstance(value, str) and not is_storable(value):
        yield Fault(clip(path), "bad_text", "the text must not hold NUL or lone surrogates")
    elif isinstance(value, float) and not math.isfinite(value):
        yield Fault(clip(path), "not_finite", "the number must be finite")


def _fields(plain: Mapping[str, Any], values: dict[str, Any]) -> Iterator[Fault]:
    """Converts each field into `values`; yields the faults."""
    known = {field.name: field for field in msgspec.structs.fields(Manifest)}
    for name in plain:
        if name not in known:
            message = f"{clip(name)} is not a field of a manifest of format {FORMAT}"
            yield Fault(clip(name), "unknown_field", message, allowed=tuple(known))
    for name, field in known.items():
        if name not in plain:
            if field.required:
                yield Fault(name, "missing_field", f"{name} is missing")
        elif name == "schema":
            yield from _schema(plain[name], values)
        else:
            converted = _converted(plain[name], field.type, name)
            if isinstance(converted, Fault):
                yield converted
            else:
                values[name] = converted


def _converted(value: Any, kind: Any, path: str) -> Any:
    """Returns the value as the type, or a fault."""
    try:
        return msgspec.convert(value, kind, strict=True)
    except msgspec.ValidationError as error:
        message, _, where = str(error).partition(" - at `$")
        field = f"{path}{where.rstrip('`')}"
        plain = value if isinstance(value, (str, int, float, bool)) else None
        return Fault(
            clip(field), "invalid", clip(f"{field}: {message}", 300), echo(plain), has_value=plain is not None
        )


def _schema(plain: Any, values: dict[str, Any]) -> Iterator[Fault]:
    """Converts a schema into ``values["schema"]``; yields the faults of all columns."""
    kinds = get_type_hints(DatasetSchema)
    known = [field.name for field in fields(DatasetSchema)]
    if not isinstance(plain, dict):
        yield Fault("schema", "not_an_object", "schema must be an object")
        return
    parts: dict[str, Any] = {}
    faults: list[Fault] = []
    for name, value in plain.items():
        if name not in known:
            faults.append(_unknown(f"schema.{name}"))
        elif name == "columns":
            parts[name] = tuple(_columns(value, faults))
        elif name == "target":
            parts[name] = _column(value, "schema.target", faults)
        else:
            parts[name] = _converted(value, kinds[name], f"schema.{name}")
            faults += [parts[name]] if isinstance(parts[name], Fault) else []
    for name in ("columns", "target"):
        if name not in plain:
            faults.append(Fault(f"schema.{name}", "missing_field", f"schema.{name} is missing"))
    if not faults:
        try:
            values["schema"] = DatasetSchema(**parts)
        except ValueError as error:
            faults.append(Fault("schema", "invalid", clip(str(error), 300)))
    yield from faults


def _unknown(path: str) -> Fault:
    return Fault(
        clip(path), "unknown_field", "this service knows no such field of a schema; upgrade the service"
    )


def _columns(plain: Any, faults: list[Fault]) -> Iterator[Column]:
    if not isinstance(plain, list) or not 0 < len(plain) <= MOST_COLUMNS:
        message = f"schema.columns must be an array of 1 to {MOST_COLUMNS:,} columns"
        faults.append(Fault("schema.columns", "not_an_array", message))
        return
    for place, item in enumerate(plain):
        column = _column(item, f"schema.columns[{place}]", faults)
        if column is not None:
            yield column
        if len(faults) > REPORTED_FAULTS:
            return


def _column(plain: Any, path: str, faults: list[Fault]) -> Column | None:
    """Returns a column, or None and adds its faults."""
    known = {field.name for field in fields(Column)}
    if isinstance(plain, dict) and set(plain) - known:
        faults += [_unknown(f"{path}.{name}") for name in sorted(set(plain) - known)]
        return None
    column = _converted(plain, Column, path)
    if isinstance(column, Fault):
        faults.append(column)
        return None
    assert isinstance(column, Column)
    found = len(faults)
    if not 0 < column.max_length <= LONGEST_TEXT:
        message = f"max_length must be from 1 to {LONGEST_TEXT:,}"
        faults.append(Fault(f"{path}.max_length", "out_of_bounds", message))
    levels = (column.levels, column.seen.levels if column.seen else ())
    for name, each in zip(("levels", "seen.levels"), levels, strict=True):
        if len(set(each)) != len(each):
            faults.append(Fault(f"{path}.{name}", "invalid", "a level is listed twice"))
        if len(each) > MOST_LEVELS:
            faults.append(Fault(f"{path}.{name}", "too_long", f"accepted: at most {MOST_LEVELS:,} levels"))
    return column if len(faults) == found else None


def _contradictions(values: Mapping[str, Any]) -> Iterator[Fault]:
    """Yields a fault for each pair of fields that do not fit each other."""
    task, schema, classes = values["task"], values["schema"], values.get("classes")
    declared = Manifest(**values).declared()
    try:
        declarations.build("pushed", "", declared, schema)
    except ValueError as error:
        yield Fault("task", "invalid", clip(str(error).removeprefix("pushed: "), 300))
        return
    message = _of_classes(task, schema.target, classes)
    if message:
        yield Fault("classes", "invalid", message)
    if task != "binary" and values.get("threshold") is not None:
        yield Fault("threshold", "invalid", "only a binary task has a threshold; send null")
    parity = values.get("parity")
    if parity is not None and not parity.passed:
        message = f"the client's own comparison of pipeline and graph failed, at {clip(parity.where)}"
        yield Fault("parity.passed", "invalid", message)


def _of_classes(task: Task, target: Column, classes: list[Any] | None) -> str:
    """Returns the fault of the classes in words; empty without one."""
    if task == "regression":
        return "" if classes is None else "a regression has no classes; send null"
    if classes is None:
        return f"a {task} task needs its classes, in the order of the probabilities"
    if target.type == "boolean":
        return "" if classes == [False, True] and classes[0] is False else "the classes must be [false, true]"
    if not 2 <= len(classes) <= MOST_CLASSES or len(set(classes)) != len(classes):
        return f"classes must be 2 to {MOST_CLASSES:,} different classes"
    if not all(isinstance(each, str) for each in classes):
        return f"the classes of a {target.type} target must be texts"
    unknown = [each for each in classes if target.levels and each not in target.levels]
    if unknown:
        return f"{target.name} has no level {clip(unknown[0])!r}"
    return (
        ""
        if task != "binary" or tuple(classes) == target.levels
        else "the classes must be the target's levels"
    )
