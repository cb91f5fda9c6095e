"""Writing events."""

from __future__ import annotations

from typing import Any

from django.db import transaction

from core.events import kinds
from core.models import Event


def emit(kind: str, *, subject: str, data: dict[str, Any], model: str = "") -> None:
    """Writes an event in the caller's transaction: the event exists if and only if the transaction commits.

    Parameters
    ----------
    kind : name of a registered kind. model : name of the registered model, if the event concerns one.
    data : JSON for receivers. It holds no key, no secret and no row of a client's data.

    Raises
    ------
    TransactionManagementError : no transaction is open.
    ValueError : the kind is not registered.
    """
    if not transaction.get_connection().in_atomic_block:
        raise transaction.TransactionManagementError(
            f"{kind} needs the transaction that makes it true: call emit within transaction.atomic"
        )
    if kind not in kinds.TABLE:
        raise ValueError(f"no event kind is called {kind!r}; kinds: {', '.join(sorted(kinds.TABLE))}")
    Event.objects.create(kind=kind, model=model[:200], subject=subject[:300], data=data)
