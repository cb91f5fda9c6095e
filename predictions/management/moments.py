"""Times as options of commands."""

from __future__ import annotations

import argparse
import datetime as dt

from predictions.outcomes.parsing import moment
from vigia_ml.schema import Fault


def moment_option(text: str) -> dt.datetime:
    """Returns an ISO 8601 time, in UTC if it names no zone."""
    time = moment(text, "time")
    if isinstance(time, Fault):
        raise argparse.ArgumentTypeError(time.message)
    return time
