"""Recognises the kind of a model's file by its first bytes, and says what to do with the others."""

from __future__ import annotations

import bz2
import gzip
import lzma
import pickle
import re
import shutil
import zipfile
import zlib
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import IO, Any, Final, Literal

from vigia_ml.importing.errors import NotImportable

Kind = Literal["pickle", "skops"]
HEAD: Final = 4096
CHUNK: Final = 2**20
AGAIN: Final = "write the fitted pipeline with pickle.dump, joblib.dump or skops.io.dump"

# A pickle of protocol 0 or 1 has no magic number; it begins with one of these operators.
_OLD_PICKLE: Final = re.compile(
    rb"c[A-Za-z_][\w.]*\n[A-Za-z_][\w.]*\n|\(d|\(l|\]|\}|\(c[A-Za-z_]|\(i[A-Za-z_]"
)
_ONNX: Final = re.compile(rb"\x08[\x01-\x1f](?:\x12|\x3a|\x42)", re.DOTALL)

_OTHERS: Final[tuple[tuple[re.Pattern[bytes], str], ...]] = (
    (
        re.compile(rb"\x89HDF\r\n\x1a\n"),
        (
            "is an HDF5 file, as Keras writes them. Vigía serves scikit-learn pipelines and gradient "
            "boosting; it does not serve neural networks of Keras"
        ),
    ),
    (
        re.compile(rb"version https://git-lfs"),
        "is a pointer of Git LFS, not the file itself: run `git lfs pull` and import the file that it brings",
    ),
    (
        re.compile(rb"\s*<(?:!doctype|html|head|body)", re.IGNORECASE),
        "is a web page: download the file itself (on GitHub: the button “Download raw file”)",
    ),
    (re.compile(rb"\s*<\?xml"), f"is XML, perhaps PMML, which Vigía does not read: {AGAIN}"),
    (
        _ONNX,
        (
            "is an ONNX graph, compiled already. Vigía compiles a pipeline itself and compares both, so "
            "import the pipeline from which the graph was compiled"
        ),
    ),
    (
        re.compile(rb"tree\r?\n"),
        (
            "is a text model of LightGBM: load it into the estimator (LGBMClassifier, LGBMRegressor) that "
            "was fitted, and pickle the estimator or push it"
        ),
    ),
    (
        re.compile(rb"CBM1"),
        (
            "is a binary model of CatBoost: load it into CatBoostClassifier or CatBoostRegressor, and "
            "pickle the estimator or push it"
        ),
    ),
    (
        re.compile(rb"\{L\x00|\s*\{\s*\"(?:learner|version)\""),
        (
            "is a model file of XGBoost: load it into XGBClassifier or XGBRegressor (load_model), and "
            "pickle the estimator or push it"
        ),
    ),
    (re.compile(rb"\x93NUMPY"), f"is an array of NumPy, not a fitted pipeline: {AGAIN}"),
    (re.compile(rb"PAR1"), "is a Parquet file, not a fitted pipeline: rows go to --data as CSV"),
    (
        re.compile(rb"\x04\x22\x4d\x18"),
        "is compressed with lz4: write it again with joblib.dump(…, compress=3)",
    ),
    (re.compile(rb"binf"), "is a binary file of XGBoost 1 or older: load it there and pickle the estimator"),
)


def kind_of(path: Path) -> Kind:
    """Returns how the file is opened.

    Raises
    ------
    NotImportable : names the file's kind and what to do instead.
    """
    with path.open("rb") as stream:
        head = stream.read(HEAD)
    if not head:
        raise NotImportable("the file is empty: copy or download it again")
    if head.startswith(b"PK\x03\x04"):
        return _zipped(path)
    if head[:1] == b"\x80" or _decompressor(head) is not None:
        return "pickle"
    for pattern, words in _OTHERS:
        if pattern.match(head):
            raise NotImportable(f"the file {words}")
    if _OLD_PICKLE.match(head):
        return "pickle"
    raise NotImportable(
        f"the file is not a pickle: it begins with {head[:12]!r}. Is it the right file? Else {AGAIN}"
    )


def _zipped(path: Path) -> Kind:
    try:
        with zipfile.ZipFile(path) as archive:
            names = archive.namelist()[:100_000]
    except (zipfile.BadZipFile, OSError) as error:
        raise NotImportable(f"the file is a damaged zip archive ({error}): download it again") from error
    if "schema.json" in names:
        return "skops"
    if any(name.endswith("data.pkl") for name in names):
        words = "is a model of PyTorch. Vigía serves scikit-learn pipelines and gradient boosting"
    elif any(name.endswith((".weights.h5", "saved_model.pb", "keras_metadata.pb")) for name in names):
        words = "is a model of Keras or TensorFlow. Vigía serves scikit-learn pipelines and gradient boosting"
    elif any(name.endswith(".npy") for name in names):
        words = f"holds arrays of NumPy, not a fitted pipeline: {AGAIN}"
    else:
        words = "is a zip archive: unpack it and import the pickle in it"
    raise NotImportable(f"the file {words}")


def _decompressor(head: bytes) -> Callable[[Path], IO[bytes]] | Literal["zlib"] | None:
    if head.startswith(b"\x1f\x8b"):
        return lambda path: gzip.open(path, "rb")  # type: ignore[return-value]
    if head.startswith(b"BZh"):
        return lambda path: bz2.open(path, "rb")
    if head.startswith((b"\xfd7zXZ", b"\x5d\x00\x00")):
        return lambda path: lzma.open(path, "rb")
    # joblib's default compression: zlib's header is a multiple of 31.
    if len(head) > 1 and head[0] == 0x78 and (head[0] * 256 + head[1]) % 31 == 0:
        return "zlib"
    return None


def unpacked(path: Path, target: Path) -> Path:
    """Returns a file with the pickle itself: `path`, or `target` with the contents that joblib compressed.

    Raises
    ------
    NotImportable : the compressed data is damaged or cut.
    """
    with path.open("rb") as stream:
        how = _decompressor(stream.read(HEAD))
    if how is None:
        return path
    try:
        with target.open("wb") as plain:
            if how == "zlib":
                for chunk in _inflated(path):
                    plain.write(chunk)
            else:
                with closing(how(path)) as packed:
                    shutil.copyfileobj(packed, plain, CHUNK)
    except (EOFError, zlib.error, lzma.LZMAError, gzip.BadGzipFile, ValueError) as error:
        raise NotImportable(f"the file is compressed, and damaged or cut ({error}): copy it again") from error
    return target


def _inflated(path: Path) -> Iterator[bytes]:
    machine = zlib.decompressobj()
    with path.open("rb") as stream:
        while chunk := machine.unconsumed_tail or stream.read(CHUNK):
            yield machine.decompress(chunk, CHUNK)
    if not machine.eof:
        raise EOFError("the compressed data ends early")


def check_protocol(head: Any) -> None:
    """Raises `NotImportable` for a pickle of a protocol that this Python does not know."""
    if len(head) > 1 and head[0] == 0x80 and head[1] > pickle.HIGHEST_PROTOCOL:
        raise NotImportable(
            f"the pickle has protocol {head[1]}, and this Python reads protocols up to "
            f"{pickle.HIGHEST_PROTOCOL}: write it again with pickle.dump(…, "
            f"protocol={pickle.HIGHEST_PROTOCOL})"
        )
