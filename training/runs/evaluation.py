"""Evaluation of a newly trained version on its hold-out, and the gate's verdict."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final

from core.errors import ArtifactError
from training import artifacts
from training.models import ModelVersion, RegisteredModel
from training.registry import answers_check, declarations
from training.registry.answers_check import ADVICE, OF_A_GRAPH
from training.serving.engine_cache import Served, format_of
from vigia_ml import evaluation as judging
from vigia_ml import gate as gating
from vigia_ml.declaration import ModelDeclaration
from vigia_ml.engines import Engine, MatrixEngine, load
from vigia_ml.engines.frame_adapter import AskedByFrame
from vigia_ml.engines.latency import Latency, measure, rows_of
from vigia_ml.engines.selection import Choice
from vigia_ml.evaluation import Answers, HoldOut, Judged
from vigia_ml.evaluation import metrics as evaluation
from vigia_ml.evaluation.metrics import Check
from vigia_ml.fitting import fit as fitting
from vigia_ml.reference_profile import Profile, profile
from vigia_ml.schema import DatasetSchema
from vigia_ml.schema.row_decoder import CompiledSchema

GIVEN: Final = "given"
"""Method of a split that came with the rows: the hold-out is the last rows of the dataset."""


@dataclass(frozen=True)
class Judgement:
    """The evaluation of a candidate.

    evaluation : JSON stored with the version. answers_check : result of `training.registry.answers_check`.
    latency : None when the candidate does not answer. answers : the pipeline's answers on the hold-out.
    reference : see `vigia_ml.reference_profile`.
    """

    evaluation: dict[str, Any]
    answers_check: Check
    latency: Latency | None
    answers: Answers
    reference: Profile


def judge(
    model: RegisteredModel,
    declared: ModelDeclaration,
    fitted: fitting.Fitted,
    choice: Choice,
    artifact: bytes,
    *,
    given: bool = False,
) -> Judgement:
    """Evaluates a fitted pipeline on its hold-out and measures the engine that will serve it.

    Parameters
    ----------
    artifact : the bytes from which scikit-learn's engine is loaded.
    given : whether the hold-out and the graph came from outside.
    """
    engine = load(choice.engine, choice.compiled or artifact, fitted.schema)
    quick = AskedByFrame(engine, fitted.schema) if isinstance(engine, MatrixEngine) else None
    judged = Judged(fitted.pipeline, fitted.schema.names, declared.threshold, quick)
    held = hold_out(declared, fitted.held_features, fitted.held_target, fitted.held_weights)
    answers = judged.answers(declared.task, held.features, held.truth, held.weight)
    check = _check_answers(model, fitted, engine, answers, OF_A_GRAPH if given else ADVICE)
    latency = measure(engine, rows_of(fitted.schema, fitted.held_features)) if check.passed else None
    report = judging.evaluated(held, judged, answers) | {
        "latency": latency.to_json() if latency else None,
        "prior": fitted.prior,
        "split": split_of(declared, fitted.by_row_from) | ({"method": GIVEN} if given else {}),
        "duplicates_dropped": fitted.duplicates_dropped,
    }
    reference = profile(fitted.schema, fitted.train_features, answers)
    return Judgement(report, check, latency, answers, reference)


def _check_answers(
    model: RegisteredModel, fitted: fitting.Fitted, engine: Engine, answers: Answers, advice: str
) -> Check:
    """Checks the candidate's answers to the first, the middle and the last row of its hold-out."""
    last = fitted.holdout_rows - 1
    places = sorted({0, last // 2, last})
    schema = DatasetSchema.from_json(fitted.schema.to_json())  # as a web process reads it
    served = Served(
        model_id=model.pk,
        model_name=model.name,
        version_id=0,
        number=0,
        schema=schema,
        compiled=CompiledSchema(schema),
        threshold=fitted.threshold,
        engine=engine,
        size=0,
        by_class=format_of(engine.classes),
    )
    rows = rows_of(fitted.schema, fitted.held_features.iloc[places])
    return answers_check.check(served, rows, [_expected(answers, place) for place in places], advice)


def _expected(answers: Answers, place: int) -> tuple[tuple[object, ...], float]:
    """Returns (labels, probability or number) for one row of the hold-out.

    There are several labels when the last digit of a probability decides between them.
    """
    if answers.predicted is not None:
        return (), float(answers.predicted[place])
    assert answers.probability is not None
    probabilities, tolerance = answers.probability[place], answers_check.TOLERANCE
    if answers.task == "binary":
        margin = float(probabilities[1]) - answers.threshold
        labels = answers.classes if abs(margin) < tolerance else (answers.classes[int(margin >= 0)],)
        return labels, float(probabilities[1])
    largest = float(probabilities.max())
    by_class = zip(answers.classes, probabilities, strict=True)
    return tuple(label for label, value in by_class if value > largest - tolerance), largest


def hold_out(declared: ModelDeclaration, features: Any, target: Any, weights: Any = None) -> HoldOut:
    """Returns labelled rows; `weights` (n,) weigh them in the metrics, None: each row counts once."""
    columns = tuple(declared.gate.slices)
    metric, seed = declared.primary_metric, declared.seed
    return HoldOut(declared.task, features, target.to_numpy(), metric, columns, seed, weights)


def split_of(declared: ModelDeclaration, by_row_from: int | None) -> dict[str, Any]:
    """Returns the settings that chose the hold-out; stored, because a declaration may change."""
    return {
        "seed": declared.seed,
        "share": declared.holdout,
        "distinct": declared.drop_duplicates,
        "method": "by_features" if by_row_from is None else "by_row",
        "by_row_from": by_row_from,
    }


def stored_split(version: ModelVersion, declared: ModelDeclaration) -> dict[str, Any]:
    """Returns the split settings of a version's run, as `split_of` returned them.

    A version older than stored splits has its seed and the declared share. Its number of rows shows whether
    repeated rows were dropped: dropping was the default then.
    """
    stored = (version.evaluation or {}).get("split")
    if stored is None:
        dropped = version.train_rows + version.holdout_rows != version.dataset.rows
        stored = {"seed": version.seed, "share": declared.holdout, "distinct": dropped}
    return {"method": "by_features", "by_row_from": None} | stored


def verdict(
    declared: ModelDeclaration,
    fitted: fitting.Fitted,
    choice: Choice,
    judgement: Judgement,
    active: ModelVersion | None,
) -> dict[str, Any]:
    """Returns the gate's verdict; the active version is evaluated on the candidate's own hold-out."""
    gate = declared.gate
    checks = [judgement.answers_check, gating.engine_check(gate, choice)]
    if judgement.latency is not None:
        checks.append(gating.latency_check(gate, judgement.latency))
    active_metrics: dict[str, float] | None = None
    if active is not None:
        try:
            declarations.require_readable(fitted.schema, active.dataset_schema)
            active_one = judged_by(active, declared)
            answers = active_one.answers(
                declared.task, fitted.held_features, fitted.held_target, fitted.held_weights
            )
            active_metrics = evaluation.metrics_of(answers)
        except (ArtifactError, KeyError, ValueError) as error:
            message = f"the candidate cannot be compared with the active {active}: {error}"
            checks.append(Check("comparable", 0.0, 1.0, False, message))
        else:
            features, primary = fitted.held_features, declared.primary_metric
            checks.append(gating.active_check(primary, active_metrics[primary], fitted.baseline[primary]))
            checks += gating.slice_checks(gate, primary, features, judgement.answers, answers)
    result = evaluation.check_gate(
        gate, declared.primary_metric, fitted.metrics, fitted.baseline, active_metrics, checks
    )
    if active is not None:
        result |= {"compared_with": active.number, "active_metrics": active_metrics}
    return result


def judged_by(version: ModelVersion, declared: ModelDeclaration) -> Judged:
    """Returns a version's stored pipeline for an evaluation.

    Raises
    ------
    ArtifactError : see `training.artifacts.load_pipeline`.
    """
    engine = artifacts.load_pipeline(version)
    threshold = declared.threshold if version.threshold is None else version.threshold
    return Judged(engine.pipeline, engine.schema.names, threshold)
