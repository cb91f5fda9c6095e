"""Arrays of dates and datetimes, and their codes in the matrix. No pandas here.

The codes equal those of `vigia_ml.schema.moments.code`, bit by bit.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from vigia_ml.schema.moments import DAY, HIGHEST, LOWEST, MomentType, code

Floats = npt.NDArray[np.float64]
Moments = npt.NDArray[np.datetime64]

MICRO: Final = 1_000_000
UNIT: Final = np.dtype("datetime64[us]")
_LAST: Final = np.datetime64(HIGHEST["datetime"][:-1], "us")


def of_texts(texts: Sequence[str | None]) -> Moments:
    """Returns canonical texts (or None) as microseconds (n,), UTC; None is NaT."""
    # numpy reads no Z.
    plain = ["NaT" if text is None else text.removesuffix("Z") for text in texts]
    return np.array(plain, dtype=UNIT)


def seconds(values: npt.NDArray[Any]) -> Floats:
    """Returns time stamps (n,) of any unit as seconds since 1970 (n,); NaT is NaN."""
    micro = np.asarray(values, dtype=UNIT)
    missing = np.isnat(micro)
    whole, rest = np.divmod(np.where(missing, 0, micro.view(np.int64)), MICRO)
    number = whole.astype(np.float64)
    number = np.minimum(number + rest.astype(np.float64) / 1e6, np.nextafter(number + 1.0, -np.inf))
    return np.where(missing, np.nan, number)


def codes(values: npt.NDArray[Any], kind: MomentType) -> Floats:
    """Returns the codes (n,) of time stamps; NaT is NaN."""
    number = seconds(values)
    return np.floor(number / DAY) if kind == "date" else number


def of_codes(numbers: Floats, kind: MomentType) -> Moments:
    """Returns the nearest accepted moments (n,) of codes; NaN is NaT."""
    missing = np.isnan(numbers)
    held = np.clip(np.where(missing, 0.0, numbers), code(LOWEST[kind], kind), code(HIGHEST[kind], kind))
    whole = np.floor(held)
    if kind == "date":
        micro = whole.astype(np.int64) * DAY * MICRO
    else:
        rest = np.minimum(np.round((held - whole) * 1e6), MICRO - 1)
        micro = whole.astype(np.int64) * MICRO + rest.astype(np.int64)
    result = np.minimum(micro.view(UNIT), _LAST)
    return np.where(missing, np.datetime64("NaT", "us"), result)
