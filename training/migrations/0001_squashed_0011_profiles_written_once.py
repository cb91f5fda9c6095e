"""The registry, its jobs and the fence, as in the schema of commit d66461c.

An installation of that commit or a later one has applied all migrations that this one replaces; their files are
gone. New text of fields (choices, labels, help) is written here: it needs no statement.

The fence is one number that grows with every change of what decides about answers.

A process answers from what it knows (active versions, keys, rights), stamped with the generation at which it
learned it. The log's statement commits only if that generation is still the database's: `vigia_fence`. Whatever
changes an answer grows the generation at the end of its own transaction, by triggers, so that it holds for the
admin, the API, a shell and plain SQL alike.

Both meet at an advisory lock: log statements share it until they are committed, a change takes it alone for the
moment of its commit. So a row is either committed before a change is, or refused after it.
"""

import django.core.validators
import django.db.models.deletion
import django.utils.timezone
from django.conf import settings
from django.db import migrations, models

FENCE = """
CREATE TABLE training_generation (
    only_one boolean PRIMARY KEY DEFAULT true CHECK (only_one),
    value bigint NOT NULL,
    -- The transaction of the last growth: a change of ten thousand rows grows it once.
    grown_in xid8 NOT NULL
);
INSERT INTO training_generation (value, grown_in) VALUES (1, '0');

CREATE FUNCTION vigia_grow_generation() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    PERFORM pg_advisory_xact_lock(22121, 0);
    -- At least the microseconds since 1970, so that no value comes a second time after a restored back-up or
    -- a lost standby, when processes may still know what held under it.
    UPDATE training_generation
        SET value = greatest(value + 1, (extract(epoch FROM clock_timestamp()) * 1000000)::bigint),
            grown_in = pg_current_xact_id()
        WHERE grown_in <> pg_current_xact_id();
    RETURN NULL;
END $$;

-- Raises VG001 unless `expected` is still the generation; if it is, it stays so until the caller's commit.
-- `held`: the caller has the lock in another session already, and a change that queues for it must not come
-- between the two.
CREATE FUNCTION vigia_fence(expected bigint, held boolean) RETURNS boolean LANGUAGE plpgsql AS $$
DECLARE
    found_value bigint;
BEGIN
    IF NOT held THEN
        PERFORM pg_advisory_xact_lock_shared(22121, 0);
    END IF;
    -- A statement of its own: its snapshot is taken after the lock was granted.
    SELECT value INTO found_value FROM training_generation;
    IF found_value IS DISTINCT FROM expected THEN
        RAISE EXCEPTION 'the generation is %, not %', found_value, expected USING ERRCODE = 'VG001';
    END IF;
    RETURN true;
END $$;
"""

# Trigger, table, and when a change of a row changes an answer. Deferred: the lock is taken at the commit, not before.
GROWS = (
    ("0", "training_modelversion", "UPDATE", "OLD.status IS DISTINCT FROM NEW.status"),
    ("1", "training_modelversion", "DELETE", ""),
    ("2", "training_registeredmodel", "UPDATE", "OLD.name IS DISTINCT FROM NEW.name"),
    ("3", "training_registeredmodel", "DELETE", ""),
    ("4", "knox_authtoken", "UPDATE OR DELETE", ""),
    (
        "5",
        "auth_user",
        "UPDATE",
        "OLD.is_active IS DISTINCT FROM NEW.is_active OR OLD.is_superuser IS DISTINCT FROM NEW.is_superuser",
    ),
    ("6", "auth_user", "DELETE", ""),
    ("7", "auth_user_groups", "INSERT OR UPDATE OR DELETE", ""),
    ("8", "auth_user_user_permissions", "INSERT OR UPDATE OR DELETE", ""),
    ("9", "auth_group_permissions", "INSERT OR UPDATE OR DELETE", ""),
    ("10", "auth_permission", "UPDATE OR DELETE", ""),
    ("11", "training_groupscope", "INSERT OR UPDATE OR DELETE", ""),
    ("12", "training_groupscope_registered_models", "INSERT OR UPDATE OR DELETE", ""),
    ("rollout", "training_rollout", "INSERT OR UPDATE OR DELETE", ""),
    ("pruned", "training_prunedartifact", "INSERT OR UPDATE OR DELETE", ""),
)
# TRUNCATE has no rows, and no deferred triggers.
TRIGGERS = "".join(
    f"CREATE CONSTRAINT TRIGGER grow_generation_{name} AFTER {events} ON {table} DEFERRABLE INITIALLY DEFERRED "
    f"FOR EACH ROW {f'WHEN ({condition})' if condition else ''} EXECUTE FUNCTION vigia_grow_generation();"
    for name, table, events, condition in GROWS
) + "".join(
    f"CREATE TRIGGER grow_generation_emptied AFTER TRUNCATE ON {table} "
    "FOR EACH STATEMENT EXECUTE FUNCTION vigia_grow_generation();"
    for table in sorted({table for _, table, *_ in GROWS})
)

# A version is written once: afterwards only its status changes. A reference profile never changes. A rollout ends
# when its version becomes the active one or is rejected, whoever changes the status: the services end it themselves,
# with a name and a reason; the trigger finds what plain SQL or a shell left. A rollout's row is its audit: it is
# ended once, and otherwise neither changed nor removed.
WRITTEN_ONCE = """
CREATE FUNCTION vigia_version_written_once() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF to_jsonb(NEW) - 'status' IS DISTINCT FROM to_jsonb(OLD) - 'status' THEN
        RAISE EXCEPTION 'a model version is written once: only its status may change'
            USING ERRCODE = 'restrict_violation';
    END IF;
    RETURN NEW;
END $$;

CREATE TRIGGER written_once BEFORE UPDATE ON training_modelversion
    FOR EACH ROW EXECUTE FUNCTION vigia_version_written_once();

CREATE FUNCTION vigia_profile_written_once() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    RAISE EXCEPTION 'a reference profile is written once' USING ERRCODE = 'restrict_violation';
END $$;

CREATE TRIGGER written_once BEFORE UPDATE ON training_referenceprofile
    FOR EACH ROW EXECUTE FUNCTION vigia_profile_written_once();

CREATE FUNCTION vigia_end_rollouts() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    UPDATE training_rollout
        SET stopped_at = clock_timestamp(),
            stop_reason = CASE NEW.status WHEN 'active' THEN format('version %s was activated', NEW.number)
                                          ELSE format('version %s was rejected', NEW.number) END
        WHERE stopped_at IS NULL
          AND (version_id = NEW.id OR (NEW.status = 'active' AND registered_model_id = NEW.registered_model_id));
    RETURN NULL;
END $$;

CREATE TRIGGER end_rollouts AFTER UPDATE ON training_modelversion FOR EACH ROW
    WHEN (OLD.status IS DISTINCT FROM NEW.status AND NEW.status IN ('active', 'rejected'))
    EXECUTE FUNCTION vigia_end_rollouts();

CREATE FUNCTION vigia_rollout_is_audit() RETURNS trigger LANGUAGE plpgsql AS $$
DECLARE
    ending text[] := ARRAY['stopped_at', 'stopped_by_id', 'stop_reason'];
BEGIN
    -- As for the log; see APPEND_ONLY in the first migration of `predictions`.
    IF TG_OP = 'TRUNCATE' AND current_setting('vigia.maintenance', true) = 'truncate' THEN
        RETURN NULL;
    END IF;
    IF TG_OP = 'DELETE' AND current_setting('vigia.maintenance', true) = 'move' THEN
        RETURN OLD;
    END IF;
    IF TG_OP = 'UPDATE' THEN
        IF OLD.stopped_at IS NULL AND to_jsonb(NEW) - ending = to_jsonb(OLD) - ending THEN
            RETURN NEW;
        END IF;
    END IF;
    RAISE EXCEPTION 'a rollout is kept as it was: it can only be ended, once'
        USING ERRCODE = 'restrict_violation';
END $$;

CREATE TRIGGER is_audit BEFORE UPDATE OR DELETE ON training_rollout
    FOR EACH ROW EXECUTE FUNCTION vigia_rollout_is_audit();
CREATE TRIGGER is_audit_truncate BEFORE TRUNCATE ON training_rollout
    FOR EACH STATEMENT EXECUTE FUNCTION vigia_rollout_is_audit();
"""


class Migration(migrations.Migration):
    initial = True
    replaces = [
        ("training", "0001_initial"),
        ("training", "0002_constraints"),
        ("training", "0003_versions_written_once"),
        ("training", "0004_compiled_engines"),
        ("training", "0005_generation"),
        ("training", "0006_jobs_and_rollouts"),
        ("training", "0007_rollouts_decide"),
        ("training", "0008_pruning_decides"),
        ("training", "0009_rollouts_end_with_their_version"),
        ("training", "0010_reference_profiles"),
        ("training", "0011_profiles_written_once"),
    ]
    dependencies = [
        ("auth", "0012_alter_user_first_name_max_length"),
        ("knox", "0009_extend_authtoken_field"),
        migrations.swappable_dependency(settings.AUTH_USER_MODEL),
    ]

    operations = [
        migrations.CreateModel(
            name='RegisteredModel',
            fields=[
                ('id', models.BigAutoField(auto_created=True, primary_key=True, serialize=False, verbose_name='ID')),
                ('name', models.CharField(editable=False, max_length=50, unique=True, validators=[django.core.validators.RegexValidator('^[a-z][a-z0-9_]*\\Z')])),
                ('title', models.CharField(max_length=200)),
                ('policy', models.CharField(choices=[('manual', 'manual: a user activates versions'), ('if_better', 'if better: a version that passes its gate is activated'), ('always', 'always: every new version is activated')], default='manual', help_text='Activation of newly trained versions (default: manual).', max_length=10)),
                ('created_at', models.DateTimeField(default=django.utils.timezone.now, editable=False)),
                ('kept_artifacts', models.PositiveSmallIntegerField(blank=True, help_text='Retired versions whose artifacts pruning keeps; their rows always stay. Empty: all.', null=True, verbose_name='retired artifacts kept')),
                ('parallel_runs', models.BooleanField(default=False, help_text='Training runs of this model do not wait for each other.', verbose_name='allow parallel runs')),
                ('second_person', models.BooleanField(default=False, help_text="The user who requested a version's training cannot activate it; another user must.", verbose_name='require a second approver')),
                ('retrain_cooldown_hours', models.PositiveSmallIntegerField(default=168, help_text='Minimum hours between two training runs that reviews request (default: 168).', verbose_name='hours between such runs')),
                ('retrain_on', models.CharField(choices=[('never', 'never: only on request'), ('drift', "drift: the model's inputs or predictions drifted"), ('quality', "quality: quality fell below the hold-out's"), ('either', 'either: drift or quality')], default='never', help_text='Finding of a scheduled review that requests a training run on the rows with outcomes.', max_length=8, verbose_name='retrain on')),
                ('review_hours', models.PositiveSmallIntegerField(default=24, help_text='Hours between scheduled drift reviews (default: 24). 0: no schedule.', verbose_name='hours between drift reviews')),
                ('review_window_hours', models.PositiveSmallIntegerField(default=168, help_text='Hours of the log that a scheduled review reads (default: 168).', validators=[django.core.validators.MinValueValidator(1)], verbose_name='hours in a drift review')),
            ],
            options={
                'verbose_name': 'model',
                'ordering': ['name'],
                'permissions': (('predict', 'Can ask for predictions'), ('give_outcomes', 'Can give outcomes'), ('train', 'Can request training runs and evaluations'), ('activate', 'Can activate and roll back versions'), ('read_log', 'Can read the prediction log')),
            },
        ),
        migrations.CreateModel(
            name='Dataset',
            fields=[
                ('id', models.BigAutoField(auto_created=True, primary_key=True, serialize=False, verbose_name='ID')),
                ('sha256', models.CharField(max_length=64)),
                ('rows', models.PositiveBigIntegerField()),
                ('size', models.PositiveBigIntegerField(help_text='Size of the Parquet file in bytes.')),
                ('schema_sha256', models.CharField(max_length=64)),
                ('source', models.CharField(blank=True, help_text='Origin of the rows and how they were read.', max_length=300)),
                ('created_at', models.DateTimeField(default=django.utils.timezone.now, editable=False)),
                ('created_by', models.ForeignKey(blank=True, null=True, on_delete=django.db.models.deletion.PROTECT, related_name='+', to=settings.AUTH_USER_MODEL)),
                ('registered_model', models.ForeignKey(on_delete=django.db.models.deletion.PROTECT, related_name='datasets', to='training.registeredmodel')),
            ],
            options={
                'ordering': ['-id'],
                'constraints': [models.UniqueConstraint(fields=('registered_model', 'sha256'), name='dataset_once_per_model')],
            },
        ),
        migrations.CreateModel(
            name='TrainingRun',
            fields=[
                ('id', models.BigAutoField(auto_created=True, primary_key=True, serialize=False, verbose_name='ID')),
                ('status', models.CharField(choices=[('queued', 'Queued'), ('running', 'Running'), ('succeeded', 'Succeeded'), ('failed', 'Failed'), ('cancelled', 'Cancelled')], default='queued', max_length=10)),
                ('mode', models.CharField(choices=[('append', "append: the active version's rows and the new rows"), ('replace', 'replace: only the new rows')], default='replace', max_length=8)),
                ('activation_reason', models.CharField(blank=True, help_text='If set, the run activates a version that passes its gate, whatever the policy.', max_length=500)),
                ('stage', models.CharField(blank=True, max_length=100)),
                ('percent', models.PositiveSmallIntegerField(default=0)),
                ('error', models.TextField(blank=True, help_text='Error message of a failed job.')),
                ('attempts', models.PositiveSmallIntegerField(default=0)),
                ('lease_owner', models.UUIDField(blank=True, null=True)),
                ('lease_until', models.DateTimeField(blank=True, null=True)),
                ('queued_at', models.DateTimeField(default=django.utils.timezone.now, editable=False)),
                ('started_at', models.DateTimeField(blank=True, null=True)),
                ('finished_at', models.DateTimeField(blank=True, null=True)),
                ('dataset', models.ForeignKey(blank=True, help_text='Rows on which the run trained.', null=True, on_delete=django.db.models.deletion.PROTECT, related_name='runs', to='training.dataset')),
                ('registered_model', models.ForeignKey(on_delete=django.db.models.deletion.PROTECT, related_name='runs', to='training.registeredmodel')),
                ('requested_by', models.ForeignKey(blank=True, null=True, on_delete=django.db.models.deletion.PROTECT, related_name='+', to=settings.AUTH_USER_MODEL)),
                ('upload', models.ForeignKey(blank=True, help_text='Rows of the request.', null=True, on_delete=django.db.models.deletion.PROTECT, related_name='+', to='training.dataset')),
                ('cancel_requested_at', models.DateTimeField(blank=True, null=True)),
                ('cancelled_by', models.ForeignKey(blank=True, null=True, on_delete=django.db.models.deletion.PROTECT, related_name='+', to=settings.AUTH_USER_MODEL)),
                ('heartbeat_at', models.DateTimeField(blank=True, null=True)),
                ('log_tail', models.TextField(blank=True)),
                ('search', models.JSONField(blank=True, help_text='Settings of a hyper-parameter search; empty: one fit.', null=True)),
                ('source', models.JSONField(blank=True, help_text='Source of the rows instead of an upload; the run collects them when it begins.', null=True)),
            ],
            options={
                'ordering': ['-id'],
                'indexes': [models.Index(condition=models.Q(('status__in', ['queued', 'running'])), fields=['status'], name='trainingrun_unfinished')],
                'constraints': [models.CheckConstraint(condition=models.Q(('status__in', ['queued', 'running', 'succeeded', 'failed', 'cancelled'])), name='trainingrun_status_known'), models.CheckConstraint(condition=models.Q(('percent__lte', 100)), name='trainingrun_percent_to_100'), models.CheckConstraint(condition=models.Q(('upload__isnull', False), ('source__isnull', False), _connector='OR'), name='run_has_rows')],
            },
        ),
        migrations.CreateModel(
            name='ModelVersion',
            fields=[
                ('id', models.BigAutoField(auto_created=True, primary_key=True, serialize=False, verbose_name='ID')),
                ('number', models.PositiveIntegerField()),
                ('status', models.CharField(choices=[('candidate', 'Candidate'), ('active', 'Active'), ('retired', 'Retired'), ('rejected', 'Rejected')], default='candidate', max_length=10)),
                ('metrics', models.JSONField()),
                ('baseline', models.JSONField()),
                ('gate', models.JSONField()),
                ('threshold', models.FloatField(blank=True, null=True)),
                ('schema', models.JSONField()),
                ('schema_sha256', models.CharField(max_length=64)),
                ('train_rows', models.PositiveBigIntegerField()),
                ('holdout_rows', models.PositiveBigIntegerField()),
                ('engine', models.CharField(max_length=20)),
                ('engine_reason', models.CharField(blank=True, max_length=300)),
                ('artifact_sha256', models.CharField(max_length=64)),
                ('artifact_hmac', models.CharField(max_length=64)),
                ('artifact_size', models.PositiveBigIntegerField()),
                ('libraries', models.JSONField(help_text='Versions of the libraries that built the artifact.')),
                ('seed', models.BigIntegerField()),
                ('code_version', models.CharField(max_length=120)),
                ('created_at', models.DateTimeField(default=django.utils.timezone.now, editable=False)),
                ('created_by', models.ForeignKey(blank=True, null=True, on_delete=django.db.models.deletion.PROTECT, related_name='+', to=settings.AUTH_USER_MODEL)),
                ('dataset', models.ForeignKey(on_delete=django.db.models.deletion.PROTECT, related_name='versions', to='training.dataset')),
                ('registered_model', models.ForeignKey(on_delete=django.db.models.deletion.PROTECT, related_name='versions', to='training.registeredmodel')),
                ('run', models.OneToOneField(on_delete=django.db.models.deletion.PROTECT, related_name='version', to='training.trainingrun')),
                ('compiled_sha256', models.CharField(blank=True, max_length=64)),
                ('compiled_hmac', models.CharField(blank=True, max_length=64)),
                ('compiled_size', models.PositiveBigIntegerField(blank=True, null=True)),
                ('parity', models.JSONField(blank=True, help_text="Difference between the compiled engine's answers and scikit-learn's.", null=True)),
                ('evaluation', models.JSONField(blank=True, help_text='Curves, importances and slices on the hold-out; intervals of the metrics.', null=True)),
                ('parameters', models.JSONField(blank=True, default=dict, help_text='Hyper-parameters that a search chose; empty: the declared ones.')),
            ],
            options={
                'ordering': ['-id'],
                'constraints': [models.UniqueConstraint(fields=('registered_model', 'number'), name='version_number_once'), models.UniqueConstraint(condition=models.Q(('status', 'active')), fields=('registered_model',), name='one_active_version'), models.CheckConstraint(condition=models.Q(('number__gte', 1)), name='version_number_from_1'), models.CheckConstraint(condition=models.Q(('status__in', ['candidate', 'active', 'retired', 'rejected'])), name='version_status_known'), models.CheckConstraint(condition=models.Q(models.Q(('engine', 'onnx'), _negated=True), models.Q(('compiled_sha256', ''), _negated=True), _connector='OR'), name='version_onnx_is_compiled')],
            },
        ),
        migrations.CreateModel(
            name='GroupScope',
            fields=[
                ('id', models.BigAutoField(auto_created=True, primary_key=True, serialize=False, verbose_name='ID')),
                ('group', models.OneToOneField(on_delete=django.db.models.deletion.CASCADE, related_name='scope', to='auth.group')),
                ('registered_models', models.ManyToManyField(blank=True, related_name='group_scopes', to='training.registeredmodel')),
            ],
            options={
                'verbose_name': 'scope of a group',
                'verbose_name_plural': 'scopes of groups',
            },
        ),
        migrations.CreateModel(
            name='Activation',
            fields=[
                ('id', models.BigAutoField(auto_created=True, primary_key=True, serialize=False, verbose_name='ID')),
                ('kind', models.CharField(choices=[('activate', 'Activate'), ('rollback', 'Rollback'), ('policy', 'Policy')], max_length=10)),
                ('reason', models.CharField(max_length=500)),
                ('gate', models.JSONField()),
                ('overridden', models.BooleanField(default=False, help_text='Activated although the version did not pass its gate.')),
                ('at', models.DateTimeField()),
                ('actor', models.ForeignKey(blank=True, null=True, on_delete=django.db.models.deletion.PROTECT, related_name='+', to=settings.AUTH_USER_MODEL)),
                ('previous', models.ForeignKey(blank=True, null=True, on_delete=django.db.models.deletion.PROTECT, related_name='+', to='training.modelversion')),
                ('version', models.ForeignKey(on_delete=django.db.models.deletion.PROTECT, related_name='activations', to='training.modelversion')),
                ('registered_model', models.ForeignKey(on_delete=django.db.models.deletion.PROTECT, related_name='activations', to='training.registeredmodel')),
            ],
            options={
                'ordering': ['-at', '-id'],
                'get_latest_by': ['at', 'id'],
                'indexes': [models.Index(fields=['registered_model', '-at'], name='activation_at')],
                'constraints': [models.CheckConstraint(condition=models.Q(('reason', ''), _negated=True), name='activation_has_reason')],
            },
        ),
        migrations.CreateModel(
            name='Comparison',
            fields=[
                ('id', models.BigAutoField(auto_created=True, primary_key=True, serialize=False, verbose_name='ID')),
                ('status', models.CharField(choices=[('queued', 'Queued'), ('running', 'Running'), ('succeeded', 'Succeeded'), ('failed', 'Failed'), ('cancelled', 'Cancelled')], default='queued', max_length=10)),
                ('stage', models.CharField(blank=True, max_length=100)),
                ('percent', models.PositiveSmallIntegerField(default=0)),
                ('log_tail', models.TextField(blank=True)),
                ('error', models.TextField(blank=True, help_text='Error message of a failed job.')),
                ('attempts', models.PositiveSmallIntegerField(default=0)),
                ('lease_owner', models.UUIDField(blank=True, null=True)),
                ('lease_until', models.DateTimeField(blank=True, null=True)),
                ('heartbeat_at', models.DateTimeField(blank=True, null=True)),
                ('cancel_requested_at', models.DateTimeField(blank=True, null=True)),
                ('queued_at', models.DateTimeField(default=django.utils.timezone.now, editable=False)),
                ('started_at', models.DateTimeField(blank=True, null=True)),
                ('finished_at', models.DateTimeField(blank=True, null=True)),
                ('result', models.JSONField(blank=True, null=True)),
                ('after', models.ForeignKey(on_delete=django.db.models.deletion.PROTECT, related_name='+', to='training.modelversion')),
                ('before', models.ForeignKey(on_delete=django.db.models.deletion.PROTECT, related_name='+', to='training.modelversion')),
                ('cancelled_by', models.ForeignKey(blank=True, null=True, on_delete=django.db.models.deletion.PROTECT, related_name='+', to=settings.AUTH_USER_MODEL)),
                ('registered_model', models.ForeignKey(on_delete=django.db.models.deletion.PROTECT, related_name='%(class)ss', to='training.registeredmodel')),
                ('requested_by', models.ForeignKey(blank=True, null=True, on_delete=django.db.models.deletion.PROTECT, related_name='+', to=settings.AUTH_USER_MODEL)),
            ],
            options={
                'ordering': ['-id'],
                'abstract': False,
                'indexes': [models.Index(condition=models.Q(('status__in', ['queued', 'running'])), fields=['status'], name='comparison_unfinished')],
                'constraints': [models.CheckConstraint(condition=models.Q(('status__in', ['queued', 'running', 'succeeded', 'failed', 'cancelled'])), name='comparison_status_known'), models.CheckConstraint(condition=models.Q(('percent__lte', 100)), name='comparison_percent_to_100')],
            },
        ),
        migrations.CreateModel(
            name='PrunedArtifact',
            fields=[
                ('id', models.BigAutoField(auto_created=True, primary_key=True, serialize=False, verbose_name='ID')),
                ('freed', models.PositiveBigIntegerField(help_text='Freed bytes in the store.')),
                ('although_logged', models.BooleanField(default=False, help_text='Removed although rows of the log refer to the version.')),
                ('at', models.DateTimeField(default=django.utils.timezone.now, editable=False)),
                ('by', models.ForeignKey(blank=True, null=True, on_delete=django.db.models.deletion.PROTECT, related_name='+', to=settings.AUTH_USER_MODEL)),
                ('version', models.OneToOneField(on_delete=django.db.models.deletion.PROTECT, related_name='pruned', to='training.modelversion')),
            ],
            options={
                'verbose_name': 'pruned artifact',
                'ordering': ['-id'],
            },
        ),
        migrations.CreateModel(
            name='Rollout',
            fields=[
                ('id', models.BigAutoField(auto_created=True, primary_key=True, serialize=False, verbose_name='ID')),
                ('kind', models.CharField(choices=[('shadow', 'shadow: predicts beside the active version; clients do not see it'), ('canary', 'canary: answers a share of the clients')], max_length=10)),
                ('percent', models.FloatField(blank=True, help_text='Share of the clients in percent; canary only.', null=True)),
                ('reason', models.CharField(max_length=500)),
                ('started_at', models.DateTimeField(default=django.utils.timezone.now, editable=False)),
                ('stopped_at', models.DateTimeField(blank=True, null=True)),
                ('stop_reason', models.CharField(blank=True, max_length=500)),
                ('registered_model', models.ForeignKey(on_delete=django.db.models.deletion.PROTECT, related_name='rollouts', to='training.registeredmodel')),
                ('started_by', models.ForeignKey(blank=True, null=True, on_delete=django.db.models.deletion.PROTECT, related_name='+', to=settings.AUTH_USER_MODEL)),
                ('stopped_by', models.ForeignKey(blank=True, null=True, on_delete=django.db.models.deletion.PROTECT, related_name='+', to=settings.AUTH_USER_MODEL)),
                ('version', models.ForeignKey(on_delete=django.db.models.deletion.PROTECT, related_name='rollouts', to='training.modelversion')),
                ('overridden', models.BooleanField(default=False, help_text='Started although the version did not pass its gate.')),
            ],
            options={
                'ordering': ['-id'],
                'constraints': [models.CheckConstraint(condition=models.Q(('reason', ''), _negated=True), name='rollout_has_reason'), models.CheckConstraint(condition=models.Q(('kind__in', ['shadow', 'canary'])), name='rollout_kind_known'), models.CheckConstraint(condition=models.Q(models.Q(('kind', 'shadow'), ('percent__isnull', True)), models.Q(('kind', 'canary'), ('percent__gt', 0), ('percent__lte', 100)), _connector='OR'), name='rollout_percent_of_canary'), models.UniqueConstraint(condition=models.Q(('stopped_at__isnull', True)), fields=('registered_model', 'kind'), name='one_running_rollout_of_a_kind')],
            },
        ),
        migrations.CreateModel(
            name='ReferenceProfile',
            fields=[
                ('version', models.OneToOneField(on_delete=django.db.models.deletion.CASCADE, primary_key=True, related_name='reference', serialize=False, to='training.modelversion')),
                ('bins', models.JSONField()),
                ('created_at', models.DateTimeField(default=django.utils.timezone.now, editable=False)),
            ],
            options={
                'default_permissions': (),
            },
        ),
        migrations.RunSQL(FENCE),
        migrations.RunSQL(TRIGGERS),
        migrations.RunSQL(WRITTEN_ONCE),
    ]
