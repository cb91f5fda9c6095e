"""Arrays and strings packed into bytes that are usable without copying. numpy only, no pickle."""

from __future__ import annotations

import io
import zipfile
from bisect import bisect_left
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, Final

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[Any]

ALIGNMENT: Final = 64
_EPOCH: Final = (1980, 1, 1, 0, 0, 0)
_LOCAL_HEADER: Final = 30  # bytes of a zip entry before its name
_ZIP64: Final = 20  # bytes that zipfile itself adds to `extra` with force_zip64
_PADDING_ID: Final = 0xD935  # the tag zipalign uses for such padding


class NotAnIndex(ValueError):
    """The bytes are not the packed arrays of an index."""


def pack(arrays: Mapping[str, Array]) -> bytes:
    """Returns an .npz as `numpy.savez` writes it. The same arrays give the same bytes, and each array begins
    at a multiple of `ALIGNMENT`, so that `unpack` needs no copy."""
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", zipfile.ZIP_STORED) as archive:
        for name, array in arrays.items():
            entry = zipfile.ZipInfo(f"{name}.npy", _EPOCH)
            begins = out.tell() + _LOCAL_HEADER + len(entry.filename.encode()) + _ZIP64 + 4
            padding = -begins % ALIGNMENT
            entry.extra = _PADDING_ID.to_bytes(2, "little") + padding.to_bytes(2, "little") + bytes(padding)
            with archive.open(entry, "w", force_zip64=True) as member:
                np.lib.format.write_array(member, np.ascontiguousarray(array), allow_pickle=False)
    return out.getvalue()


def unpack(data: bytes) -> dict[str, Array]:
    """Returns name -> read-only view into `data`.

    Raises `NotAnIndex` for bytes that `pack` did not write. It never executes any of them.
    """
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            return {entry.filename.removesuffix(".npy"): _view(data, entry) for entry in archive.infolist()}
    except (zipfile.BadZipFile, ValueError, KeyError) as error:
        raise NotAnIndex(f"these bytes are no index: {error}") from error


def _view(data: bytes, entry: zipfile.ZipInfo) -> Array:
    if entry.compress_type != zipfile.ZIP_STORED:
        raise ValueError(f"{entry.filename} is compressed")
    at = entry.header_offset
    name, extra = (int.from_bytes(data[at + place : at + place + 2], "little") for place in (26, 28))
    start = at + _LOCAL_HEADER + name + extra
    header = io.BytesIO(data[start : start + 4096])
    np.lib.format.read_magic(header)
    shape, fortran, dtype = np.lib.format.read_array_header_1_0(header)
    if dtype.hasobject or fortran:
        raise ValueError(f"{entry.filename} does not hold plain numbers in C order")
    count = int(np.prod(shape, dtype=np.int64))
    return np.frombuffer(data, dtype, count, start + header.tell()).reshape(shape)


class Strings:
    """A sequence of strings in two arrays: a million titles are two objects, not a million.

    Parameters
    ----------
    letters : (bytes,) uint8, the strings in UTF-8, one after the other. starts : (n + 1,) int64.
    """

    __slots__ = ("letters", "starts")

    def __init__(self, letters: Array, starts: Array) -> None:
        self.letters = letters
        self.starts = starts

    @classmethod
    def of(cls, strings: Iterable[str]) -> Strings:
        encoded = [each.encode("utf-8", "replace") for each in strings]
        starts = np.zeros(len(encoded) + 1, np.int64)
        np.cumsum([len(each) for each in encoded], out=starts[1:])
        return cls(np.frombuffer(b"".join(encoded), np.uint8), starts)

    def arrays(self, name: str) -> dict[str, Array]:
        return {f"{name}_letters": self.letters, f"{name}_starts": self.starts}

    @classmethod
    def among(cls, arrays: Mapping[str, Array], name: str) -> Strings:
        return cls(arrays[f"{name}_letters"], arrays[f"{name}_starts"])

    def __len__(self) -> int:
        return len(self.starts) - 1

    def __iter__(self) -> Iterator[str]:
        return map(self.at, range(len(self)))

    def at(self, place: int) -> str:
        """Returns the string at a place, which must be within 0 and n - 1."""
        return str(self._bytes(place), "utf-8")

    def _bytes(self, place: int) -> bytes:
        begin, end = self.starts[place : place + 2].tolist()
        return self.letters[begin:end].tobytes()

    def find(self, wanted: str, begin: int = 0, end: int | None = None) -> int:
        """Returns the place of `wanted` within [begin, end), which must be sorted; -1 if it is not there."""
        sought, stop = wanted.encode("utf-8", "replace"), len(self) if end is None else end
        place = self._lowest(sought, begin, stop)
        return place if place < stop and self._bytes(place) == sought else -1

    def has_prefix(self, prefix: str, begin: int, end: int) -> bool:
        """Returns whether a string within [begin, end), which must be sorted, has the prefix."""
        sought = prefix.encode("utf-8", "replace")
        place = self._lowest(sought, begin, end)
        return place < end and self._bytes(place).startswith(sought)

    def _lowest(self, sought: bytes, low: int, high: int) -> int:
        """Returns the first place within [low, high) whose string is not below `sought`, else `high`."""
        return bisect_left(range(high), sought, low, high, key=self._bytes)
