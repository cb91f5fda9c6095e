"""The job of a push: it checks and tries the graph, evaluates it on the hold-out that was sent, and builds
the version.

The service believes nothing that the client says about the graph's quality: it computes answers, metrics,
baseline, gate and reference profile itself. The client's files are decoded and the graph first runs in a
sandbox, without database, keys and network (see `vigia_ml.sandbox`).
"""

from __future__ import annotations

import shutil
import tempfile
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, Final

import numpy as np
from django.conf import settings

from core import version as code
from training.jobs.leases import Lease
from training.models import ModelVersion, RegisteredModel, TrainingRun
from training.providers import BuildResult
from training.registry import declarations
from training.runs import evaluation, pushes, uploads
from training.runs.manifests import Manifest
from training.runs.pushes import NAMES
from vigia_ml import notes, sandbox
from vigia_ml.declaration import ModelDeclaration, Task
from vigia_ml.engines import graph_trial, parity
from vigia_ml.engines.frame_adapter import AskedByFrame
from vigia_ml.engines.onnx import OnnxEngine
from vigia_ml.engines.selection import REASON_LENGTH, Choice
from vigia_ml.errors import VigiaError
from vigia_ml.evaluation import metrics as evaluating
from vigia_ml.evaluation.metrics import Check
from vigia_ml.fitting import fit as fitting
from vigia_ml.fitting import parquet, pushed_rows
from vigia_ml.fitting.advice import in_words
from vigia_ml.fitting.dataset_file import Written
from vigia_ml.fitting.fit import Fitted, Split
from vigia_ml.notes import Note
from vigia_ml.schema import DatasetSchema
from vigia_ml.schema.faults import first_of
from vigia_ml.schema.matrix import fingerprint, levels_of

SECONDS: Final = 900.0
MEMORY: Final = 4 * 2**30
"""Limits of the sandbox that decodes rows."""
MOST_TEXT: Final = 2**30
"""Bytes of the decoded rows as text, which the job then holds in memory."""


class PushRefused(VigiaError):
    """The graph, the rows and the answers of a push do not belong together."""

    code = "push_refused"


@dataclass(frozen=True)
class _Rows:
    """The rows of a push: their dataset file, and the answers that were sent."""

    written: Written
    train_rows: int
    holdout_rows: int
    answers: pushed_rows.Floats


def build(lease: Lease, run: TrainingRun) -> BuildResult:
    """Returns the result of a claimed run of a push.

    Raises
    ------
    VigiaError, InvalidRows : the push is refused; the message says why.
    """
    with tempfile.TemporaryDirectory(prefix="vigia-") as path:
        directory = Path(path)
        lease.report("checking the files", 3)
        manifest = pushes.fetch(run, directory)
        graph = (directory / NAMES["graph"]).read_bytes()
        lease.report("reading the rows", 8)
        rows = _rows(directory, manifest)
        lease.report("checking and trying the graph", 35)
        trial = graph_trial.tried(
            graph,
            manifest.schema,
            manifest.task,
            manifest.classes,
            directory / NAMES["holdout"],
            most_rows=settings.PREDICT_MAX_ROWS,
        )
        lease.report("comparing the answers", 50)
        threshold = _threshold(manifest, declarations.of(run.registered_model))
        compared = _compared(manifest.task, rows.answers, trial.answers, threshold)
        frame = parquet.read_frame(rows.written.path, manifest.schema)
        parts = fitting.divided(manifest.schema, frame, rows.holdout_rows)
        learned = _learned(manifest.schema, parts)
        declared = _declared(run.registered_model, manifest, learned, rows)
        lease.report("evaluating", 60)
        fitted = _fitted(declared, manifest, graph, parts)
        reason = f"{run.origin} as a compiled graph; {compared.reason}"[:REASON_LENGTH]
        choice = Choice(OnnxEngine.name, reason, graph, compared)
        lease.report("judging", 70)
        with in_words(f"judging the graph of {declared.name}"):
            judged = evaluation.judge(run.registered_model, declared, fitted, choice, graph, given=True)
        lease.report("storing the rows", 84)
        dataset = uploads.register(
            run.registered_model,
            rows.written,
            manifest.schema.sha256,
            source=f"{run.origin}: {rows.train_rows:,} training rows, {rows.holdout_rows:,} hold-out rows",
            by=run.requested_by,
        )
    extra = _checks_of_slices(run.registered_model, declared)
    return BuildResult(
        dataset=dataset,
        artifact=graph,
        compiled=graph,
        engine=choice.engine,
        engine_reason=choice.reason,
        parity=_parity_json(manifest, compared),
        schema=learned,
        metrics=fitted.metrics,
        baseline=fitted.baseline,
        evaluation=judged.evaluation,
        parameters={"estimator": manifest.estimator} if manifest.estimator else {},
        threshold=fitted.threshold,
        classes=manifest.classes,
        train_rows=fitted.train_rows,
        holdout_rows=fitted.holdout_rows,
        seed=declared.seed,
        source_sha256="",
        code_version=code.without_source(),
        libraries=dict(manifest.libraries),
        verdict=partial(_verdict, partial(evaluation.verdict, declared, fitted, choice, judged), extra),
        reference=judged.reference,
        notes=tuple(_notes(manifest, declared, fitted)),
    )


# -- the rows ------------------------------------------------------------------------------------------


def _rows(directory: Path, manifest: Manifest) -> _Rows:
    """Decodes the files in a sandbox, validates every row, and writes the dataset's file."""
    schema = manifest.schema
    outputs = _outputs(manifest)
    with tempfile.TemporaryDirectory(prefix="vigia-rows-") as path:
        inside = Path(path)
        given = 0
        for part in ("train", "holdout", "answers"):
            shutil.copyfile(directory / NAMES[part], inside / NAMES[part])
            given += (inside / NAMES[part]).stat().st_size
        try:
            sandbox.call(
                "vigia_ml.fitting.pushed_rows:dump",
                pushed_rows.columns_of(schema),
                outputs,
                directory=inside,
                seconds=SECONDS,
                memory=MEMORY,
                file_size=given + MOST_TEXT,
            )
        except sandbox.SandboxFailed as error:
            if error.reason == "output":
                raise PushRefused(
                    f"the rows have more than {MOST_TEXT:,} bytes as text, which is the limit: send fewer "
                    "rows, or fewer and shorter texts"
                ) from error
            raise PushRefused(f"the files of rows cannot be read: {error.message}") from error
        counts: dict[str, int] = {}
        with parquet.DatasetWriter(directory / "dataset.parquet", schema) as writer:
            for part, noun in (("train", "training rows"), ("holdout", "hold-out rows")):
                before = writer.rows
                for batch in pushed_rows.rows(inside, part, schema, noun):
                    writer.write_instances(batch, schema.target.name)
                counts[part] = writer.rows - before
        if not counts["holdout"]:
            raise PushRefused("the hold-out has no rows: send rows on which the pipeline was not fitted")
        answers = pushed_rows.answers(inside, counts["holdout"], len(outputs))
    return _Rows(writer.written(), counts["train"], counts["holdout"], answers)


def _outputs(manifest: Manifest) -> list[str]:
    """Returns the columns of the file of answers."""
    return ["prediction"] if manifest.classes is None else [f"p{n}" for n in range(len(manifest.classes))]


def _compared(
    task: Task, sent: pushed_rows.Floats, answers: pushed_rows.Floats, threshold: float
) -> parity.Parity:
    """Compares the graph's answers with those that were sent.

    Raises
    ------
    PushRefused : they differ by more than the tolerance, or decide otherwise: the graph is not the pipeline.
    """
    if answers.shape != sent.shape:
        raise PushRefused(f"the graph gives {len(answers):,} answers to {len(sent):,} hold-out rows")
    for what, values in (("graph", answers), ("pipeline", sent)):
        unfit = ~np.isfinite(values).all(axis=1)
        if unfit.any():
            raise PushRefused(
                f"the {what} gives no finite answer to {int(unfit.sum()):,} of the {len(values):,} hold-out "
                f"rows, first to row {int(np.argmax(unfit))}; add a step that handles such rows, such as an "
                "imputer"
            )
    compared = parity.of_answers(sent, answers, task, threshold if task == "binary" else None)
    if not compared.passed:
        raise PushRefused(
            f"the graph does not answer as the pipeline did: {compared.reason}; send the graph, the "
            "hold-out and the answers of one pipeline, with the rows in the same order"
        )
    return compared


def _learned(schema: DatasetSchema, parts: Split) -> DatasetSchema:
    """Returns the schema with the ranges and levels of the training rows.

    Raises
    ------
    PushRefused : the levels are not those for which the graph was compiled.
    """
    learned = schema.learn(
        {column.name: fitting.seen(column, parts.train_x[column.name]) for column in schema.columns}
    )
    if fingerprint(learned) != fingerprint(schema):
        wrong = [
            column.name
            for column, sent in zip(learned.columns, schema.columns, strict=True)
            if levels_of(column) != levels_of(sent)
        ]
        raise PushRefused(
            f"the graph was compiled for other levels of {first_of(wrong, 5)} than the training rows hold: "
            "send the rows on which the pipeline was fitted"
        )
    return learned


# -- the evaluation ------------------------------------------------------------------------------------


def _declared(
    model: RegisteredModel, manifest: Manifest, learned: DatasetSchema, rows: _Rows
) -> ModelDeclaration:
    """Returns the model's declaration with the version's own schema, threshold and split."""
    declared = declarations.of(model)
    return declarations.with_schema(
        declared,
        learned,
        threshold=_threshold(manifest, declared),
        holdout=rows.holdout_rows / (rows.train_rows + rows.holdout_rows),
        drop_duplicates=False,
        by_row_from=None,
    )


def _threshold(manifest: Manifest, declared: ModelDeclaration) -> float:
    return declared.threshold if manifest.threshold is None else manifest.threshold


def _fitted(declared: ModelDeclaration, manifest: Manifest, graph: bytes, parts: Split) -> Fitted:
    """Evaluates the graph on the hold-out, as `vigia_ml.fitting.fit.fit` evaluates a fitted pipeline.

    Raises
    ------
    TooFewRows : a side is too small or holds one class. PushRefused : the graph lacks a class of the training
        rows.
    """
    task, threshold = declared.task, declared.threshold
    evaluating.check_split(task, parts.train_y, parts.held_y)
    fitting.check_weights(task, parts)
    if manifest.classes is not None:
        unknown = sorted(set(parts.train_y.tolist()) - set(manifest.classes))
        if unknown:
            raise PushRefused(
                f"the training rows hold {first_of([repr(each) for each in unknown], 5)}, which is not among "
                "the classes of the graph: send the rows on which the pipeline was fitted"
            )
    pipeline = AskedByFrame(OnnxEngine.from_bytes(graph, declared.schema), declared.schema)
    with in_words(f"the evaluation of the graph of {declared.name}"):
        metrics = evaluating.score(task, pipeline, parts.held_x, parts.held_y, threshold, parts.held_w)
    return Fitted(
        pipeline=pipeline,
        schema=declared.schema,
        metrics=metrics,
        baseline=evaluating.baseline(
            task, parts.train_y, parts.held_y, threshold, parts.train_w, parts.held_w
        ),
        threshold=threshold if task == "binary" else None,
        train_rows=len(parts.train_x),
        holdout_rows=len(parts.held_x),
        repeated=0,
        duplicates_dropped=0,
        by_row_from=None,
        train_features=parts.train_x,
        held_features=parts.held_x,
        held_target=parts.held_y,
        held_weights=parts.held_w,
        prior=evaluating.prior(task, parts.train_y, parts.train_w),
        class_rows=fitting.class_rows(task, parts),
    )


def _parity_json(manifest: Manifest, compared: parity.Parity) -> dict[str, Any]:
    """Returns the comparison of this service, with the edges that the client says it has compared."""
    sent = manifest.parity
    if sent is None:
        return compared.to_json()
    result = replace(compared, edges=sent.edges, edges_asked=sent.edges_asked, protocol=sent.protocol)
    fields = {name: getattr(sent, name) for name in sent.__struct_fields__}
    return result.to_json() | {"client": fields}


def _checks_of_slices(model: RegisteredModel, declared: ModelDeclaration) -> list[Check]:
    """Returns a failed check for each slice of the gate by a column that the version does not have."""
    missing = sorted(set(declarations.of(model).gate.slices) - set(declared.gate.slices))
    return [
        Check(
            f"slice_{name}", None, None, False, f"the gate judges slices of {name}, a column that is missing"
        )
        for name in missing
    ]


def _verdict(base: Any, extra: list[Check], active: ModelVersion | None) -> dict[str, Any]:
    verdict: dict[str, Any] = base(active)
    if not extra:
        return verdict
    return verdict | {"passed": False, "checks": [*verdict["checks"], *map(asdict, extra)]}


def _notes(manifest: Manifest, declared: ModelDeclaration, fitted: Fitted) -> list[Note]:
    found = notes.of_classes(*fitted.class_rows) if fitted.class_rows else []
    found += _repeats(fitted)
    if manifest.primary_metric not in (None, declared.primary_metric):
        message = (
            f"versions of {declared.name} are compared by {declared.primary_metric}, not by "
            f"{manifest.primary_metric}, which the push names"
        )
        found.append(Note("primary_metric", "info", message))
    sent = manifest.parity
    if sent is None or (sent.edges and not sent.edges_asked):
        message = "the client did not compare pipeline and graph at the thresholds and edges of the steps"
        found.append(Note("edges_not_compared", "info", message))
    return found


def _repeats(fitted: Fitted) -> list[Note]:
    """Returns a note on hold-out rows whose features are also those of a training row."""
    held, train = evaluating.digests(fitted.held_features), evaluating.digests(fitted.train_features)
    count = int(np.isin(held, train).sum())
    if not count:
        return []
    share = count / len(held)
    message = (
        f"{count:,} of the {len(held):,} hold-out rows ({share:.1%}) have the features of a training row: "
        "the metrics may be optimistic"
    )
    return [Note("holdout_in_training", "warning" if share > notes.LOUD else "info", message)]
