"""Typed domain errors. They name no HTTP status: one table in `web.errors` maps them.

Errors that the library raises are in `vigia_ml.errors`.
"""

from __future__ import annotations

import errno
import os

from vigia_ml.errors import VigiaError


class UnknownModel(VigiaError):
    code = "unknown_model"

    def __init__(self, name: str) -> None:
        super().__init__(f"no registered model is called {name[:60]!r}")


class UnknownVersion(VigiaError):
    code = "unknown_version"

    def __init__(self, model: str, number: int | str) -> None:
        super().__init__(f"{model} has no version {str(number)[:20]}")


class NotFound(VigiaError):
    code = "not_found"


class NoActiveVersion(VigiaError):
    code = "no_active_version"

    def __init__(self, model: str) -> None:
        super().__init__(f"no version of {model} is active: train one, or activate one in the admin")


class UnsupportedBody(VigiaError):
    """The route does not read the body's type, charset or encoding."""

    code = "unsupported_media_type"


class TooLarge(VigiaError):
    code = "too_large"


class Forbidden(VigiaError):
    code = "forbidden"


class Conflict(VigiaError):
    code = "conflict"


class GateNotPassed(Conflict):
    code = "gate_not_passed"


class NotCompiled(Conflict):
    """Only scikit-learn can serve the version, and the installation serves compiled versions only."""

    code = "not_compiled"


class NeedsFullImage(Conflict):
    """This process lacks the packages that a request needs: it runs from the slim image."""

    code = "needs_full_image"

    def __init__(self, what: str, instead: str) -> None:
        super().__init__(f"this web image serves compiled versions only and {what}: {instead}")


class NoSearchSpace(VigiaError):
    code = "no_search_space"

    def __init__(self, model: str) -> None:
        super().__init__(f"training/catalogue/{model}.py declares no search, so there is nothing to search")


class NotDeclared(Conflict):
    """No catalogue file that this process has loaded declares the model."""

    code = "not_declared"


class NotTrainable(Conflict):
    """The model's versions were pushed or imported, so this service has no pipeline that it could fit."""

    code = "not_trainable"

    def __init__(self, model: str) -> None:
        super().__init__(
            f"{model} cannot be trained here: its versions came as compiled graphs, which cannot be fitted "
            "again; fit the pipeline where it was made and push it, or declare the model in "
            f"training/catalogue/{model}.py"
        )


class AlreadyTrained(Conflict):
    """Every row of the request is in the active version's dataset."""

    code = "already_trained"


class SecondPerson(Forbidden):
    """The requester of a training run tries to activate its version."""

    code = "second_person"


class ArtifactPruned(Conflict):
    """The version's artifact was removed from the store, on record."""

    code = "artifact_pruned"

    def __init__(self, version: object) -> None:
        super().__init__(f"the artifact of {version} was pruned: the version cannot answer any more")


class Archived(VigiaError):
    """The model, the version or the dataset was archived: its rows stay, and it serves no request."""

    code = "archived"

    def __init__(self, what: object) -> None:
        super().__init__(f"{what} was archived: it serves no request; restore it, or use another")


class Busy(VigiaError):
    """Other requests occupy a resource for longer than a client waits."""

    code = "busy"


class QuotaExceeded(VigiaError):
    """A client key has stored as much as it may in a day.

    retry_after : seconds until the request fits.
    """

    code = "quota_exceeded"

    def __init__(self, message: str, retry_after: int) -> None:
        super().__init__(message)
        self.retry_after = retry_after


class ArtifactError(VigiaError):
    """A version's bytes are missing, differ from the stored ones, or were built by other libraries."""

    code = "artifact_unusable"


class StoreUnavailable(VigiaError):
    """The store of artifacts and datasets, or the directory for temporary files, cannot be written.

    Clients read the message, so it names no path; the cause does.
    """

    code = "store_unavailable"

    def __init__(self, cause: BaseException | None = None) -> None:
        number = getattr(cause, "errno", None)
        why = f" ({os.strerror(number).lower()})" if isinstance(number, int) else ""
        super().__init__(
            f"the store of artifacts and datasets cannot be written{why}; nothing was changed: "
            "try again later, and tell the operator"
        )


def is_of_the_disk(error: BaseException) -> bool:
    """Returns whether an error of the operating system means that files cannot be written."""
    if not isinstance(error, OSError):
        return False
    full_or_closed = {errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EACCES, errno.EPERM, errno.EIO}
    return error.errno in full_or_closed or "temporary directory" in str(error)
