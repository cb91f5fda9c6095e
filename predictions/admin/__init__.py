"""The prediction log, its outcomes and its replays in the admin."""

from predictions.admin import log, outcomes, replays

__all__ = ["log", "outcomes", "replays"]
