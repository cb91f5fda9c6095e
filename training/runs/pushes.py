"""Pushes: versions that a client or a command brings as a compiled graph with its rows.

A request checks manifest and digests, stages the files in the store under ``pushes/`` and creates a run. The
run's job (`training.runs.pushed_execution`) makes all further checks. The files are removed when the
run has finished. Housekeeping removes files without a run, which a crash between staging and commit leaves
behind.

A web process of the slim image does this, so this module imports neither pandas nor pyarrow.
"""

from __future__ import annotations

import datetime as dt
import hashlib
import logging
import re
import uuid
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import uuid_utils
from django.contrib.auth.models import User
from django.core.files.base import ContentFile, File
from django.core.files.storage import default_storage
from django.db import Error, transaction
from django.utils import timezone

from core.errors import Archived, Conflict, StoreUnavailable
from core.uuid7 import time_of
from training import artifacts, catalogue, providers
from training.models import Job, Origin, RegisteredModel, TrainingRun
from training.registry import declarations
from training.runs import manifests
from training.runs.manifests import FILES, Manifest
from vigia_ml.declaration import ModelDeclaration
from vigia_ml.errors import VigiaError
from vigia_ml.schema import Column, Fault, InvalidRows

log = logging.getLogger(__name__)

ROOT: Final = "pushes"
MANIFEST: Final = "manifest.json"
NAMES: Final[Mapping[str, str]] = {
    "graph": "graph.onnx",
    "train": "train.parquet",
    "holdout": "holdout.parquet",
    "answers": "answers.parquet",
}
"""File of each part, in a package's directory and in the store."""
ORPHAN_HOURS: Final = 6
"""Age from which staged files without a run are removed: no request stages for so long."""
_NAME: Final = re.compile(r"[a-z][a-z0-9_]*")


class TargetDiffers(Conflict):
    """The push has another task or target than the model's versions."""

    code = "target_differs"


class PushLost(VigiaError):
    """A staged file is missing or was changed, so the run cannot begin."""


@dataclass(frozen=True, slots=True)
class Staged:
    """A push whose files are in the store.

    push : its id. sha256 : digest of the manifest.
    """

    push: str
    manifest: Manifest
    sha256: str


def create(name: str, directory: Path, *, origin: Origin, by: User | None) -> TrainingRun:
    """Creates a queued run from a package's directory; the caller enqueues or executes it.

    Parameters
    ----------
    name : name of the registered model, which is created if it does not exist.
    directory : holds `MANIFEST` and the files of `NAMES`.

    Raises
    ------
    InvalidRows : lists every fault of the manifest and the files. OSError : a file is missing.
    TargetDiffers, UnsupportedForModel, NotDeclared : the model accepts no such version.
    StoreUnavailable : the files cannot be staged. Archived : the model was archived.
    """
    with ExitStack() as stack:
        files = {
            part: File(stack.enter_context((directory / file).open("rb"))) for part, file in NAMES.items()
        }
        staging = stack.enter_context(staged((directory / MANIFEST).read_bytes(), files))
        return request(name, staging, origin=origin, by=by)


@contextmanager
def staged(manifest: bytes, files: Mapping[str, File]) -> Iterator[Staged]:  # type: ignore[type-arg]
    """Checks a manifest and its files and stages them; removes them afterwards if no run has taken them.

    Parameters
    ----------
    files : the parts of `FILES`.

    Raises
    ------
    InvalidRows, Malformed, StoreUnavailable : see `create`.
    """
    checked = manifests.read(manifest)
    _check_files(checked, files)
    push = str(uuid_utils.uuid7())
    try:
        for part, file in files.items():
            artifacts.write_file(_path(push, NAMES[part]), file)
        artifacts.write_file(_path(push, MANIFEST), ContentFile(manifest))
        yield Staged(push, checked, hashlib.sha256(manifest).hexdigest())
    finally:
        with suppress(Error):  # the database is unavailable: housekeeping removes the files
            if not TrainingRun.objects.filter(source__push=push).exists():
                _remove(push)


def _check_files(manifest: Manifest, files: Mapping[str, File]) -> None:  # type: ignore[type-arg]
    """Raises `InvalidRows` with a fault for each file that is missing or is not the one of the manifest."""
    faults = []
    for part in FILES:
        file, declared = files.get(part), manifest.files.of(part)
        if file is None:
            faults.append(Fault(part, "missing_field", f"{part} is missing: send it as a file"))
            continue
        digest = hashlib.sha256()
        size = 0
        for chunk in file.chunks():
            digest.update(chunk)
            size += len(chunk)
        if (digest.hexdigest(), size) != (declared.sha256, declared.size):
            message = (
                f"{part} has {size:,} bytes and the sha256 {digest.hexdigest()[:12]}…; the manifest says "
                f"{declared.size:,} bytes and {declared.sha256[:12]}…: send the file that was packed"
            )
            faults.append(Fault(part, "wrong_digest", message))
    if faults:
        raise InvalidRows(faults, message="the files of the push are not those of its manifest")


def request(name: str, staging: Staged, *, origin: Origin, by: User | None) -> TrainingRun:
    """Creates the queued run of a staged push, and its model if it does not exist; see `create`."""
    manifest = staging.manifest
    with transaction.atomic():
        model = _model(name, manifest)
        return TrainingRun.objects.create(
            registered_model=model,
            origin=origin,
            source={"from": "push", "push": staging.push, "manifest_sha256": staging.sha256},
            mode=TrainingRun.Mode.REPLACE,
            requested_by=by,
            activation_reason=manifest.activation_reason.strip(),
            stage="queued",
        )


def check_name(name: str) -> None:
    """Raises the error for a name that no model of pushed versions can have.

    Raises
    ------
    UnsupportedForModel : the name is a provider's model. InvalidRows : the name is reserved or invalid.
    """
    providers.require_rows(RegisteredModel(name=name), "pushed versions")
    reason = catalogue.reserved(name)
    if not reason and not _NAME.fullmatch(name):
        reason = f"{name!r} must begin with a letter"
    if reason:
        raise InvalidRows.single("model", "bad_name", f"{reason}; choose another name for the model")


def _model(name: str, manifest: Manifest) -> RegisteredModel:
    """Returns the model of a push, locked; creates it if it does not exist."""
    check_name(name)
    declared = manifest.declared()
    if name in catalogue.names():
        of_file = catalogue.get(name)
        defaults: dict[str, Any] = {"title": of_file.title, "policy": of_file.policy}
    else:
        defaults = {
            "title": manifest.title or name,
            "policy": RegisteredModel.Policy.MANUAL,
            "declared": declared,
        }
    row, _ = RegisteredModel.objects.get_or_create(name=name, defaults=defaults)
    model = RegisteredModel.locked(row.pk)
    if model.archived_at is not None:
        raise Archived(model)
    if model.declared not in (None, declared) and not declarations.is_trainable(model) and _is_unused(model):
        # A first push that failed must not decide for ever.
        model.title, model.declared = manifest.title or name, declared
        model.save(update_fields=["title", "declared"])
    _check_target(declarations.of(model), manifest)
    return model


def _is_unused(model: RegisteredModel) -> bool:
    """Returns whether a model has no version and no run that may still make one."""
    unfinished = model.runs.filter(status__in=[Job.Status.QUEUED, Job.Status.RUNNING])
    return not model.versions.exists() and not unfinished.exists()


def _check_target(declared: ModelDeclaration, manifest: Manifest) -> None:
    """Raises `TargetDiffers` when versions of the model predict something else."""
    ours, theirs = declared.schema.target, manifest.schema.target
    levels = not ours.levels or not theirs.levels or ours.levels == theirs.levels
    same = (ours.name, ours.type, declared.task) == (theirs.name, theirs.type, manifest.task)
    if not (same and levels):
        raise TargetDiffers(
            f"the versions of {declared.name} predict {_described(ours, declared.task)}, the push predicts "
            f"{_described(theirs, manifest.task)}; push it under another name"
        )


def _described(target: Column, task: str) -> str:
    levels = f" of {len(target.levels):,} levels" if target.levels else ""
    return f"{target.name} ({target.type}{levels}, {task})"


# -- staged files --------------------------------------------------------------------------------------


def fetch(run: TrainingRun, directory: Path) -> Manifest:
    """Copies a run's staged files to a directory, verified, and returns their manifest.

    Raises
    ------
    PushLost : a file is missing or was changed.
    """
    assert run.source is not None
    push = run.source["push"]
    _copy(push, MANIFEST, directory, run.source["manifest_sha256"])
    manifest = manifests.read((directory / MANIFEST).read_bytes())
    for part, name in NAMES.items():
        _copy(push, name, directory, manifest.files.of(part).sha256)
    return manifest


def _copy(push: str, name: str, directory: Path, sha256: str) -> None:
    digest = hashlib.sha256()
    try:
        with default_storage.open(_path(push, name)) as stream, (directory / name).open("wb") as target:
            for chunk in stream.chunks(artifacts.CHUNK):
                digest.update(chunk)
                target.write(chunk)
    except FileNotFoundError:
        raise PushLost(f"{name} of the push is not in the store any more; push again") from None
    if digest.hexdigest() != sha256:
        raise PushLost(f"{name} of the push was changed in the store; push again")


def remove_files(run_id: int) -> None:
    """Removes the staged files of a finished run; a failure is logged and left to housekeeping."""
    rows = TrainingRun.objects.filter(pk=run_id, status__in=Job.FINISHED, source__push__isnull=False)
    for push in rows.values_list("source__push", flat=True):
        _remove(str(push))


def remove_orphans() -> int:
    """Removes staged files of finished runs, and those that no run took for `ORPHAN_HOURS`.

    Returns
    -------
    The number of pushes whose files were removed.
    """
    try:
        pushes, _ = default_storage.listdir(ROOT)
    except FileNotFoundError:
        return 0
    oldest = timezone.now() - dt.timedelta(hours=ORPHAN_HOURS)
    removed = 0
    for push in pushes:
        try:
            begun = time_of(uuid.UUID(push))
        except ValueError:
            log.warning("%s/%s in the store is no push; it stays", ROOT, push)
            continue
        states = set(TrainingRun.objects.filter(source__push=push).values_list("status", flat=True))
        if states <= Job.FINISHED if states else begun < oldest:
            removed += _remove(push)
    return removed


def _remove(push: str) -> bool:
    """Removes the files of a push; returns False, and logs the reason, if the store refuses."""
    directory = f"{ROOT}/{push}"
    try:
        for name in default_storage.listdir(directory)[1]:
            default_storage.delete(f"{directory}/{name}")
        default_storage.delete(directory)
    except FileNotFoundError:
        return False
    except Exception as error:  # each storage has its own errors
        log.error("cannot remove %s from the store: %s", directory, StoreUnavailable(error))
        return False
    return True


def _path(push: str, name: str) -> str:
    return f"{ROOT}/{push}/{name}"
