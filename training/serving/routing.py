"""What this process knows about who may ask and which version answers, stamped with its generation.

Everything is looked up when it is first needed and kept until the generation grows, so what is kept grows
with what is used, not with the number of keys or versions there are. A snapshot may be stale: nothing said on
its word alone is final. An answer is final when the log has committed it behind the fence, which refuses a
stale generation; a refusal is never given from here.
"""

from __future__ import annotations

import copy
import threading
import time
from dataclasses import dataclass
from functools import lru_cache
from typing import Final, TypeVar

from django.contrib.auth.models import User
from django.db import connection
from knox.crypto import hash_token
from knox.models import AuthToken

from training.access import permissions
from training.models import ModelVersion, RegisteredModel, Rollout
from training.serving import canary_assignment

FENCE: Final = 22_121
"""Class of the advisory lock at which log statements and changes meet; see the migration `generation`."""
KEYS_KEPT: Final = 50_000  # per process; some 400 bytes each
KEPT_VERSIONS: Final = 50_000
DOUBT_SECONDS: Final = 30.0
HOLDERS_KEPT: Final = 2_000  # users with their keys, per process; some 3 KiB each
LONGEST_KEY: Final = 200

Found = TypeVar("Found")


@dataclass(frozen=True, slots=True)
class Client:
    """Whom a key belongs to, and what it opens.

    may_predict : primary keys of the registered models. expires : Unix seconds, or None for never.
    """

    user_id: int
    may_predict: frozenset[int]
    expires: float | None


@dataclass(frozen=True, slots=True)
class Shadow:
    """A version that is silently asked the same."""

    rollout_id: int
    version_id: int


@dataclass(frozen=True, slots=True)
class Named:
    """A version by the name it was asked under.

    shadow : what runs beside it. canary : the rollout by which this version answers.
    instead_of : the rollout by which another version should answer and, for now, cannot.
    """

    model_id: int
    version_id: int
    shadow: Shadow | None = None
    canary: int | None = None
    instead_of: int | None = None


@dataclass(frozen=True, slots=True)
class Arms:
    """What answers under one name: the active version (or the one asked for by number), or a canary.

    threshold : see `training.serving.canary_assignment`. stead : what answers while the canary cannot.
    """

    active: Named
    canary: Named | None = None
    stead: Named | None = None
    threshold: int = 0


@lru_cache(4_096)
def digest_of(key: str) -> str:
    """Digest of a key, as the database has it; hashing one takes several microseconds."""
    return str(hash_token(key))


class Snapshot:
    """One generation's knowledge. `peek_*` never ask the database, `find_*` do."""

    def __init__(self, generation: int) -> None:
        self.generation = generation
        self._clients: dict[str, Client] = {}
        self._versions: dict[tuple[str, int | None], Arms] = {}
        self._doubted: dict[int, float] = {}
        self._holders: dict[str, tuple[User, AuthToken]] = {}
        self._models: dict[str, RegisteredModel] = {}

    def peek_client(self, key: str) -> Client | None:
        """The client of a key that was looked up before and has not expired."""
        client = self._clients.get(digest_of(key))
        if client is None or (client.expires is not None and client.expires <= time.time()):
            return None
        return client

    def find_client(self, key: str) -> Client | None:
        """The client of a valid key, or None."""
        found = self.peek_client(key)
        if found is None:
            token = _token_of(digest_of(key))
            if token is not None:
                found = self._keep(token)
        return found

    def find_holder(self, key: str) -> tuple[User, AuthToken] | None:
        """The user and the row of a valid key, or None. The user is a copy, for one request."""
        token = None
        holder = self._holders.get(digest_of(key))
        if holder is not None and self.peek_client(key) is not None:
            user, token = holder
        else:
            token = _token_of(digest_of(key))
            if token is None:
                return None
            self._keep(token)
            user = token.user
        return copy.copy(user), token

    def _keep(self, token: AuthToken) -> Client:
        if len(self._clients) >= KEYS_KEPT:
            self._clients.clear()
        if len(self._holders) >= HOLDERS_KEPT:
            self._holders.clear()
        client = self._clients[token.digest] = _client_of(token)
        self._holders[token.digest] = token.user, token
        return client

    def may_predict(self, token: AuthToken, model: RegisteredModel) -> bool:
        """Whether the key is known to open the model; False says nothing."""
        client = self._clients.get(token.digest)
        return client is not None and model.pk in client.may_predict

    def peek_model(self, name: str) -> RegisteredModel | None:
        """The registered model of this name, a copy for one request, if it was looked up before."""
        model = self._models.get(name)
        return None if model is None else copy.copy(model)

    def keep_model(self, model: RegisteredModel) -> None:
        self._models[model.name] = copy.copy(model)

    def peek_version(self, model: str, number: int | None, client_id: int | None) -> Named | None:
        """What answers this client under a model's name, or version `number`, if it was looked up before."""
        arms = self._versions.get((model, number))
        return None if arms is None else self._arm(arms, client_id)

    def find_version(self, model: str, number: int | None, client_id: int | None) -> Named | None:
        """The active version of a model or, for some clients, its canary; or version `number`; None when
        there is none."""
        arms = self._versions.get((model, number))
        if arms is None:
            arms = _arms_of(model, number)
            if arms is None:
                return None
            if len(self._versions) >= KEPT_VERSIONS:
                self._versions.clear()
            self._versions[model, number] = arms
        return self._arm(arms, client_id)

    def doubt(self, version_id: int) -> None:
        """The version could not be loaded: for `DOUBT_SECONDS` it is no canary in this process."""
        self._doubted[version_id] = time.monotonic() + DOUBT_SECONDS

    def _arm(self, arms: Arms, client_id: int | None) -> Named:
        canary = arms.canary
        if canary is None or not canary_assignment.is_in(canary.version_id, client_id, arms.threshold):
            return arms.active
        if self._doubted and self._doubted.get(canary.version_id, 0.0) > time.monotonic():
            assert arms.stead is not None
            return arms.stead
        return canary


_current: Snapshot | None = None
_refreshing = threading.Lock()


def peek() -> Snapshot | None:
    """What is known now, however old; None before anything was."""
    return _current


def current() -> Snapshot:
    """What is known now; asks the database for the generation only when nothing is."""
    return _current or refresh(-1)


def at(generation: int) -> Snapshot:
    """What is known at a generation that was just read; of a later one when it has grown again."""
    known = current()
    return known if known.generation == generation else refresh(known.generation)


def refresh(beyond: int) -> Snapshot:
    """A snapshot of the database's generation, asked for anew if all that is known is of `beyond`.

    Many threads may find out at once that they are behind; one of them asks.
    """
    global _current  # noqa: PLW0603 - one per process, by its nature
    with _refreshing:
        if _current is None or _current.generation == beyond:
            found = generation()
            if _current is None or _current.generation != found:
                _current = Snapshot(found)
        return _current


def forget() -> None:
    """Drops what is known; for tests, and for a process that was forked."""
    global _current  # noqa: PLW0603
    _current = None


def generation() -> int:
    """The database's generation now."""
    with connection.cursor() as cursor:
        cursor.execute("SELECT value FROM training_generation")
        return int(cursor.fetchone()[0])


def holder_of(key: str) -> tuple[User, AuthToken] | None:
    """The user and the row of a valid key as the database has them now, or None."""
    token = _token_of(digest_of(key))
    return None if token is None else (token.user, token)


def _token_of(digest: str) -> AuthToken | None:
    """The row of a valid key. By the digest it is one look-up; knox itself reads all keys of the user."""
    token = AuthToken.objects.select_related("user").filter(digest=digest).first()
    if token is None or not token.user.is_active:
        return None
    return None if token.expiry is not None and token.expiry.timestamp() <= time.time() else token


def _client_of(token: AuthToken) -> Client:
    user = token.user
    expires = token.expiry.timestamp() if token.expiry is not None else None
    assert isinstance(user, User)
    models = permissions.allowed_models(user, "predict").values_list("pk", flat=True)
    return Client(user.pk, frozenset(models), expires)


def _arms_of(model: str, number: int | None) -> Arms | None:
    rows = ModelVersion.objects.filter(registered_model__name=model)
    if number is None:
        rows = rows.filter(status=ModelVersion.Status.ACTIVE)
    else:
        rows = rows.filter(number=number, pruned__isnull=True)
    found = rows.values_list("registered_model_id", "pk").first()
    if found is None:
        return None
    model_id, version_id = found
    if number is not None:  # asked for by its number, a version is neither a canary nor shadowed
        return Arms(Named(model_id, version_id))
    running = Rollout.objects.filter(registered_model_id=model_id, stopped_at=None)
    by_kind = {
        kind: (pk, tried, percent)
        for kind, pk, tried, percent in running.values_list("kind", "pk", "version_id", "percent")
    }
    shadow = None
    if Rollout.Kind.SHADOW in by_kind:
        shadow = Shadow(*by_kind[Rollout.Kind.SHADOW][:2])
    active = Named(model_id, version_id, shadow)
    if Rollout.Kind.CANARY not in by_kind:
        return Arms(active)
    rollout_id, tried, percent = by_kind[Rollout.Kind.CANARY]
    canary = Named(model_id, tried, canary=rollout_id)
    stead = Named(model_id, version_id, instead_of=rollout_id)
    return Arms(active, canary, stead, canary_assignment.threshold(percent or 0.0))
