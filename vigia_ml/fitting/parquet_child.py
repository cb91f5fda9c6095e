"""Calls `vigia_ml.fitting.parquet` for another process, which pickles its calls to this one's input.

    python -m vigia_ml.fitting.parquet_child

The first message says what to do. Every message has one pickled reply on the output; None is the last one. An
`OSError` is the reply that ends the process; after other errors it ends without one. The end of the input
before that ends the process, too.
"""

from __future__ import annotations

import os
import pickle
import sys
from collections.abc import Callable
from dataclasses import astuple
from pathlib import Path
from typing import Any, BinaryIO

from vigia_ml.fitting import parquet
from vigia_ml.schema import DatasetSchema


def write(path: Path, schema: DatasetSchema, requests: BinaryIO, replies: BinaryIO) -> None:
    """Calls methods of a `DatasetWriter` and replies with the number of rows; at last with the file."""
    with parquet.DatasetWriter(path, schema) as writer:
        while (call := pickle.load(requests)) is not None:  # noqa: S301 - from our parent
            method, *arguments = call
            getattr(writer, method)(*arguments)
            _send(writer.rows, replies)
    _send(astuple(writer.written()), replies)


def predictions(path: Path, requests: BinaryIO, replies: BinaryIO) -> None:
    """Replies whether the file has logged predictions, then for lists of ids whether it has all of them."""
    known = set(parquet.predictions(path).to_pylist())
    _send(bool(known), replies)
    while (ids := pickle.load(requests)) is not None:  # noqa: S301 - from our parent
        _send(known.issuperset(ids), replies)


def _send(reply: Any, replies: BinaryIO) -> None:
    pickle.dump(reply, replies)
    replies.flush()


def main() -> None:
    requests, replies = sys.stdin.buffer, os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # what a library prints must not be read as a reply
    task, *arguments = pickle.load(requests)  # noqa: S301 - from our parent
    tasks: dict[str, Callable[..., None]] = {"write": write, "predictions": predictions}
    try:
        tasks[task](*arguments, requests, replies)
    except OSError as error:
        _send(error, replies)


if __name__ == "__main__":
    try:
        main()
    except EOFError:  # the parent has ended, or needs no more
        sys.exit(1)
