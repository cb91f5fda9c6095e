"""Serializers of the registry, and serializers derived from a schema."""

from __future__ import annotations

from collections.abc import Mapping
from operator import attrgetter
from typing import Any, ClassVar

from drf_spectacular.utils import extend_schema_field
from rest_framework import serializers
from rest_framework.reverse import reverse

from training import providers
from training.models import (
    Activation,
    Archival,
    Comparison,
    Dataset,
    ModelVersion,
    RegisteredModel,
    TrainingRun,
)
from training.registry import declarations
from training.reports import side_by_side
from vigia_ml.schema import Column, DatasetSchema, moments
from vigia_ml.schema.columns import Value
from vigia_ml.schema.dataset import example_value
from vigia_ml.schema.row_keys import KEY_FIELD, KEY_LENGTH

REPEAT = (
    "append also rows that the active version's dataset already holds; they count twice (default: false)."
)


class NoteSerializer(serializers.Serializer[Any]):
    """A remark on a run's rows or its gate."""

    code = serializers.CharField()
    level = serializers.ChoiceField(choices=["info", "warning"])
    message = serializers.CharField()


class LinkedSerializer(serializers.Serializer[Any]):
    """A resource with links to related resources.

    routes : name of a link -> name of its route. arguments : attributes of the row that the routes take.
    """

    routes: ClassVar[Mapping[str, str]] = {}
    arguments: ClassVar[tuple[str, ...]] = ("registered_model.name", "number")
    links = serializers.SerializerMethodField(help_text="URLs of related resources.")

    @extend_schema_field(serializers.DictField(child=serializers.URLField()))
    def get_links(self, row: Any) -> dict[str, str]:
        return self.linked(self.routes, *(attrgetter(name)(row) for name in self.arguments))

    def linked(self, routes: Mapping[str, str], *arguments: object) -> dict[str, str]:
        """Returns name of a link -> URL of its route with these arguments."""
        request = self.context.get("request")
        return {name: reverse(route, args=arguments, request=request) for name, route in routes.items()}


def _version_of(run: TrainingRun) -> ModelVersion | None:
    return getattr(run, "version", None)


def _of_version(column: str, **options: Any) -> serializers.DictField:
    """Returns the field of a JSON column of a run's version; null until the run has one."""
    return serializers.DictField(source=f"version.{column}", read_only=True, allow_null=True, **options)


class EvaluatedSerializer(LinkedSerializer):
    """A version, or a run that may have one."""

    def get_split(self, row: TrainingRun | ModelVersion) -> str | None:
        # Older versions store no method: their rows were split by their features.
        stored = self._evaluation(row).get("split")
        return stored.get("method", "by_features") if stored else None

    def get_duplicates_dropped(self, row: TrainingRun | ModelVersion) -> int | None:
        return self._evaluation(row).get("duplicates_dropped")

    def _evaluation(self, row: TrainingRun | ModelVersion) -> dict[str, Any]:
        version = row if isinstance(row, ModelVersion) else _version_of(row)
        return (version.evaluation if version else None) or {}


class TrainingRunSerializer(EvaluatedSerializer, serializers.ModelSerializer[TrainingRun]):
    """A training run; a finished run has a version, metrics and a gate."""

    routes: ClassVar = {"run": "training-run"}
    arguments: ClassVar = ("registered_model.name", "pk")

    model = serializers.CharField(source="registered_model.name")
    version = serializers.IntegerField(source="version.number", read_only=True, allow_null=True)
    activated = serializers.SerializerMethodField()
    dataset = serializers.SerializerMethodField()
    metrics = _of_version("metrics", child=serializers.FloatField())
    baseline = _of_version("baseline", child=serializers.FloatField())
    gate = _of_version("gate")
    split = serializers.SerializerMethodField(
        help_text="by_features: equal rows are on one side of the split. by_row: copies of a row are on both "
        "sides. given: a push or an import brought the hold-out."
    )
    duplicates_dropped = serializers.SerializerMethodField(
        help_text="Number of repeated rows that were left out of training."
    )
    notes = NoteSerializer(many=True)

    class Meta:
        model = TrainingRun
        fields: ClassVar = [
            "id", "status", "model", "origin", "mode", "source", "repeat", "search", "version", "activated",
            "stage", "percent", "log_tail", "error", "dataset", "metrics", "baseline", "gate", "split",
            "duplicates_dropped", "notes", "attempts", "heartbeat_at", "cancel_requested_at", "queued_at",
            "started_at", "finished_at", "links",
        ]  # fmt: skip

    def get_links(self, row: TrainingRun) -> dict[str, str]:
        """Returns the run's links; a finished run also links to its version."""
        links, version = super().get_links(row), _version_of(row)
        if version is None:
            return links
        return links | self.linked({"version": "version"}, row.registered_model.name, version.number)

    def to_representation(self, instance: TrainingRun) -> dict[str, Any]:
        """Empties the log for clients without the right to train, because the log may quote rows."""
        fields = super().to_representation(instance)
        if not self.context.get("with_log"):
            fields["log_tail"] = ""
        return fields

    def get_activated(self, run: TrainingRun) -> bool:
        version = _version_of(run)
        return version is not None and version.activations.exists()

    def get_dataset(self, run: TrainingRun) -> dict[str, Any] | None:
        rows = run.dataset or run.upload
        return {"sha256": rows.sha256, "rows": rows.rows} if rows else None


class TrainingRequestSerializer(serializers.Serializer[Any]):
    """A request for a training run by JSON. The schema checks `instances` row by row."""

    instances = serializers.ListField(
        child=serializers.DictField(),
        required=False,
        min_length=1,
        help_text="Rows with features and target.",
    )
    search = serializers.DictField(
        required=False,
        help_text='Hyper-parameter search: `{"n_iter": 30}` tries 30 combinations of the declared space and '
        "takes the best. Without rows it uses the active version's dataset.",
    )
    mode = serializers.ChoiceField(choices=TrainingRun.Mode.choices, default=TrainingRun.Mode.APPEND)
    repeat = serializers.BooleanField(required=False, help_text=f"Mode append: {REPEAT}")
    since = serializers.DateTimeField(required=False, help_text="Start of the rows' time range, with `from`.")
    until = serializers.DateTimeField(
        required=False, help_text="End of the rows' time range (exclusive), with `from`."
    )

    def get_fields(self) -> dict[str, Any]:
        text = (
            "Source of the rows instead of `instances`: `outcomes` takes logged inputs with their outcomes."
        )
        return super().get_fields() | {"from": serializers.CharField(required=False, help_text=text)}


class PushSerializer(serializers.Serializer[Any]):
    """A push: a compiled graph, its rows, the pipeline's answers, and a manifest with each file's digest."""

    manifest = serializers.CharField(
        help_text="JSON: format, task, schema, classes, threshold, primary_metric, title, description, "
        "estimator, libraries, parity, activation_reason, and size and sha256 of each file."
    )
    graph = serializers.FileField(help_text="ONNX model that the library compiled for the schema.")
    train = serializers.FileField(
        help_text="Parquet: the rows on which the pipeline was fitted, with target and `_key`."
    )
    holdout = serializers.FileField(
        help_text="Parquet: rows on which it was not fitted, with target and `_key`."
    )
    answers = serializers.FileField(
        help_text="Parquet: the pipeline's answer to each hold-out row: `prediction`, or `p0`, `p1`, …"
    )


class ParitySerializer(serializers.Serializer[Any]):
    """The difference between the compiled engine's answers and the pipeline's on the same rows."""

    passed = serializers.BooleanField()
    tolerance = serializers.FloatField()
    measure = serializers.CharField(
        help_text="Kind of difference: absolute (probabilities) or relative (numbers)."
    )
    worst = serializers.FloatField(
        allow_null=True, help_text="Largest difference; null when only one engine answers a row."
    )
    where = serializers.CharField(help_text="Kind of row with the largest difference.")
    rows = serializers.IntegerField()
    refused = serializers.IntegerField(help_text="Rows that neither engine answers.")
    seconds = serializers.FloatField()


class VersionSerializer(EvaluatedSerializer, serializers.ModelSerializer[ModelVersion]):
    """One version: metrics, gate, lineage, schema and engine."""

    routes: ClassVar = {"version": "version", "card": "model-card"}
    model = serializers.CharField(source="registered_model.name")
    version = serializers.IntegerField(source="number")
    classes = serializers.ListField(
        source="known_classes",
        allow_null=True,
        help_text="Classes in the order of the probabilities; null for numbers.",
    )
    parity = ParitySerializer(allow_null=True)
    lineage = serializers.DictField()
    split = serializers.SerializerMethodField(help_text="by_features, by_row or given; see training runs.")
    duplicates_dropped = serializers.SerializerMethodField()
    notes = NoteSerializer(source="run.notes", many=True)

    class Meta:
        model = ModelVersion
        fields: ClassVar = [
            "model", "version", "origin", "status", "metrics", "baseline", "gate", "evaluation", "threshold",
            "classes", "train_rows", "holdout_rows", "split", "duplicates_dropped", "notes", "engine",
            "engine_reason", "parity", "lineage", "schema", "archived_at", "created_at", "links",
        ]  # fmt: skip

    def get_links(self, row: ModelVersion) -> dict[str, str]:
        return self.linked({"model": "model"}, row.registered_model.name) | super().get_links(row)


class VersionSummarySerializer(LinkedSerializer, serializers.ModelSerializer[ModelVersion]):
    """A version in a list of versions."""

    routes: ClassVar = {"version": "version"}
    version = serializers.IntegerField(source="number")

    class Meta:
        model = ModelVersion
        fields: ClassVar = [
            "version", "origin", "status", "metrics", "engine", "archived_at", "created_at", "links",
        ]  # fmt: skip


class EvaluationRequestSerializer(serializers.Serializer[Any]):
    """Labelled rows. The version's schema checks them row by row."""

    instances = serializers.ListField(
        child=serializers.DictField(), min_length=1, help_text="Rows with features and target."
    )


class EvaluationSerializer(serializers.Serializer[Any]):
    """Metrics of a version on labelled rows. A metric that the rows do not define is null; `notes` explain
    it."""

    model = serializers.CharField()
    version = serializers.IntegerField()
    rows = serializers.IntegerField()
    metrics = serializers.DictField(child=serializers.FloatField(allow_null=True))
    intervals = serializers.DictField(
        child=serializers.ListField(child=serializers.FloatField(), allow_null=True),
        help_text="Metric -> [low, high]: percentiles of bootstrap resamples of the rows.",
    )
    confidence = serializers.FloatField(help_text="Confidence level of the intervals.")
    baseline = serializers.DictField(
        child=serializers.FloatField(allow_null=True),
        allow_null=True,
        help_text="Metrics on these rows of the training part's mean, or of its class shares.",
    )
    confusion = serializers.DictField(
        allow_null=True,
        help_text="Confusion matrix: labels, and counts by actual (rows) and predicted class.",
    )
    notes = serializers.ListField(child=serializers.CharField())


class ComparisonRequestSerializer(serializers.Serializer[Any]):
    """A request for a comparison with another version of the same model."""

    def get_fields(self) -> dict[str, Any]:
        return {"with": serializers.IntegerField(min_value=1, help_text="Number of the other version.")}


class ComparisonSerializer(serializers.ModelSerializer[Comparison]):
    """A comparison of two versions on the later one's hold-out. `result` is null until the job has
    succeeded."""

    model = serializers.CharField(source="registered_model.name")
    before = serializers.IntegerField(source="before.number")
    after = serializers.IntegerField(source="after.number")

    class Meta:
        model = Comparison
        fields: ClassVar = [
            "id", "status", "model", "before", "after", "stage", "percent", "error", "result", "queued_at",
            "started_at", "finished_at",
        ]  # fmt: skip


class ActivationSerializer(serializers.ModelSerializer[Activation]):
    """One switch of the active version."""

    model = serializers.CharField(source="registered_model.name")
    version = serializers.IntegerField(source="version.number")
    previous = serializers.IntegerField(source="previous.number", default=None, allow_null=True)
    actor = serializers.CharField(source="actor.username", default=None, allow_null=True)

    class Meta:
        model = Activation
        fields: ClassVar = [
            "model", "version", "previous", "kind", "actor", "reason", "overridden", "gate", "at",
        ]  # fmt: skip


class ReasonSerializer(serializers.Serializer[Any]):
    """The reason for a switch of the active version; the audit table stores it."""

    reason = serializers.CharField(min_length=1, max_length=500)


class ActivateSerializer(ReasonSerializer):
    override = serializers.BooleanField(
        default=False,
        help_text="Activate although the version did not pass its gate; the activation records it.",
    )


class DeleteBytesSerializer(ReasonSerializer):
    confirm = serializers.CharField(
        help_text="Name of the model, number of the version or sha256 of the dataset, as in the path."
    )


class ReferenceSerializer(serializers.Serializer[Any]):
    """Rows that refer to a model, a version or a dataset."""

    kind = serializers.CharField()
    count = serializers.IntegerField(
        allow_null=True,
        help_text="Number of these rows; null for a kind that is a fact, such as `it is the active version`.",
    )
    blocks = serializers.BooleanField(help_text="Whether these rows prevent archiving.")


class ReferencesSerializer(serializers.Serializer[Any]):
    """The state of a model, a version or a dataset, and the references to it."""

    archived_at = serializers.DateTimeField(allow_null=True)
    references = ReferenceSerializer(many=True)


class ArchivalSerializer(serializers.ModelSerializer[Archival]):
    """One record: archived, restored, or bytes deleted."""

    model = serializers.CharField(source="registered_model.name")
    version = serializers.IntegerField(source="version.number", allow_null=True, read_only=True)
    dataset = serializers.CharField(source="dataset.sha256", allow_null=True, read_only=True)
    by = serializers.CharField(source="by.username", allow_null=True, read_only=True)

    class Meta:
        model = Archival
        fields: ClassVar = ["id", "model", "version", "dataset", "action", "reason", "freed", "by", "at"]


class DatasetSerializer(LinkedSerializer, serializers.ModelSerializer[Dataset]):
    """A dataset: training rows, addressed by their content."""

    arguments: ClassVar = ("registered_model.name", "sha256")
    routes: ClassVar = {"dataset": "dataset", "references": "dataset-references"}
    model = serializers.CharField(source="registered_model.name")
    versions = serializers.SerializerMethodField(help_text="Numbers of the versions trained on it.")

    class Meta:
        model = Dataset
        fields: ClassVar = [
            "model", "sha256", "rows", "size", "source", "versions", "archived_at", "deleted_at",
            "created_at", "links",
        ]  # fmt: skip

    def get_versions(self, row: Dataset) -> list[int]:
        return sorted(version.number for version in row.versions.all())


class RegisteredModelSerializer(LinkedSerializer, serializers.ModelSerializer[RegisteredModel]):
    """A registered model and its active version."""

    arguments: ClassVar = ("name",)
    routes: ClassVar = {
        "model": "model", "active": "active", "versions": "versions", "training_runs": "training-runs",
    }  # fmt: skip
    rows_routes: ClassVar = {
        "predictions": "predictions", "outcomes": "outcomes", "quality": "quality",
        "drift_reviews": "drift-reviews",
        "rollouts": "rollouts",
    }  # fmt: skip

    task = serializers.SerializerMethodField()
    description = serializers.SerializerMethodField()
    active_version = serializers.IntegerField(source="active_version.number", read_only=True, allow_null=True)
    schema = serializers.SerializerMethodField()
    example = serializers.SerializerMethodField()
    asked_at = serializers.SerializerMethodField(help_text="Route that accepts the example.")

    class Meta:
        model = RegisteredModel
        fields: ClassVar = [
            "name", "title", "description", "task", "policy", "answers_probabilities", "active_version",
            "asked_at", "example", "schema", "archived_at", "links",
        ]  # fmt: skip

    def get_links(self, row: RegisteredModel) -> dict[str, str]:
        """Returns the model's links: its log if the model answers rows, else the route of its answers."""
        links = super().get_links(row)
        if row.active_version is None:
            del links["active"]
        request, provider = self.context.get("request"), providers.find(row.name)
        if provider is None:
            return links | self.linked(self.rows_routes, row.name)
        return links | {
            "answers": request.build_absolute_uri(provider.asked_at) if request else provider.asked_at
        }

    def get_task(self, model: RegisteredModel) -> str | None:
        declared = side_by_side.declaration(model)
        return declared.task if declared else None

    def get_description(self, model: RegisteredModel) -> str:
        declared = side_by_side.declaration(model)
        return declared.description if declared else ""

    def get_asked_at(self, model: RegisteredModel) -> str:
        provider = providers.find(model.name)
        return provider.asked_at if provider else f"/api/v1/models/{model.name}/predictions/"

    def get_schema(self, model: RegisteredModel) -> dict[str, Any] | None:
        schema = _schema(model)
        return schema.to_json() if schema else None

    def get_example(self, model: RegisteredModel) -> dict[str, Any] | None:
        provider = providers.find(model.name)
        if provider is not None:
            return provider.example
        schema = _schema(model)
        return schema.example if schema else None


def _schema(model: RegisteredModel) -> DatasetSchema | None:
    """Returns the schema that validates requests: the active version's, else the declared one."""
    active = model.active_version
    if active is not None:
        return active.dataset_schema
    declared = declarations.find(model) if providers.find(model.name) is None else None
    return declared.schema if declared is not None and declared.schema.columns else None


# -- derived from a schema -----------------------------------------------------------------------------


def field_for(column: Column) -> serializers.Field[Any, Any, Any, Any]:
    """Returns the DRF field of `column` for forms and OpenAPI; the schema itself reads values."""
    shared: dict[str, Any] = {
        "label": f"{column.name} ({column.unit})" if column.unit else column.name,
        "help_text": column.description,
        "required": not column.nullable,
        "allow_null": column.nullable,
        "initial": _as_typed(example_value(column)),
    }
    if column.type == "number":
        least, most = column.limits
        return serializers.FloatField(min_value=least, max_value=most, **shared)
    if column.type == "integer":
        low, high = (None if bound is None else int(bound) for bound in column.limits)
        return serializers.IntegerField(min_value=low, max_value=high, **shared)
    if column.type == "boolean":
        # A list, not a checkbox: an unticked box looks like a missing or a null value.
        return serializers.ChoiceField(choices=["yes", "no"], **shared)
    if column.type == "date":
        return serializers.DateField(**shared)
    if column.type == "datetime":
        # A text, not a browser's calendar, which writes local times without a zone.
        shared["label"] += " (UTC, or with an offset)"
        return serializers.CharField(max_length=moments.LONGEST, **shared)
    if column.levels:
        return serializers.ChoiceField(choices=list(column.levels), **shared)
    return serializers.CharField(max_length=column.max_length, **shared)


def _as_typed(value: Value) -> str | None:
    """Returns a value as a person types it into a form.

    It is text, because templates group the thousands of a number and DRF's templates treat False as missing.
    """
    if isinstance(value, bool):
        return "yes" if value else "no"
    return None if value is None else str(value)


class InstanceSerializer(serializers.Serializer[Any]):
    """One instance of a schema. `DatasetSchema.read` validates it, so that DRF forms, CSV and JSON agree; the
    fields serve forms and documentation."""

    schema: ClassVar[DatasetSchema]

    def to_internal_value(self, data: Any) -> Any:
        read = self.schema.read(data, text=self.context.get("text", False))
        if isinstance(read, list):
            raise serializers.ValidationError(
                {fault.field or "non_field_errors": [fault.message] for fault in read}
            )
        return {"values": read.values, "key": read.key}

    def to_representation(self, instance: Any) -> Any:
        """Returns the data that the client sent, for the form."""
        return dict(self.initial_data)


def serializer_for(name: str, schema: DatasetSchema) -> type[InstanceSerializer]:
    """Returns the serializer class of a model's instances.

    Parameters
    ----------
    name : name of the registered model; OpenAPI derives the component's name from it.
    """
    fields: dict[str, Any] = {column.name: field_for(column) for column in schema.columns}
    fields[KEY_FIELD] = serializers.CharField(
        required=False,
        allow_null=True,
        max_length=KEY_LENGTH,
        help_text="The client's own reference for this row.",
    )
    # A column may have any name, such as "data", that would overwrite a class attribute; so the fields go to
    # `_declared_fields`.
    cls = type(f"{name.title().replace('_', '')}Instance", (InstanceSerializer,), {"schema": schema})
    cls._declared_fields = fields  # type: ignore[attr-defined]
    return cls
