"""Versions older than reference profiles get a profile from the stored dataset."""

from __future__ import annotations

import io

import pytest
from django.core.management import CommandError, call_command
from django.db import IntegrityError, transaction

from tests.trained import train_sample
from training.management import profile_backfill
from training.models import ModelVersion, PrunedArtifact, ReferenceProfile


def test_a_backfilled_profile_equals_the_profile_of_the_training(db: None) -> None:
    version = train_sample("churn", rows=600)
    then = version.reference.bins
    version.reference.delete()
    out = io.StringIO()
    call_command("profile_versions", "churn", stdout=out)
    assert out.getvalue() == "churn 1: created\n1 reference profiles created\n"
    assert ReferenceProfile.objects.get(version=version).bins == then
    out = io.StringIO()
    call_command("profile_versions", stdout=out)
    assert out.getvalue() == "0 reference profiles created\n"


def test_a_version_without_an_artifact_is_reported_and_the_others_get_profiles(churn: ModelVersion) -> None:
    other = train_sample("churn", rows=600, activate=False)
    ReferenceProfile.objects.all().delete()
    PrunedArtifact.objects.create(version=other, freed=0)
    output, error = io.StringIO(), io.StringIO()
    with pytest.raises(CommandError, match="1 version still without a reference profile"):
        call_command("profile_versions", stdout=output, stderr=error)
    assert "churn 2: " in error.getvalue() and "pruned" in error.getvalue()
    assert ReferenceProfile.objects.get().version == churn


def test_only_active_versions_get_their_profiles(churn: ModelVersion) -> None:
    older = train_sample("churn", rows=600, activate=False)
    ReferenceProfile.objects.all().delete()
    assert profile_backfill.make_for_active() == [(churn, "")]
    assert ReferenceProfile.objects.get().version == churn
    assert profile_backfill.make_for_active() == []
    ReferenceProfile.objects.all().delete()
    PrunedArtifact.objects.create(version=churn, freed=0)
    [(version, wrong)] = profile_backfill.make_for_active()
    assert (version, "pruned" in wrong) == (churn, True)
    assert older.status == "candidate"


def test_a_profile_is_frozen(churn: ModelVersion) -> None:
    with pytest.raises(IntegrityError, match="written once"), transaction.atomic():
        ReferenceProfile.objects.filter(version=churn).update(bins={})
    assert churn.reference.profile.columns


def test_an_unknown_model_is_refused(db: None) -> None:
    with pytest.raises(CommandError, match="no registered model is called 'nobody'"):
        call_command("profile_versions", "nobody")
