"""Tensors of the Open Inference Protocol V2: datatypes, JSON data, the binary extension. No Django here.

A size that a client names is compared with the received bytes before memory is allocated for it.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable, Sequence
from math import prod
from types import NoneType
from typing import Any, Final

from msgspec import Struct

from vigia_ml.schema import Column, InvalidRows
from vigia_ml.schema.faults import clip, counted, echo

MOST_DIMENSIONS: Final = 8
LARGEST_SHAPE: Final = 2**31

_FORMATS: Final = {
    "BOOL": "?", "UINT8": "B", "UINT16": "H", "UINT32": "I", "UINT64": "Q", "INT8": "b", "INT16": "h",
    "INT32": "i", "INT64": "q", "FP16": "e", "FP32": "f", "FP64": "d",
}  # fmt: skip
"""Datatype -> format of `struct` for one element; binary data are little-endian."""
DATATYPES: Final = (*_FORMATS, "BYTES")
_SIZES: Final = {datatype: struct.calcsize(f"<{code}") for datatype, code in _FORMATS.items()}
_BOUNDS: Final = {
    datatype: (-(2 ** (8 * size - 1)), 2 ** (8 * size - 1) - 1)
    if datatype[0] == "I"
    else (0, 2 ** (8 * size) - 1)
    for datatype, size in _SIZES.items()
    if "INT" in datatype
}
_NUMBERS: Final = frozenset((int, float, NoneType))
_KINDS: Final = dict.fromkeys(_FORMATS, _NUMBERS) | {
    "BOOL": frozenset((bool, NoneType)),
    "BYTES": frozenset((str, NoneType)),
}
_ACCEPTED: Final = {"BOOL": "true, false or null", "BYTES": "text or null"}
_LENGTH: Final = struct.Struct("<I")
_OF_COLUMNS: Final = {"number": "FP64", "integer": "INT64", "boolean": "BOOL"}


class InputTensor(Struct, gc=False):
    """One input as the client sent it."""

    name: str
    shape: list[int]
    datatype: str
    data: list[Any] | None = None
    parameters: dict[str, Any] | None = None


class RequestedOutput(Struct, gc=False):
    """One output that the client requests, and its parameters."""

    name: str
    parameters: dict[str, Any] | None = None


class InferRequest(Struct, gc=False):
    """The JSON of a request. Unknown fields are ignored."""

    inputs: list[InputTensor]
    id: str | None = None
    parameters: dict[str, Any] | None = None
    outputs: list[RequestedOutput] | None = None
    model_name: str | None = None
    model_version: str | None = None


def datatype_of(column: Column) -> str:
    """Returns the datatype that the metadata name for a column."""
    return _OF_COLUMNS.get(column.type, "BYTES")


def fault(field: str | None, message: str, **details: Any) -> InvalidRows:
    return InvalidRows.single(None if field is None else clip(field), "bad_tensor", message, **details)


def read_shape(tensor: InputTensor) -> tuple[int, int]:
    """Returns (rows, values in a row) of a tensor.

    Raises
    ------
    InvalidRows : the shape or the datatype is none of the protocol's.
    """
    shape = tensor.shape
    if tensor.datatype not in _KINDS:
        message = f"{clip(tensor.datatype)!r} is not a datatype"
        raise fault(tensor.name, message, allowed=DATATYPES)
    if len(shape) == 1 and 0 <= shape[0] <= LARGEST_SHAPE:
        return shape[0], 1
    if not 0 < len(shape) <= MOST_DIMENSIONS or not all(0 <= size <= LARGEST_SHAPE for size in shape):
        message = f"shape must be 1 to {MOST_DIMENSIONS} sizes, each from 0 to {LARGEST_SHAPE:,}"
        raise fault(tensor.name, message)
    return shape[0], prod(shape[1:])


def read_json(tensor: InputTensor, size: int) -> list[Any]:
    """Returns the elements of a tensor with data in JSON, flat or nested by its shape.

    Parameters
    ----------
    size : number of elements by the shape.

    Raises
    ------
    InvalidRows : the data do not match the shape or the datatype; the first fault with its row.
    """
    data, name = tensor.data, tensor.name
    if data is None:
        raise fault(name, "data is missing; send an array, or binary data with binary_data_size")
    kinds = _KINDS[tensor.datatype]
    if not kinds.issuperset(map(type, data)):
        if any(isinstance(each, list) for each in data):
            data = _flattened(tensor)
        for place, value in enumerate(data):
            if type(value) not in kinds:
                raise _not_of(tensor, place, size, value)
    if len(data) != size:
        raise fault(
            name, f"data holds {counted(len(data), 'element')}; the shape {tensor.shape} has {size:,}"
        )
    bounds = _BOUNDS.get(tensor.datatype)
    if bounds is not None:
        low, high = bounds
        for place, value in enumerate(data):
            if value is not None and not (low <= value <= high and value == int(value)):
                raise _not_of(tensor, place, size, value)
    return data


def _not_of(tensor: InputTensor, place: int, size: int, value: object) -> InvalidRows:
    row = place // max(1, size // max(1, tensor.shape[0]))
    accepted = _ACCEPTED.get(tensor.datatype)
    if accepted is None and tensor.datatype in _BOUNDS:
        low, high = _BOUNDS[tensor.datatype]
        accepted = f"a whole number from {low} to {high}, or null"
    message = f"data of {tensor.datatype} must be {accepted or 'a number or null'}"
    return fault(tensor.name, message, row=row, value=echo(value), has_value=True)


def _flattened(tensor: InputTensor) -> list[Any]:
    level: list[Any] = [tensor.data]
    for size in tensor.shape:
        if not all(isinstance(each, list) and len(each) == size for each in level):
            raise fault(tensor.name, f"nested data must have the shape {tensor.shape}, or send a flat array")
        level = [value for each in level for value in each]
    return level


class BinaryTail:
    """The binary data behind the JSON of a request; `take` reads the data of the next tensor."""

    def __init__(self, content: bytes) -> None:
        self._content, self._at = content, 0

    @property
    def left(self) -> int:
        return len(self._content) - self._at

    def take(self, tensor: InputTensor, declared: object, size: int) -> list[Any]:
        """Returns the elements of a tensor of `size` elements whose binary data have `declared` bytes.

        Raises
        ------
        InvalidRows : the bytes do not match the shape, or are not of the datatype.
        """
        name = tensor.name
        if type(declared) is not int or declared < 0:
            raise fault(name, "binary_data_size must be a whole number of bytes, not negative")
        if declared > self.left:
            message = f"binary_data_size is {declared:,}; the body holds {counted(self.left, 'more byte')}"
            raise fault(name, f"{message} (is Inference-Header-Content-Length the length of the JSON?)")
        at, self._at = self._at, self._at + declared
        if tensor.datatype == "BYTES":
            return self._texts(tensor, at, size)
        expected = size * _SIZES[tensor.datatype]
        if declared != expected:
            message = f"{tensor.datatype} of the shape {tensor.shape} has {expected:,} bytes of binary data"
            raise fault(name, f"{message}, not {declared:,}")
        return list(struct.unpack_from(f"<{size}{_FORMATS[tensor.datatype]}", self._content, at))

    def _texts(self, tensor: InputTensor, at: int, size: int) -> list[Any]:
        """Reads `size` texts of UTF-8, each behind its length in 4 bytes."""
        end, content = self._at, self._content
        texts: list[str] = []
        while at < end:
            stop = at + 4 + _LENGTH.unpack_from(content, at)[0] if at + 4 <= end else end + 1
            if stop > end or len(texts) == size:
                break
            try:
                texts.append(str(content[at + 4 : stop], "utf-8"))
            except UnicodeDecodeError:
                row = len(texts) // max(1, size // max(1, tensor.shape[0]))
                raise fault(tensor.name, "BYTES must be UTF-8 text", row=row) from None
            at = stop
        if at != end or len(texts) != size:
            message = f"BYTES of the shape {tensor.shape} must hold {counted(size, 'text')}"
            raise fault(tensor.name, f"{message}, each behind its length as 4 bytes, and nothing else")
        return texts


def binary(datatype: str, values: Sequence[Any]) -> bytes:
    """Returns values as the binary data of an output."""
    if datatype == "BYTES":
        return b"".join(_with_lengths(values))
    return struct.pack(f"<{len(values)}{_FORMATS[datatype]}", *values)


def _with_lengths(values: Sequence[str]) -> Iterable[bytes]:
    for value in values:
        text = value.encode()
        yield _LENGTH.pack(len(text))
        yield text
