"""An installation with COMPILED_ONLY neither activates nor tries a version that was not compiled."""

from __future__ import annotations

from typing import Any

import pytest

from config import checks
from core.errors import NotCompiled
from tests.trained import train_sample
from tests.training.conftest import Declare
from tests.training.registry.test_answers_check import regressor, trained
from training.models import ModelVersion
from training.registry import activation, rollouts

pytestmark = pytest.mark.django_db(transaction=True)


def test_a_worker_leaves_a_version_of_scikit_learn_a_candidate(declare: Declare, settings: Any) -> None:
    settings.COMPILED_ONLY = True
    run = trained(declare, regressor("return size"), "price")
    assert run.status == "succeeded", run.error
    version = run.version
    assert (version.engine, version.status, version.gate["passed"]) == ("sklearn", "candidate", True)
    assert run.stage == "finished; not activated: it is not compiled, and COMPILED_ONLY is set"
    with pytest.raises(NotCompiled, match="scikit-learn serves own 1, and this installation serves compiled"):
        activation.activate(version, by=None, reason="a test", override=True)
    with pytest.raises(NotCompiled, match=r"\(COMPILED_ONLY\): .+"):
        rollouts.start(version, kind="shadow", by=None, reason="a test")
    settings.COMPILED_ONLY = False
    activation.activate(version, by=None, reason="a test")
    version.refresh_from_db()
    assert version.status == "active"


def test_compiled_versions_are_activated_and_active_ones_of_scikit_learn_are_an_error(
    churn: ModelVersion, settings: Any
) -> None:
    settings.COMPILED_ONLY = True
    second = train_sample("churn", rows=400)
    assert (second.engine, second.status) == ("onnx", "active")
    assert not list(checks.active_versions_are_compiled(None, ["default"]))
    settings.COMPILED_ONLY = False
    train_sample("churn", rows=400, engine="sklearn", compiled_sha256="")
    assert not list(checks.active_versions_are_compiled(None, ["default"]))
    settings.COMPILED_ONLY = True
    [message] = checks.active_versions_are_compiled(None, ["default"])
    assert (message.id, message.level >= 40) == ("vigia.E021", True)
    assert message.msg == "churn 3 is active and only scikit-learn can serve it, but COMPILED_ONLY is set."
