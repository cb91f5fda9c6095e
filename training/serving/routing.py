"""Routing: a process's snapshot of client keys and of the versions that answer, stamped with its generation.

A snapshot looks entries up on first use and keeps them until the generation grows, so its size grows with
use, not with the number of keys or versions. A snapshot may be stale, so no decision rests on it alone: an
answer is final when the log has committed it behind the fence, which rejects a stale generation, and no
request is rejected because of a snapshot.
"""

from __future__ import annotations

import copy
import threading
import time
from dataclasses import dataclass
from functools import lru_cache, partial
from typing import Final

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
UNAVAILABLE_SECONDS: Final = 30.0
HOLDERS_KEPT: Final = 2_000  # users with their keys, per process; some 3 KiB each
LONGEST_KEY: Final = 200


@dataclass(frozen=True, slots=True)
class Client:
    """The user of a client key and the models for which the key may predict.

    may_predict : primary keys of the registered models. expires : Unix seconds; None: never.
    """

    user_id: int
    may_predict: frozenset[int]
    expires: float | None


@dataclass(frozen=True, slots=True)
class Shadow:
    """A version that predicts the same rows in a shadow rollout."""

    rollout_id: int
    version_id: int


@dataclass(frozen=True, slots=True)
class RoutedVersion:
    """The version to which a request is routed.

    shadow : the shadow of this version. canary : id of the rollout by which this version answers.
    instead_of : id of the rollout whose canary should answer and cannot be loaded at present.
    every_class : whether answers and log hold the probability of every class.
    """

    model_id: int
    version_id: int
    shadow: Shadow | None = None
    canary: int | None = None
    instead_of: int | None = None
    every_class: bool = True


@dataclass(frozen=True, slots=True)
class Arms:
    """The versions that answer for a model: the active version (or a version requested by number), or a
    canary.

    threshold : see `training.serving.canary_assignment`. fallback : answers while the canary cannot be
    loaded.
    """

    active: RoutedVersion
    canary: RoutedVersion | None = None
    fallback: RoutedVersion | None = None
    threshold: int = 0


@lru_cache(4_096)
def digest_of(key: str) -> str:
    """Digest of a key, as the database has it; hashing one takes several microseconds."""
    return str(hash_token(key))


class Snapshot:
    """Keys and routes of one generation. `peek_*` make no query; `find_*` query the database on a miss."""

    def __init__(self, generation: int) -> None:
        self.generation = generation
        self._clients: dict[str, Client] = {}
        self._versions: dict[tuple[str, int | None], Arms] = {}
        self._unavailable_until: dict[int, float] = {}
        self._holders: dict[str, tuple[User, AuthToken]] = {}
        self._models: dict[str, RegisteredModel] = {}

    def peek_client(self, key: str) -> Client | None:
        """Returns the client of a key that was looked up before and has not expired, else None."""
        client = self._clients.get(digest_of(key))
        if client is None or (client.expires is not None and client.expires <= time.time()):
            return None
        return client

    def find_client(self, key: str) -> Client | None:
        """Returns the client of a valid key, or None."""
        client = self.peek_client(key)
        if client is None:
            token = _token_of(digest_of(key))
            if token is not None:
                client = self._keep(token)
        return client

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

    def peek_version(self, model: str, number: int | None, client_id: int | None) -> RoutedVersion | None:
        """Returns the version that answers this client (or version `number`) if it was looked up before."""
        arms = self._versions.get((model, number))
        return None if arms is None else self._arm(arms, client_id)

    def find_version(self, model: str, number: int | None, client_id: int | None) -> RoutedVersion | None:
        """Returns the active version of a model, its canary for the canary's clients, or version `number`.

        Returns None when there is no such version.
        """
        arms = self._versions.get((model, number))
        if arms is None:
            arms = _arms_of(model, number)
            if arms is None:
                return None
            if len(self._versions) >= KEPT_VERSIONS:
                self._versions.clear()
            self._versions[model, number] = arms
        return self._arm(arms, client_id)

    def mark_unavailable(self, version_id: int) -> None:
        """Replaces a canary that could not be loaded by its fallback in this process for
        `UNAVAILABLE_SECONDS`."""
        self._unavailable_until[version_id] = time.monotonic() + UNAVAILABLE_SECONDS

    def _arm(self, arms: Arms, client_id: int | None) -> RoutedVersion:
        canary = arms.canary
        if canary is None or not canary_assignment.is_in(canary.version_id, client_id, arms.threshold):
            return arms.active
        unavailable_until = self._unavailable_until
        if unavailable_until and unavailable_until.get(canary.version_id, 0.0) > time.monotonic():
            assert arms.fallback is not None
            return arms.fallback
        return canary


_current: Snapshot | None = None
_refreshing = threading.Lock()


def peek() -> Snapshot | None:
    """Returns the present snapshot, however old; None before the first one."""
    return _current


def current() -> Snapshot:
    """Returns the present snapshot; reads the generation from the database only when there is none."""
    return _current or refresh(-1)


def at(generation: int) -> Snapshot:
    """Returns the snapshot of a generation that was just read, or of a later one if it has grown again."""
    snapshot = current()
    return snapshot if snapshot.generation == generation else refresh(snapshot.generation)


def refresh(beyond: int) -> Snapshot:
    """Returns a snapshot of the database's generation; reads the generation if the present one is `beyond`.

    If several threads find their snapshot stale at the same time, one of them reads the generation.
    """
    global _current  # noqa: PLW0603 - one per process, by its nature
    with _refreshing:
        if _current is None or _current.generation == beyond:
            latest = generation()
            if _current is None or _current.generation != latest:
                _current = Snapshot(latest)
        return _current


def forget() -> None:
    """Drops the present snapshot, in a forked process and in tests."""
    global _current  # noqa: PLW0603
    _current = None


def generation() -> int:
    """Reads the generation from the database."""
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
    rows = ModelVersion.objects.filter(
        registered_model__name=model, registered_model__archived_at=None, archived_at=None
    )
    if number is None:
        rows = rows.filter(status=ModelVersion.Status.ACTIVE)
    else:
        rows = rows.filter(number=number, pruned__isnull=True)
    row = rows.values_list("registered_model_id", "pk", "registered_model__answers_probabilities").first()
    if row is None:
        return None
    model_id, version_id, every_class = row
    routed = partial(RoutedVersion, model_id, every_class=every_class)
    if number is not None:  # a version requested by its number is neither a canary nor shadowed
        return Arms(routed(version_id))
    running = Rollout.objects.filter(registered_model_id=model_id, stopped_at=None)
    by_kind = {
        kind: (pk, tried, percent)
        for kind, pk, tried, percent in running.values_list("kind", "pk", "version_id", "percent")
    }
    shadow = None
    if Rollout.Kind.SHADOW in by_kind:
        shadow = Shadow(*by_kind[Rollout.Kind.SHADOW][:2])
    active = routed(version_id, shadow=shadow)
    if Rollout.Kind.CANARY not in by_kind:
        return Arms(active)
    rollout_id, tried, percent = by_kind[Rollout.Kind.CANARY]
    canary, fallback = routed(tried, canary=rollout_id), routed(version_id, instead_of=rollout_id)
    return Arms(active, canary, fallback, canary_assignment.threshold(percent or 0.0))
