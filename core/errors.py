"""What can go wrong, typed. No status codes here: one table in `web.errors` maps them.

Those that the library raises itself are in `vigia_ml.errors`.
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
    """Its type, charset or encoding is not one of those this route reads."""

    code = "unsupported_media_type"


class TooLarge(VigiaError):
    code = "too_large"


class Forbidden(VigiaError):
    code = "forbidden"


class Conflict(VigiaError):
    code = "conflict"


class GateNotPassed(Conflict):
    code = "gate_not_passed"


class NoSearchSpace(VigiaError):
    code = "no_search_space"

    def __init__(self, model: str) -> None:
        super().__init__(f"training/catalogue/{model}.py declares no search, so there is nothing to search")


class NotDeclared(Conflict):
    """No file of the catalogue that this process has read says how a model is trained."""

    code = "not_declared"


class AlreadyTrained(Conflict):
    """Every row of the request is in the active version's dataset."""

    code = "already_trained"


class SecondPerson(Forbidden):
    """Whoever asked for the training wants to activate what came of it."""

    code = "second_person"


class ArtifactPruned(Conflict):
    """The version's artifact was removed from the store, on record."""

    code = "artifact_pruned"

    def __init__(self, version: object) -> None:
        super().__init__(f"the artifact of {version} was pruned: its row stays, but it answers no more")


class ArtifactError(VigiaError):
    """A version's bytes are missing, are not what was stored, or were made by other libraries."""

    code = "artifact_unusable"


class StoreUnavailable(VigiaError):
    """The store of artifacts and datasets, or the directory for temporary files, cannot be written.

    The message is for clients, so it names no path; the cause does.
    """

    code = "store_unavailable"

    def __init__(self, cause: BaseException | None = None) -> None:
        number = getattr(cause, "errno", None)
        why = f" ({os.strerror(number).lower()})" if isinstance(number, int) else ""
        super().__init__(
            f"the store of artifacts and datasets cannot be written{why}, so nothing was changed: "
            "try again later, and tell the operator"
        )


def is_of_the_disk(error: BaseException) -> bool:
    """Whether an error of the operating system says that files cannot be written here."""
    if not isinstance(error, OSError):
        return False
    full_or_closed = {errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EACCES, errno.EPERM, errno.EIO}
    return error.errno in full_or_closed or "temporary directory" in str(error)
