"""Commands for all models skip an index."""

from __future__ import annotations

import io

from django.core.management import call_command

from training.models import ModelVersion


def test_an_index_needs_no_reference_profile(movies: ModelVersion) -> None:
    out = io.StringIO()
    call_command("profile_versions", stdout=out)
    assert out.getvalue() == "0 reference profiles created\n"
