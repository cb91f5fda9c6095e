"""The events that a user may see. The application that knows rights registers the rule."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from core.models import Event

if TYPE_CHECKING:
    from django.contrib.auth.models import User


@dataclass(frozen=True, slots=True)
class Visible:
    """The events that a user may see.

    models : names of registered models; None: all models. keys : whether also events without a model, which
        concern keys.
    """

    models: frozenset[str] | None
    keys: bool

    def holds(self, event: Event) -> bool:
        if not event.model:
            return self.keys
        return self.models is None or event.model in self.models


Rule = Callable[["User"], Visible]
_rules: Final[list[Rule]] = []


def register(rule: Rule) -> None:
    """Sets the rule; raises `ValueError` if a rule is set already."""
    if _rules:
        raise ValueError("a rule of visibility is registered already")
    _rules.append(rule)


def of(owner: User) -> Visible:
    """Returns the events that `owner` may see now; an inactive user sees none, as does every user without a
    rule."""
    if not owner.is_active or not _rules:
        return Visible(frozenset(), keys=False)
    return _rules[0](owner)
