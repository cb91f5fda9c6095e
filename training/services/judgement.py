"""What is said of a version when it is trained: its evaluation, and the gate's verdict."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from training import artifacts, evaluation, fitting, gating, judging
from training.declaration import ModelDeclaration
from training.engines import Engine, MatrixEngine
from training.engines.asking import AskedByFrame
from training.engines.choice import Choice
from training.engines.latency import Latency, measure, rows_of
from training.engines.onnx import OnnxEngine
from training.engines.sklearn import SklearnEngine
from training.errors import ArtifactError
from training.judging import Answers, HoldOut, Judged
from training.models import ModelVersion
from training.profile import Profile, profile


@dataclass(frozen=True)
class Judgement:
    """evaluation : as it is stored with the version. answers : of the pipeline to its hold-out.
    reference : see `training.profile`."""

    evaluation: dict[str, Any]
    latency: Latency
    answers: Answers
    reference: Profile


def judge(declared: ModelDeclaration, fitted: fitting.Fitted, choice: Choice) -> Judgement:
    """A fitted pipeline on its hold-out, and the speed of the engine that will serve it."""
    engine = _serving(fitted, choice)
    quick = AskedByFrame(engine, fitted.schema) if isinstance(engine, MatrixEngine) else None
    judged = Judged(fitted.pipeline, fitted.schema.names, declared.threshold, quick)
    held = hold_out(declared, fitted.held_features, fitted.held_target)
    answers = judged.answers(declared.task, held.features, held.truth)
    latency = measure(engine, rows_of(fitted.schema, fitted.held_features))
    found = judging.evaluated(held, judged, answers) | {
        "latency": latency.to_json(),
        "prior": fitted.prior,
        "split": split_of(declared),
        "duplicates_dropped": fitted.duplicates_dropped,
    }
    reference = profile(fitted.schema, fitted.train_features, answers)
    return Judgement(found, latency, answers, reference)


def hold_out(declared: ModelDeclaration, features: Any, target: Any) -> HoldOut:
    columns = tuple(declared.gate.slices)
    return HoldOut(
        declared.task, features, target.to_numpy(), declared.primary_metric, columns, declared.seed
    )


def split_of(declared: ModelDeclaration) -> dict[str, Any]:
    """What decided which rows were held out; kept, because a declaration may change."""
    return {"seed": declared.seed, "share": declared.holdout, "distinct": declared.drop_duplicates}


def _serving(fitted: fitting.Fitted, choice: Choice) -> Engine:
    if choice.engine == OnnxEngine.name and choice.compiled is not None:
        return OnnxEngine.from_bytes(choice.compiled, fitted.schema)
    return SklearnEngine(fitted.pipeline, fitted.schema)


def verdict(
    declared: ModelDeclaration,
    fitted: fitting.Fitted,
    choice: Choice,
    judgement: Judgement,
    active: ModelVersion | None,
) -> dict[str, Any]:
    """The gate's verdict, the active version being judged on the candidate's own hold-out."""
    gate = declared.gate
    checks = [gating.engine_check(gate, choice), gating.latency_check(gate, judgement.latency)]
    theirs: dict[str, float] | None = None
    if active is not None:
        try:
            answers = _answers_of(active, declared, fitted)
            theirs = evaluation.metrics_of(answers)
        except (ArtifactError, KeyError, ValueError) as error:
            said = f"cannot be compared with the active {active}: {error}"
            checks.append(evaluation.Check("comparable", 0.0, 1.0, False, said))
        else:
            features, primary = fitted.held_features, declared.primary_metric
            checks += gating.slice_checks(gate, primary, features, judgement.answers, answers)
    found = evaluation.check_gate(
        gate, declared.primary_metric, fitted.metrics, fitted.baseline, theirs, checks
    )
    if active is not None:
        found |= {"compared_with": active.number, "active_metrics": theirs}
    return found


def _answers_of(active: ModelVersion, declared: ModelDeclaration, fitted: fitting.Fitted) -> Answers:
    engine = artifacts.load_pipeline(active)
    threshold = active.threshold if active.threshold is not None else declared.threshold
    judged = Judged(engine.pipeline, engine.schema.names, threshold)
    return judged.answers(declared.task, fitted.held_features, fitted.held_target)
