"""Builds a package, as a push brings it, from a file of a fitted pipeline and a CSV.

This side never opens the file. It gives copies to the sandbox, reads rows itself, and takes back a graph,
answers and words, which the service then checks like any push.
"""

from __future__ import annotations

import hashlib
import json
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from vigia_ml import sandbox
from vigia_ml.declaration import Task
from vigia_ml.importing.description import Description
from vigia_ml.importing.errors import NotImportable
from vigia_ml.importing.package_files import ANSWERS, GRAPH, HOLDOUT, MANIFEST, TRAIN
from vigia_ml.importing.plans import Plan
from vigia_ml.sandbox import SandboxFailed
from vigia_ml.schema import DatasetSchema

CHUNK: Final = 2**20
LARGEST_FILE: Final = 2 * 2**30
LARGEST_GRAPH: Final = 256 * 2**20
LARGEST_ANSWERS: Final = 2**30


@dataclass(frozen=True)
class Source:
    """The files of a pipeline, and the limits under which they are opened.

    digests : the sha256 of each, from the user. allowed : names of classes that the user allows.
    other_version : whether files of another release of scikit-learn are opened. seconds, memory : limits of
    each of the two calls; memory in bytes.
    """

    files: tuple[Path, ...]
    digests: tuple[str, ...]
    allowed: tuple[str, ...] = ()
    other_version: bool = False
    seconds: float = 600.0
    memory: int = 6 * 2**30

    @property
    def names(self) -> list[str]:
        return [f"model-{place}" for place in range(len(self.files))]

    @property
    def options(self) -> dict[str, Any]:
        return {"allowed": list(self.allowed), "other_version": self.other_version}

    @contextmanager
    def staged(self) -> Iterator[Path]:
        """Gives a directory of its own to one call, with copies of the files, their digests checked.

        Raises
        ------
        NotImportable : a file is not the one of its digest, or too large.
        """
        with tempfile.TemporaryDirectory(prefix="vigia-import-") as directory:
            for path, name, digest in zip(self.files, self.names, self.digests, strict=True):
                copied = copy(path, Path(directory) / name)
                if copied != digest:
                    raise NotImportable(
                        f"{path.name} has the sha256 {copied}, not {digest}: it is another file, or it was "
                        "changed or cut on its way"
                    )
            yield Path(directory)


@dataclass(frozen=True)
class Report:
    """The result of an inspection.

    names : dotted names that the files ask for. versions : of the libraries that wrote them.
    """

    description: Description
    names: tuple[str, ...]
    versions: dict[str, str] = field(default_factory=dict)


def copy(source: Path, target: Path | None) -> str:
    """Copies a file, if there is a target, and returns its sha256. Raises `NotImportable` for a huge file."""
    digest, size = hashlib.sha256(), 0
    with source.open("rb") as stream:
        output = target.open("xb") if target is not None else None
        try:
            while chunk := stream.read(CHUNK):
                size += len(chunk)
                if size > LARGEST_FILE:
                    raise NotImportable(
                        f"{source.name} has more than {LARGEST_FILE:,} bytes, which is the limit"
                    )
                digest.update(chunk)
                if output is not None:
                    output.write(chunk)
        finally:
            if output is not None:
                output.close()
    return digest.hexdigest()


def inspect(source: Source) -> Report:
    """Opens the files in the sandbox and returns the report on them.

    Raises
    ------
    NotImportable : the files hold no usable pipeline; the message says what to do.
    """
    with source.staged() as directory:
        report = _called(source, "inspect", directory)
    names, versions = report.get("globals"), report.get("versions")
    if not isinstance(names, list) or not isinstance(versions, dict):
        raise NotImportable("the file gave a report of another form: do not trust it")
    texts = {str(key)[:40]: str(value)[:40] for key, value in versions.items()}
    return Report(Description.of(report.get("parts")), tuple(map(str, names)), texts)


def convert(
    source: Source,
    plan: Plan,
    schema: DatasetSchema,
    task: Task,
    threshold: float | None,
    seed: int,
    package: Path,
) -> dict[str, Any]:
    """Compiles the pipeline in the sandbox; adds graph and answers to the package's directory.

    Parameters
    ----------
    package : holds `TRAIN` and `HOLDOUT`, which stay as they are: the sandbox gets copies.

    Returns
    -------
    ``parity``, ``estimator``, ``libraries``, ``versions``: said by the file's process, so not to be trusted.

    Raises
    ------
    NotImportable : see `vigia_ml.importing.conversion.convert`.
    """
    wanted = plan.to_json() | {"schema": schema.to_json(), "task": task, "threshold": threshold, "seed": seed}
    with source.staged() as directory:
        for name in (TRAIN, HOLDOUT):
            shutil.copyfile(package / name, directory / name)
        report = _called(source, "convert", directory, wanted)
        for name, most in ((GRAPH, LARGEST_GRAPH), (ANSWERS, LARGEST_ANSWERS)):
            (package / name).write_bytes(_taken(directory, name, most))
    return report


def _taken(directory: Path, name: str, most: int) -> bytes:
    try:
        return sandbox.read_file(directory, name, most)
    except SandboxFailed as error:
        raise NotImportable(f"the compiled pipeline cannot be taken over: {error.message}") from error


def _called(source: Source, function: str, directory: Path, *arguments: Any) -> dict[str, Any]:
    size = sum(path.stat().st_size for path in directory.iterdir())
    try:
        report = sandbox.call(
            f"vigia_ml.importing.opening:{function}",
            source.names,
            source.options,
            *arguments,
            directory=directory,
            seconds=source.seconds,
            memory=source.memory,
            output=32 * 2**20,
            file_size=4 * size + 2 * 2**30,
        )
    except SandboxFailed as error:
        raise NotImportable(_in_words(source, error)) from error
    if not isinstance(report, dict):
        raise NotImportable("the file gave a report of another form: do not trust it")
    return report


def _in_words(source: Source, error: SandboxFailed) -> str:
    if error.reason == "refused":
        return error.message
    if error.reason == "time":
        return (
            f"the file took more than {source.seconds:g} seconds and was stopped: give it more with "
            "--timeout if the model is large; a file that only burns time is not to be trusted"
        )
    if error.reason == "memory":
        return (
            f"the file needed more than {source.memory / 2**30:.1f} GiB of memory and was stopped: give it "
            "more with --memory if the model is large"
        )
    if error.reason == "output":
        return f"the file's process wrote too much and was stopped ({error.message}): do not trust it"
    return (
        f"the process that opened the file ended ({error.message}): the file is damaged, hostile, or made by "
        "a library that differs from the one installed here"
    )


def manifest(
    package: Path,
    schema: DatasetSchema,
    task: Task,
    plan: Plan,
    report: dict[str, Any],
    **fields: Any,
) -> dict[str, Any]:
    """Writes the manifest of a package, and returns it.

    Parameters
    ----------
    report : of `convert`. fields : ``title``, ``description``, ``threshold``, ``primary_metric``,
        ``activation_reason``.
    """
    files = {}
    for part, name in (("graph", GRAPH), ("train", TRAIN), ("holdout", HOLDOUT), ("answers", ANSWERS)):
        files[part] = {"sha256": copy(package / name, None), "size": (package / name).stat().st_size}
    libraries = {str(name): str(value)[:100] for name, value in dict(report["libraries"]).items()}
    for name, value in dict(report["versions"]).items():
        libraries[f"{name} of the file"] = str(value)[:100]
    written = {
        "format": 1,
        "task": task,
        "schema": schema.to_json(),
        "classes": None if plan.classes is None else list(plan.classes),
        "estimator": str(report["estimator"])[:300],
        "libraries": libraries,
        "parity": report["parity"],
        "files": files,
        **fields,
    }
    (package / MANIFEST).write_text(
        json.dumps(written, ensure_ascii=False, allow_nan=False), encoding="utf-8"
    )
    return written
