"""Open Inference Protocol V2: requests as rows of a schema, answers as tensors.

The fast path (`FastV2`) and the view (`web.protocols.v2_views`) read tensors with the same `columns_of`; only
the view reports faults of the values.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

import msgspec
from django.conf import settings

from predictions.errors import TooManyRows
from predictions.inference.pipeline import encode
from predictions.log.statements import NO_WARNINGS
from vigia_ml.engines import class_name
from vigia_ml.errors import Malformed
from vigia_ml.schema import Column, DatasetSchema, Fault, InvalidRows
from vigia_ml.schema.dataset import RepeatedNames
from vigia_ml.schema.faults import clip, counted
from vigia_ml.schema.json_body import decode_json
from vigia_ml.schema.row_keys import KEY_FIELD, read_key
from web.protocols import v2_tensors as tensors
from web.protocols.fast import HeaderLines
from web.protocols.v2_tensors import BinaryTail, InferRequest, InputTensor, fault

if TYPE_CHECKING:
    from predictions.inference.pipeline import Prepared
    from training.serving.engine_cache import Served
    from training.serving.routing import RoutedVersion
    from vigia_ml.schema.row_decoder import CompiledSchema, Rows
    from web.fast_path import RequestHead

PREDICTION, PROBABILITY, PROBABILITIES = "prediction", "probability", "probabilities"
HEADER: Final = "Inference-Header-Content-Length"
ADMITTED: Final = frozenset(
    (
        b"", b"application/json", b"application/octet-stream", b"application/x-www-form-urlencoded",
        b"application/json; charset=utf-8", b"application/json;charset=utf-8",
    )
)  # fmt: skip
"""Types of bodies that the fast path reads; curl sends the form's type unless it is told another."""
_OF_CLASSES: Final = {str: "BYTES", bool: "BOOL", int: "INT64"}
_OF_LABELS: Final = {b'"': "BYTES", b"t": "BOOL", b"f": "BOOL"}
"""First byte of a class in JSON -> datatype."""
_MATRIX_TYPES: Final = ("number", "integer", "boolean")
_decode: Final = msgspec.json.Decoder(InferRequest).decode


@dataclass(frozen=True, slots=True)
class ParsedRequest:
    """A parsed request. tail : the body behind the JSON, or None without the header that gives its length."""

    request: InferRequest
    tail: bytes | None


@dataclass(frozen=True, slots=True)
class Columns:
    """The values of a request by column.

    values : name as the client wrote it -> one value per row. roles : the same names -> see
        `DatasetSchema.resolve`.
    """

    rows: int
    values: dict[str, Sequence[Any]]
    roles: dict[str, tuple[str, Column | None]]


# -- reading -------------------------------------------------------------------------------------------


def parse(body: bytes, json_length: str | None) -> ParsedRequest:
    """Returns the request in a body.

    Parameters
    ----------
    json_length : the header Inference-Header-Content-Length.

    Raises
    ------
    Malformed : the body is not JSON. InvalidRows : the JSON is no request of the protocol.
    """
    text, tail = body, None
    if json_length is not None:
        if not (json_length.isascii() and json_length.isdigit() and len(json_length) < 20):
            raise Malformed(f"{HEADER} must be a whole number of bytes", code="bad_tensor")
        if int(json_length) > len(body):
            message = f"{HEADER} is {int(json_length):,}; the body has {counted(len(body), 'byte')}"
            raise Malformed(message, code="bad_tensor")
        text, tail = body[: int(json_length)], body[int(json_length) :]
    plain = decode_json(text)
    if not isinstance(plain, dict):
        raise fault(None, 'send a JSON object with "inputs", an array of tensors')
    _check_names(plain)
    try:
        request = msgspec.convert(plain, InferRequest)
    except msgspec.ValidationError as error:
        raise fault(None, f"the body is no inference request: {clip(str(error), 200)}") from None
    return ParsedRequest(request, tail)


def _check_names(plain: dict[str, Any]) -> None:
    """Raises `InvalidRows` for a name that stands twice in the request or in a tensor."""
    lists = [plain.get("inputs"), plain.get("outputs")]
    nodes = [plain, *(node for each in lists if isinstance(each, list) for node in each)]
    nodes += [node["parameters"] for node in nodes if isinstance(node, dict) and "parameters" in node]
    for node in nodes:
        if isinstance(node, RepeatedNames) and node.repeated:
            name = clip(node.repeated[0])
            raise fault(None, f"{name!r} is given twice in one JSON object")


def parse_quickly(body: bytes, json_length: bytes) -> ParsedRequest | None:
    """Returns the request in a body that is plainly valid; None if only `parse` can decide."""
    text, tail = body, None
    if json_length:
        if not json_length.isdigit() or len(json_length) > 9 or int(json_length) > len(body):
            return None
        length = int(json_length)
        text, tail = body[:length], body[length:]
    try:
        request = _decode(text)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return None
    return ParsedRequest(request, tail) if _has_each_name_once(request, text) else None


def _has_each_name_once(request: InferRequest, text: bytes) -> bool:
    """Returns whether the text has no more colons than its fields and texts account for.

    A repeated name adds a colon. Unknown fields and nested parameters add colons too; then `parse` decides.
    """
    fields = 1 + sum([
        value is not None
        for value in (
            request.id, request.parameters, request.outputs, request.model_name, request.model_version
        )
    ])  # fmt: skip
    fields += len(request.parameters or ())
    for tensor in request.inputs:
        fields += 3 + (tensor.data is not None)
        if tensor.parameters is not None:
            fields += 1 + len(tensor.parameters)
    for output in request.outputs or ():
        fields += 1 if output.parameters is None else 2 + len(output.parameters)
    colons = text.count(b":")
    if colons == fields:
        return True
    if b"\\u003" in text:  # an escaped colon would balance that of a duplicate name
        return False
    return colons == fields + sum([each.count(":") for each in _texts(request)])


def _texts(request: InferRequest) -> Iterator[str]:
    for node in (request, *request.inputs, *(request.outputs or ())):
        for name, value in (node.parameters or {}).items():
            yield name
            if isinstance(value, str):
                yield value
    for text in (request.id, request.model_name, request.model_version):
        yield text or ""
    for tensor in request.inputs:
        yield tensor.name
        yield from (each for each in tensor.data or () if isinstance(each, str))
    for output in request.outputs or ():
        yield output.name


def columns_of(parsed: ParsedRequest, schema: DatasetSchema, most: int) -> Columns:
    """Returns the values of a request's tensors.

    A tensor holds one column, or all columns of a schema whose columns are numbers or booleans. NaN and an
    empty text are missing values where the column may be null.

    Raises
    ------
    InvalidRows : a tensor does not fit the schema, its shape or its datatype. TooManyRows : more than `most`.
    """
    inputs = parsed.request.inputs
    if not inputs:
        raise fault(None, '"inputs" is empty; send one tensor per column', allowed=schema.names)
    tail = None if parsed.tail is None else BinaryTail(parsed.tail)
    first = inputs[0]
    rows, first_width = tensors.read_shape(first)
    if rows > most:
        raise TooManyRows(most)
    if rows == 0:
        message = "the shape has no rows; send at least one"
        raise InvalidRows.single(clip(first.name), "empty_array", message)
    values: dict[str, Sequence[Any]] = {}
    roles: dict[str, tuple[str, Column | None]] = {}
    for tensor in inputs:
        name = tensor.name
        if tensor.shape == first.shape and tensor.datatype in tensors.DATATYPES:  # most tensors
            count, width = rows, first_width
        else:
            count, width = tensors.read_shape(tensor)
        if count != rows:
            message = f"the shape has {counted(count, 'row')}; that of {clip(first.name)} has {rows:,}"
            raise fault(name, message)
        elements = _elements(tensor, tail, count * width)
        role, column = resolved = schema.resolve(name)
        if role == "unknown" and len(tensor.shape) == 2:
            values |= _matrix(tensor, elements, inputs, schema)
            roles |= {column.name: ("feature", column) for column in schema.columns}
            continue
        if width != 1 and role != "unknown":
            raise fault(name, f"the shape must be [{rows}] or [{rows}, 1]: one value per row")
        if column is not None and column.nullable:
            elements = _with_nulls(elements, tensor.datatype)
        if name in values:
            raise _twice(name)
        values[name], roles[name] = elements, resolved
    if tail is not None and tail.left:
        message = (
            f"{counted(tail.left, 'byte')} of the body belong to no tensor; is a binary_data_size missing?"
        )
        raise fault(None, message)
    for name, value in (parsed.request.parameters or {}).items():
        if schema.role(name) == "key":
            if rows > 1:
                message = f"the parameter {clip(name)} is the key of one row; send {KEY_FIELD} as a tensor"
                raise fault(name, message)
            if name in values:
                raise _twice(name)
            values[name], roles[name] = [value], ("key", None)
    return Columns(rows, values, roles)


def _twice(name: str) -> InvalidRows:
    return InvalidRows.single(clip(name), "duplicate_field", f"the input {clip(name)} is given twice")


def _elements(tensor: InputTensor, tail: BinaryTail | None, size: int) -> list[Any]:
    parameters = tensor.parameters
    if parameters:
        if "shared_memory_region" in parameters:
            raise fault(tensor.name, "shared memory is not supported; send the data in the body")
        declared = parameters.get("binary_data_size")
        if declared is not None:
            if tail is None:
                message = f"binary data need the header {HEADER}, the length of the JSON in bytes"
                raise fault(tensor.name, message)
            if tensor.data is not None:
                raise fault(tensor.name, "send data or binary_data_size, not both")
            return tail.take(tensor, declared, size)
    return tensors.read_json(tensor, size)


def _matrix(
    tensor: InputTensor, elements: list[Any], inputs: Sequence[InputTensor], schema: DatasetSchema
) -> dict[str, Sequence[Any]]:
    """Returns the columns of a matrix in the order of the schema's columns."""
    name, names, width = tensor.name, schema.names, tensor.shape[1]
    others = [each for each in inputs if each is not tensor and schema.role(each.name) != "key"]
    numeric = all(column.type in _MATRIX_TYPES for column in schema.columns)
    if others or not numeric or tensor.datatype == "BYTES":
        message = f"{clip(name)} is not a column of this model"
        if not others and numeric:
            message = f"{message}, and a matrix of all columns must hold numbers, not BYTES"
        elif not numeric:
            message = f"{message}; it has columns that are no numbers: send one tensor per column"
        raise InvalidRows.single(clip(name), "unknown_field", message, allowed=names)
    if width != len(names):
        message = f"the matrix has {counted(width, 'column')}; this model has {len(names)}, in this order"
        raise fault(name, message, allowed=names)
    values: dict[str, Sequence[Any]] = {}
    for at, column in enumerate(schema.columns):
        own = elements[at::width]
        values[column.name] = _with_nulls(own, tensor.datatype) if column.nullable else own
    return values


def _with_nulls(elements: list[Any], datatype: str) -> list[Any]:
    """Returns the elements of a column that may be null, with nulls in place of NaN or of empty texts."""
    if datatype == "BYTES":
        return [each or None for each in elements] if "" in elements else elements
    return [None if each != each else each for each in elements]  # noqa: PLR0124 - true for NaN alone


def check_columns(columns: Columns, schema: DatasetSchema) -> None:
    """Raises `InvalidRows` for unknown, repeated and missing columns, once and not for every row."""
    faults: list[Fault] = []
    sent: set[str] = set()
    for name, (role, column) in columns.roles.items():
        if role == "unknown":
            message = f"{clip(name)} is not a column of this model"
            faults.append(Fault(clip(name), "unknown_field", message, allowed=schema.names))
        elif role == "feature" and column is not None:
            if column.name in sent:
                faults.append(Fault(clip(name), "duplicate_field", f"{column.name} is given twice"))
            sent.add(column.name)
    for column in schema.columns:
        if column.name not in sent and not column.nullable:
            message = f"{column.name} is missing; send it as {tensors.datatype_of(column)}"
            faults.append(Fault(column.name, "missing_field", message))
    if faults:
        raise InvalidRows(faults, message="the inputs do not fit the model's columns")


def rows_of(columns: Columns) -> list[dict[str, Any]]:
    """Returns one object per row, as the native route takes them."""
    names = list(columns.values)
    return [dict(zip(names, row, strict=True)) for row in zip(*columns.values.values(), strict=True)]


def rows_quickly(columns: Columns, compiled: CompiledSchema) -> Rows | None:
    """Returns the rows if all are plainly valid; None if only `DatasetSchema.read` can decide."""
    places = compiled.places
    absent = [None] * columns.rows
    ordered: list[Sequence[Any] | None] = [None] * len(places)
    keys: list[str | None] | None = None
    for name, (role, column) in columns.roles.items():
        values = columns.values[name]
        if role == "feature" and column is not None:
            place = places[column.name]
            if ordered[place] is not None:
                return None
            ordered[place] = values
        elif role == "key":
            if keys is not None:
                return None
            read = [read_key(value, name) for value in values]
            if any(isinstance(each, Fault) for each in read):
                return None
            keys = read  # type: ignore[assignment]
        elif role == "unknown":
            return None
    complete = [absent if values is None else values for values in ordered]
    return compiled.accept(list(zip(*complete, strict=True)), keys or absent)  # type: ignore[arg-type]


# -- writing -------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class RequestedAnswer:
    """The form of the answer, as the request names it.

    outputs : name -> whether its data are binary; None: all outputs, and `binary` says it for each.
    """

    id: str | None
    outputs: Mapping[str, bool] | None
    binary: bool


def requested_answer(request: InferRequest) -> RequestedAnswer:
    """Returns the form of the answer. Raises `InvalidRows` for parameters that are not supported."""
    every = (request.parameters or {}).get("binary_data_output", False)
    if type(every) is not bool:
        raise fault(None, "the parameter binary_data_output must be true or false")
    if not request.outputs:
        return RequestedAnswer(request.id, None, every)
    outputs: dict[str, bool] = {}
    for output in request.outputs:
        parameters = output.parameters or {}
        is_binary = parameters.get("binary_data", every)
        if output.name in outputs:
            raise fault(output.name, f"the output {clip(output.name)} is requested twice")
        if type(is_binary) is not bool:
            raise fault(output.name, "the parameter binary_data must be true or false")
        for name in ("classification", "shared_memory_region"):
            if parameters.get(name):
                message = f"the parameter {name} is not supported; request {PROBABILITIES} and leave it out"
                raise fault(output.name, message)
        outputs[output.name] = is_binary
    return RequestedAnswer(request.id, outputs, every)


def outputs_of(served: Served, *, every_class: bool) -> tuple[str, ...]:
    """Returns the names of the outputs of a version.

    every_class : see `training.serving.routing.RoutedVersion`.
    """
    if served.engine.classes is None:
        return (PREDICTION,)
    if not every_class or served.by_class is None:
        return (PREDICTION, PROBABILITY)
    return (PREDICTION, PROBABILITY, PROBABILITIES)


def described_outputs(served: Served, *, every_class: bool) -> list[dict[str, Any]]:
    """Returns the outputs of a version for its metadata; see `outputs_of`."""
    classes = served.engine.classes
    datatype = "FP64" if classes is None else _OF_CLASSES.get(type(classes[0]), "FP64")
    described: dict[str, dict[str, Any]] = {
        PREDICTION: {"datatype": datatype, "shape": [-1]},
        PROBABILITY: {"datatype": "FP64", "shape": [-1]},
        PROBABILITIES: {"datatype": "FP64", "shape": [-1, len(classes or ())]},
    }
    if classes is not None:
        described[PROBABILITIES]["parameters"] = {"classes": [class_name(label) for label in classes]}
    return [{"name": name} | described[name] for name in outputs_of(served, every_class=every_class)]


def check_outputs(requested: RequestedAnswer, available: Sequence[str]) -> None:
    """Raises `InvalidRows` for an output that the version does not have."""
    for name in requested.outputs or ():
        if name not in available:
            message = f"{clip(name)} is not an output of this model"
            raise InvalidRows.single(clip(name), "unknown_field", message, allowed=tuple(available))


@dataclass(frozen=True, slots=True)
class Answers:
    """Answers as the native route has them; each list holds one JSON text per row, `ids` without quotes."""

    model: str
    version: int
    ids: Sequence[bytes]
    values: Sequence[bytes]
    probabilities: Sequence[bytes] | None
    by_class: Sequence[bytes] | None
    warnings: Sequence[bytes]

    @classmethod
    def of(cls, prepared: Prepared) -> Answers:
        served = prepared.served
        return cls(
            served.model_name, served.number, prepared.ids, prepared.values, prepared.probabilities,
            prepared.by_class, prepared.warnings,
        )  # fmt: skip

    @classmethod
    def of_body(cls, body: Mapping[str, Any]) -> Answers:
        """Returns the answers of a native body, which may be the stored one of an earlier request."""
        given = body["predictions"]

        def column(name: str) -> list[bytes]:
            return [encode(each[name]) for each in given if name in each]

        return cls(
            body["model"], body["version"], [each["id"].encode() for each in given], column("prediction"),
            column("probability") or None, column("probabilities") or None, column("warnings"),
        )  # fmt: skip

    def parameters(self) -> bytes:
        """Returns the members of the response's parameters."""
        # KServe's client drops `model_version`, and keeps the parameters.
        ids = b'"version":%d,"prediction_ids":["%s"]' % (self.version, b'","'.join(self.ids))
        if all(each == NO_WARNINGS for each in self.warnings):
            return ids
        warnings = [
            {"row": row} | warning
            for row, each in enumerate(self.warnings)
            for warning in msgspec.json.decode(each)
        ]
        return b'%s,"warnings":%s' % (ids, encode(warnings))

    def tensors(self) -> Iterator[tuple[str, str, bytes, bytes, bytes]]:
        """Yields (name, datatype, shape, classes as a member of its parameters or b"", elements) as JSON."""
        rows = len(self.ids)
        first = self.values[0]
        datatype = "FP64"
        if self.probabilities is not None and first[:1] in _OF_LABELS:
            datatype = _OF_LABELS[first[:1]]
        elif self.probabilities is not None and first.lstrip(b"-").isdigit():
            datatype = "INT64"
        yield PREDICTION, datatype, b"[%d]" % rows, b"", b",".join(self.values)
        if self.probabilities is not None:
            yield PROBABILITY, "FP64", b"[%d]" % rows, b"", b",".join(self.probabilities)
        if self.by_class is not None:
            each: list[dict[str, float]] = msgspec.json.decode(b"[%s]" % b",".join(self.by_class))
            classes = b'"classes":%s' % encode(list(each[0]))
            elements = encode([value for row in each for value in row.values()])[1:-1]
            yield PROBABILITIES, "FP64", b"[%d,%d]" % (rows, len(each[0])), classes, elements


def write(answers: Answers, requested: RequestedAnswer) -> tuple[bytes, HeaderLines]:
    """Returns the body of the response and its headers; see `FastProtocol.write`."""
    written: dict[str, bytes] = {}
    tail: dict[str, bytes] = {}
    for name, datatype, shape, classes, elements in answers.tensors():
        is_binary = requested.binary if requested.outputs is None else requested.outputs.get(name)
        if is_binary is None:
            continue
        parameters = [classes] if classes else []
        if is_binary:
            tail[name] = tensors.binary(datatype, msgspec.json.decode(b"[%s]" % elements))
            parameters.append(b'"binary_data_size":%d' % len(tail[name]))
        own = b',"parameters":{%s}' % b",".join(parameters) if parameters else b""
        data = b"" if is_binary else b',"data":[%s]' % elements
        form = b'{"name":"%s","datatype":"%s","shape":%s%s%s}'
        written[name] = form % (name.encode(), datatype.encode(), shape, own, data)
    order = list(requested.outputs or written)
    identifier = b"" if requested.id is None else b'"id":%s,' % encode(requested.id)
    text = b'{"model_name":"%s","model_version":"%d",%s"parameters":{%s},"outputs":[%s]}' % (
        answers.model.encode(), answers.version, identifier, answers.parameters(),
        b",".join([written[name] for name in order if name in written]),
    )  # fmt: skip
    if not tail:
        return text, ()
    length = b"%d" % len(text)
    lines = (b"Content-Type", b"application/octet-stream"), (HEADER.encode(), length)
    return text + b"".join([tail[name] for name in order if name in tail]), lines


# -- the fast path -------------------------------------------------------------------------------------


class FastV2:
    """The protocol's part of the fast path; see `web.protocols.fast.FastProtocol`."""

    def admits(self, head: RequestHead) -> bool:
        return head.content_type.lower() in ADMITTED

    def read(
        self, served: Served, version: RoutedVersion, body: bytes, head: RequestHead
    ) -> tuple[Rows, RequestedAnswer] | None:
        parsed = parse_quickly(body, head.json_length)
        if parsed is None:
            return None
        try:
            requested = requested_answer(parsed.request)
            check_outputs(requested, outputs_of(served, every_class=version.every_class))
            columns = columns_of(parsed, served.schema, settings.PREDICT_MAX_ROWS)
        except (InvalidRows, TooManyRows):
            return None
        rows = rows_quickly(columns, served.compiled)
        return None if rows is None else (rows, requested)

    def write(self, prepared: Prepared, context: RequestedAnswer) -> tuple[bytes, HeaderLines]:
        return write(Answers.of(prepared), context)
