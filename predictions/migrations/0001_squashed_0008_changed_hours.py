"""The log and all that hangs on it, as in the schema of commit d66461c.

An installation of that commit or a later one has applied all migrations that this one replaces; their files are
gone. New text of fields (choices, labels, help) is written here: it needs no statement.
"""

import django.db.models.deletion
import django.utils.timezone
from django.conf import settings
from django.db import migrations, models

import predictions.models

LOG = """
CREATE TABLE predictions_prediction (
    id uuid NOT NULL PRIMARY KEY,
    registered_model_id bigint NOT NULL,
    version_id bigint NOT NULL,
    client_id integer NULL,
    key varchar(200) NULL,
    -- An array in the order of the version's schema. A log is written far more often than read: names would be
    -- two thirds of a row, and their conversion to jsonb a third of PostgreSQL's time for it.
    inputs json NOT NULL,
    prediction jsonb NOT NULL,
    probability double precision NULL,
    warnings jsonb NOT NULL,
    request_id varchar(64) NOT NULL
) PARTITION BY RANGE (id);

-- A row whose month has no partition yet is kept all the same.
CREATE TABLE predictions_prediction_default PARTITION OF predictions_prediction DEFAULT;

-- A model's log, newest first.
CREATE INDEX prediction_model_id ON predictions_prediction (registered_model_id, id DESC);
-- The same for one version; and "what still refers to this version?".
CREATE INDEX prediction_version_id ON predictions_prediction (version_id, id DESC);
-- The rows of a client's own reference.
CREATE INDEX prediction_key ON predictions_prediction (registered_model_id, key, id DESC) WHERE key IS NOT NULL;
"""

# The triggers prevent mistakes of the code and of people with a console, not a superuser's intent. Code that
# moves rows between partitions sets `vigia.maintenance` to 'move' within one transaction; the test suite sets
# 'truncate' to empty tables between tests.
APPEND_ONLY = """
CREATE FUNCTION vigia_append_only() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF TG_OP = 'TRUNCATE' AND current_setting('vigia.maintenance', true) = 'truncate' THEN
        RETURN NULL;
    END IF;
    IF TG_OP = 'DELETE' AND current_setting('vigia.maintenance', true) = 'move' THEN
        RETURN OLD;
    END IF;
    RAISE EXCEPTION '% is append-only: % is refused', TG_TABLE_NAME, TG_OP
        USING ERRCODE = 'restrict_violation';
END $$;

CREATE TRIGGER append_only BEFORE UPDATE OR DELETE ON predictions_prediction
    FOR EACH ROW EXECUTE FUNCTION vigia_append_only();
CREATE TRIGGER append_only_truncate BEFORE TRUNCATE ON predictions_prediction
    FOR EACH STATEMENT EXECUTE FUNCTION vigia_append_only();
CREATE TRIGGER append_only_truncate BEFORE TRUNCATE ON predictions_prediction_default
    FOR EACH STATEMENT EXECUTE FUNCTION vigia_append_only();
CREATE TRIGGER append_only BEFORE UPDATE OR DELETE ON training_activation
    FOR EACH ROW EXECUTE FUNCTION vigia_append_only();
CREATE TRIGGER append_only_truncate BEFORE TRUNCATE ON training_activation
    FOR EACH STATEMENT EXECUTE FUNCTION vigia_append_only();

-- A correction is another row. One change is allowed: an outcome that arrived before its prediction gets the
-- prediction's id, once.
CREATE FUNCTION vigia_outcome_joined() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF OLD.prediction_id IS NULL AND NEW.prediction_id IS NOT NULL THEN
        OLD.prediction_id := NEW.prediction_id;
        IF OLD IS NOT DISTINCT FROM NEW THEN
            RETURN NEW;
        END IF;
    END IF;
    RAISE EXCEPTION '% is append-only: % is refused', TG_TABLE_NAME, TG_OP
        USING ERRCODE = 'restrict_violation';
END $$;

CREATE TRIGGER joined_once BEFORE UPDATE ON predictions_outcome
    FOR EACH ROW EXECUTE FUNCTION vigia_outcome_joined();
CREATE TRIGGER append_only BEFORE DELETE ON predictions_outcome
    FOR EACH ROW EXECUTE FUNCTION vigia_append_only();
CREATE TRIGGER append_only_truncate BEFORE TRUNCATE ON predictions_outcome
    FOR EACH STATEMENT EXECUTE FUNCTION vigia_append_only();
"""

# A foreign key costs a look-up and a row lock for every row and reference: half of the cost of a logged row.
# These triggers check the few distinct versions and clients of each statement. A referenced row cannot be
# removed either: its removal waits for the fence (so no log statement is running) and then searches the log.
REFERENCES = """
CREATE FUNCTION vigia_log_refers() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF EXISTS (
        SELECT 1
        FROM (SELECT DISTINCT registered_model_id, version_id, client_id FROM added) AS row
        LEFT JOIN training_modelversion version
            ON version.id = row.version_id AND version.registered_model_id = row.registered_model_id
        LEFT JOIN auth_user client ON client.id = row.client_id
        WHERE version.id IS NULL OR (row.client_id IS NOT NULL AND client.id IS NULL)
    ) THEN
        RAISE EXCEPTION 'a prediction names a version of this model, or a client, that is not there'
            USING ERRCODE = 'foreign_key_violation';
    END IF;
    RETURN NULL;
END $$;

CREATE TRIGGER refers AFTER INSERT ON predictions_prediction
    REFERENCING NEW TABLE AS added FOR EACH STATEMENT EXECUTE FUNCTION vigia_log_refers();

CREATE FUNCTION vigia_kept_by_log() RETURNS trigger LANGUAGE plpgsql AS $$
DECLARE
    referred boolean;
    -- Ids are time: the lowest that a row could have that was written since a minute before this transaction.
    recent uuid := (
        lpad(to_hex((extract(epoch FROM now() - interval '1 minute') * 1000)::bigint), 12, '0') || repeat('0', 20)
    )::uuid;
BEGIN
    -- The whole log is looked through before the lock is taken (by client that is a long scan), and what may
    -- have come meanwhile after it, when no log statement is under way.
    EXECUTE format('SELECT EXISTS (SELECT 1 FROM predictions_prediction WHERE %I = $1)', TG_ARGV[0])
        INTO referred USING OLD.id;
    IF NOT referred THEN
        PERFORM pg_advisory_xact_lock(22121, 0);
        EXECUTE format(
            'SELECT EXISTS (SELECT 1 FROM predictions_prediction WHERE id >= $2 AND %I = $1)', TG_ARGV[0]
        ) INTO referred USING OLD.id, recent;
    END IF;
    IF referred THEN
        RAISE EXCEPTION '% % stands in the prediction log and cannot be removed', TG_TABLE_NAME, OLD.id
            USING ERRCODE = 'foreign_key_violation';
    END IF;
    RETURN NULL;
END $$;

CREATE CONSTRAINT TRIGGER kept_by_log AFTER DELETE ON training_registeredmodel
    DEFERRABLE INITIALLY DEFERRED FOR EACH ROW EXECUTE FUNCTION vigia_kept_by_log('registered_model_id');
CREATE CONSTRAINT TRIGGER kept_by_log AFTER DELETE ON training_modelversion
    DEFERRABLE INITIALLY DEFERRED FOR EACH ROW EXECUTE FUNCTION vigia_kept_by_log('version_id');
CREATE CONSTRAINT TRIGGER kept_by_log AFTER DELETE ON auth_user
    DEFERRABLE INITIALLY DEFERRED FOR EACH ROW EXECUTE FUNCTION vigia_kept_by_log('client_id');

-- Takes an idempotency key for the caller's transaction, or raises VG002 when a live one is there. Waits for an
-- uncommitted one of the same name.
CREATE FUNCTION vigia_claim(client integer, name text, sha256 text, stored text, hours integer) RETURNS boolean
LANGUAGE plpgsql AS $$
DECLARE
    taken bigint;
BEGIN
    INSERT INTO predictions_idempotencykey AS k (client_id, key, request_sha256, answer, created_at)
        VALUES (client, name, sha256, stored, now())
        ON CONFLICT (client_id, key) DO UPDATE
        SET request_sha256 = EXCLUDED.request_sha256, answer = EXCLUDED.answer, created_at = now()
        WHERE k.created_at < now() - make_interval(hours => hours);
    GET DIAGNOSTICS taken = ROW_COUNT;
    IF taken = 0 THEN
        RAISE EXCEPTION 'the idempotency key was taken' USING ERRCODE = 'VG002';
    END IF;
    RETURN true;
END $$;
"""

INPUTS = """
CREATE FUNCTION vigia_inputs(version bigint, cells json) RETURNS jsonb LANGUAGE sql STABLE AS $$
    SELECT coalesce(jsonb_object_agg(col.value ->> 'name', cells -> (col.ordinality::int - 1)), '{}')
    FROM training_modelversion, jsonb_array_elements(schema -> 'columns') WITH ORDINALITY AS col
    WHERE training_modelversion.id = version
$$;
COMMENT ON FUNCTION vigia_inputs(bigint, json) IS
    'The inputs of a logged row by the names of the columns: vigia_inputs(version_id, inputs)';
"""

# Outcomes mark the hour of their prediction, so that its quality is aggregated again. The trigger runs once per
# statement: a request of any length concerns a handful of hours. It marks them in ascending order, so that two
# statements never deadlock. A mark always increases, even if the clock was set back: an aggregation removes the mark
# that it has read, and no later one. Removed outcomes mark nothing: retention removes them with their month, whose
# quality stays.
HOURS = """
CREATE FUNCTION vigia_milliseconds(id uuid) RETURNS bigint LANGUAGE sql IMMUTABLE STRICT PARALLEL SAFE AS $$
    -- By its bytes: quicker than by its text.
    SELECT (get_byte(uuid_send(id), 0)::bigint << 40) + (get_byte(uuid_send(id), 1)::bigint << 32)
        + (get_byte(uuid_send(id), 2)::bigint << 24) + (get_byte(uuid_send(id), 3)::bigint << 16)
        + (get_byte(uuid_send(id), 4)::bigint << 8) + get_byte(uuid_send(id), 5)
$$;
COMMENT ON FUNCTION vigia_milliseconds(uuid) IS 'When the id of a prediction was made, in Unix milliseconds';

CREATE FUNCTION vigia_mark_hours() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    INSERT INTO predictions_changedhour AS changed (registered_model_id, hour, marked_at)
        SELECT registered_model_id, to_timestamp(milliseconds / 3600000 * 3600), clock_timestamp()
        FROM (
            SELECT DISTINCT registered_model_id, vigia_milliseconds(prediction_id) / 3600000 * 3600000 AS milliseconds
            FROM written WHERE prediction_id IS NOT NULL
        ) AS hours
        ORDER BY registered_model_id, milliseconds
        ON CONFLICT (registered_model_id, hour) DO UPDATE
        SET marked_at = greatest(EXCLUDED.marked_at, changed.marked_at + interval '1 microsecond');
    RETURN NULL;
END $$;

CREATE TRIGGER mark_hours AFTER INSERT ON predictions_outcome
    REFERENCING NEW TABLE AS written FOR EACH STATEMENT EXECUTE FUNCTION vigia_mark_hours();
-- All that is ever updated is the prediction that an outcome waited for.
CREATE TRIGGER mark_joined_hours AFTER UPDATE ON predictions_outcome
    REFERENCING NEW TABLE AS written FOR EACH STATEMENT EXECUTE FUNCTION vigia_mark_hours();
"""


class Migration(migrations.Migration):
    initial = True
    replaces = [
        ("predictions", "0001_initial"),
        ("predictions", "0002_log_writer"),
        ("predictions", "0003_inputs_by_position"),
        ("predictions", "0004_outcomes_replays_shadows"),
        ("predictions", "0005_outcomes_append_only"),
        ("predictions", "0006_outcomes_waiting_longest"),
        ("predictions", "0007_rollups_and_reviews"),
        ("predictions", "0008_changed_hours"),
    ]
    dependencies = [
        ("training", "0001_squashed_0011_profiles_written_once"),
        migrations.swappable_dependency(settings.AUTH_USER_MODEL),
    ]

    operations = [
        migrations.SeparateDatabaseAndState(
            database_operations=[migrations.RunSQL(LOG)],
            state_operations=[
                migrations.CreateModel(
                    name='Prediction',
                    fields=[
                        ('id', models.UUIDField(editable=False, primary_key=True, serialize=False)),
                        ('key', models.CharField(max_length=200, null=True)),
                        ('prediction', models.JSONField()),
                        ('probability', models.FloatField(null=True)),
                        ('warnings', models.JSONField()),
                        ('request_id', models.CharField(max_length=64)),
                        ('client', models.ForeignKey(null=True, on_delete=django.db.models.deletion.PROTECT, related_name='predictions', to=settings.AUTH_USER_MODEL)),
                        ('registered_model', models.ForeignKey(on_delete=django.db.models.deletion.PROTECT, related_name='predictions', to='training.registeredmodel')),
                        ('version', models.ForeignKey(on_delete=django.db.models.deletion.PROTECT, related_name='predictions', to='training.modelversion')),
                        ('cells', predictions.models.JSONText(db_column='inputs')),
                    ],
                    options={
                        'verbose_name': 'prediction',
                        'verbose_name_plural': 'prediction log',
                        'ordering': ['-id'],
                        'default_permissions': ('view',),
                    },
                ),
            ],
        ),
        migrations.CreateModel(
            name='IdempotencyKey',
            fields=[
                ('id', models.BigAutoField(auto_created=True, primary_key=True, serialize=False, verbose_name='ID')),
                ('key', models.CharField(max_length=200)),
                ('request_sha256', models.CharField(max_length=64)),
                ('answer', models.TextField()),
                ('created_at', models.DateTimeField(default=django.utils.timezone.now)),
                ('client', models.ForeignKey(on_delete=django.db.models.deletion.CASCADE, related_name='+', to=settings.AUTH_USER_MODEL)),
            ],
            options={
                'indexes': [models.Index(fields=['created_at'], name='idempotency_age')],
                'constraints': [models.UniqueConstraint(fields=('client', 'key'), name='idempotency_key_once')],
                'default_permissions': (),
            },
        ),
        migrations.CreateModel(
            name='Outcome',
            fields=[
                ('id', models.BigAutoField(auto_created=True, primary_key=True, serialize=False, verbose_name='ID')),
                ('prediction_id', models.UUIDField(blank=True, null=True)),
                ('key', models.CharField(blank=True, max_length=200, null=True)),
                ('actual', models.JSONField()),
                ('observed_at', models.DateTimeField()),
                ('received_at', models.DateTimeField(default=django.utils.timezone.now, editable=False)),
                ('client', models.ForeignKey(null=True, on_delete=django.db.models.deletion.PROTECT, related_name='outcomes', to=settings.AUTH_USER_MODEL)),
                ('registered_model', models.ForeignKey(db_index=False, on_delete=django.db.models.deletion.PROTECT, related_name='outcomes', to='training.registeredmodel')),
            ],
            options={
                'ordering': ['-id'],
                'default_permissions': ('view',),
                'indexes': [models.Index(fields=['prediction_id', '-id'], name='outcome_prediction'), models.Index(condition=models.Q(('prediction_id__isnull', True)), fields=['registered_model', 'key'], name='outcome_waiting'), models.Index(condition=models.Q(('key__isnull', False)), fields=['registered_model', 'key'], name='outcome_key'), models.Index(condition=models.Q(('prediction_id__isnull', True)), fields=['registered_model', 'id'], name='outcome_waiting_longest'), models.Index(fields=['registered_model', 'received_at', 'id'], name='outcome_received')],
                'constraints': [models.CheckConstraint(condition=models.Q(('prediction_id__isnull', False), ('key__isnull', False), _connector='OR'), name='outcome_of_something')],
            },
        ),
        migrations.CreateModel(
            name='Replay',
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
                ('since', models.DateTimeField()),
                ('until', models.DateTimeField()),
                ('rows', models.PositiveBigIntegerField(default=0)),
                ('result', models.JSONField(blank=True, null=True)),
                ('cancelled_by', models.ForeignKey(blank=True, null=True, on_delete=django.db.models.deletion.PROTECT, related_name='+', to=settings.AUTH_USER_MODEL)),
                ('registered_model', models.ForeignKey(on_delete=django.db.models.deletion.PROTECT, related_name='%(class)ss', to='training.registeredmodel')),
                ('requested_by', models.ForeignKey(blank=True, null=True, on_delete=django.db.models.deletion.PROTECT, related_name='+', to=settings.AUTH_USER_MODEL)),
                ('version', models.ForeignKey(on_delete=django.db.models.deletion.PROTECT, related_name='replays', to='training.modelversion')),
            ],
            options={
                'ordering': ['-id'],
                'abstract': False,
                'indexes': [models.Index(condition=models.Q(('status__in', ['queued', 'running'])), fields=['status'], name='replay_unfinished')],
                'constraints': [models.CheckConstraint(condition=models.Q(('status__in', ['queued', 'running', 'succeeded', 'failed', 'cancelled'])), name='replay_status_known'), models.CheckConstraint(condition=models.Q(('percent__lte', 100)), name='replay_percent_to_100')],
            },
        ),
        migrations.CreateModel(
            name='ShadowAnswer',
            fields=[
                ('id', models.BigAutoField(auto_created=True, primary_key=True, serialize=False, verbose_name='ID')),
                ('prediction_id', models.UUIDField()),
                ('prediction', models.JSONField()),
                ('probability', models.FloatField(null=True)),
                ('rollout', models.ForeignKey(on_delete=django.db.models.deletion.PROTECT, related_name='answers', to='training.rollout')),
            ],
            options={
                'default_permissions': ('view',),
                'constraints': [models.UniqueConstraint(fields=('rollout', 'prediction_id'), name='shadow_answers_once')],
            },
        ),
        migrations.CreateModel(
            name='ShadowTally',
            fields=[
                ('id', models.BigAutoField(auto_created=True, primary_key=True, serialize=False, verbose_name='ID')),
                ('hour', models.DateTimeField()),
                ('answered', models.PositiveBigIntegerField(default=0)),
                ('dropped', models.PositiveBigIntegerField(default=0)),
                ('failed', models.PositiveBigIntegerField(default=0)),
                ('rollout', models.ForeignKey(on_delete=django.db.models.deletion.PROTECT, related_name='tallies', to='training.rollout')),
            ],
            options={
                'default_permissions': ('view',),
                'constraints': [models.UniqueConstraint(fields=('rollout', 'hour'), name='shadow_tally_once')],
            },
        ),
        migrations.CreateModel(
            name='RemovedMonth',
            fields=[
                ('id', models.BigAutoField(auto_created=True, primary_key=True, serialize=False, verbose_name='ID')),
                ('start', models.DateTimeField(unique=True)),
                ('rows', models.PositiveBigIntegerField()),
                ('although_kept', models.BooleanField(default=False)),
                ('at', models.DateTimeField(default=django.utils.timezone.now, editable=False)),
                ('by', models.ForeignKey(blank=True, null=True, on_delete=django.db.models.deletion.PROTECT, related_name='+', to=settings.AUTH_USER_MODEL)),
            ],
            options={
                'ordering': ['-start'],
                'default_permissions': ('view',),
            },
        ),
        migrations.CreateModel(
            name='AnswerTime',
            fields=[
                ('pk', models.CompositePrimaryKey('registered_model_id', 'hour', 'bucket', blank=True, editable=False, primary_key=True, serialize=False)),
                ('hour', models.DateTimeField()),
                ('bucket', models.SmallIntegerField()),
                ('requests', models.BigIntegerField()),
                ('registered_model', models.ForeignKey(db_index=False, on_delete=django.db.models.deletion.CASCADE, related_name='+', to='training.registeredmodel')),
            ],
            options={
                'default_permissions': (),
            },
        ),
        migrations.CreateModel(
            name='ChangedHour',
            fields=[
                ('pk', models.CompositePrimaryKey('registered_model_id', 'hour', blank=True, editable=False, primary_key=True, serialize=False)),
                ('hour', models.DateTimeField()),
                ('marked_at', models.DateTimeField()),
                ('registered_model', models.ForeignKey(db_index=False, on_delete=django.db.models.deletion.CASCADE, related_name='+', to='training.registeredmodel')),
            ],
            options={
                'default_permissions': (),
            },
        ),
        migrations.CreateModel(
            name='DriftReview',
            fields=[
                ('id', models.BigAutoField(auto_created=True, primary_key=True, serialize=False, verbose_name='ID')),
                ('since', models.DateTimeField()),
                ('until', models.DateTimeField()),
                ('counted_to', models.DateTimeField(blank=True, null=True)),
                ('rows', models.PositiveBigIntegerField()),
                ('verdict', models.CharField(choices=[('drift', 'Drift'), ('notice', 'Notice'), ('stable', 'Stable'), ('insufficient', 'Insufficient')], max_length=12)),
                ('reason', models.TextField(blank=True)),
                ('quality', models.JSONField(blank=True, null=True)),
                ('expected', models.JSONField(blank=True, null=True)),
                ('scheduled', models.BooleanField(default=False)),
                ('created_at', models.DateTimeField(default=django.utils.timezone.now, editable=False)),
                ('kept', models.BooleanField(default=False, help_text="The log's rows it is about are not removed by retention.")),
                ('log_removed_at', models.DateTimeField(blank=True, null=True)),
                ('run_note', models.TextField(blank=True)),
                ('registered_model', models.ForeignKey(on_delete=django.db.models.deletion.PROTECT, related_name='reviews', to='training.registeredmodel')),
                ('requested_by', models.ForeignKey(blank=True, null=True, on_delete=django.db.models.deletion.PROTECT, related_name='+', to=settings.AUTH_USER_MODEL)),
                ('run', models.ForeignKey(blank=True, null=True, on_delete=django.db.models.deletion.PROTECT, related_name='reviews', to='training.trainingrun')),
                ('version', models.ForeignKey(on_delete=django.db.models.deletion.PROTECT, related_name='reviews', to='training.modelversion')),
            ],
            options={
                'ordering': ['-id'],
                'default_permissions': ('view', 'change', 'delete'),
                'indexes': [models.Index(fields=['registered_model', '-id'], name='review_latest')],
                'constraints': [models.CheckConstraint(condition=models.Q(('verdict__in', ['drift', 'notice', 'stable', 'insufficient'])), name='review_verdict_known'), models.CheckConstraint(condition=models.Q(('since__lt', models.F('until'))), name='review_window')],
            },
        ),
        migrations.CreateModel(
            name='DriftFinding',
            fields=[
                ('id', models.BigAutoField(auto_created=True, primary_key=True, serialize=False, verbose_name='ID')),
                ('position', models.PositiveSmallIntegerField()),
                ('column', models.CharField(max_length=200)),
                ('kind', models.CharField(max_length=6)),
                ('verdict', models.CharField(choices=[('drift', 'Drift'), ('notice', 'Notice'), ('stable', 'Stable'), ('insufficient', 'Insufficient')], max_length=12)),
                ('importance', models.FloatField(null=True)),
                ('rows', models.PositiveBigIntegerField()),
                ('reference_rows', models.PositiveBigIntegerField()),
                ('psi', models.FloatField(null=True)),
                ('adjusted_psi', models.FloatField(null=True)),
                ('p_value', models.FloatField(null=True)),
                ('adjusted_p_value', models.FloatField(null=True)),
                ('ks', models.FloatField(null=True)),
                ('chi_square_p_value', models.FloatField(null=True)),
                ('jensen_shannon', models.FloatField(null=True)),
                ('wasserstein', models.FloatField(null=True)),
                ('missing', models.FloatField(null=True)),
                ('reference_missing', models.FloatField(null=True)),
                ('unseen', models.FloatField(null=True)),
                ('outside', models.FloatField(null=True)),
                ('bins', models.JSONField()),
                ('review', models.ForeignKey(on_delete=django.db.models.deletion.CASCADE, related_name='findings', to='predictions.driftreview')),
            ],
            options={
                'ordering': ['review', 'position'],
                'default_permissions': (),
                'constraints': [models.UniqueConstraint(fields=('review', 'column'), name='finding_once_a_column')],
            },
        ),
        migrations.CreateModel(
            name='QualityHour',
            fields=[
                ('pk', models.CompositePrimaryKey('version_id', 'hour', blank=True, editable=False, primary_key=True, serialize=False)),
                ('hour', models.DateTimeField()),
                ('rows', models.BigIntegerField()),
                ('tallies', models.JSONField()),
                ('version', models.ForeignKey(db_index=False, on_delete=django.db.models.deletion.CASCADE, related_name='+', to='training.modelversion')),
            ],
            options={
                'default_permissions': (),
            },
        ),
        migrations.CreateModel(
            name='RolledHour',
            fields=[
                ('pk', models.CompositePrimaryKey('registered_model_id', 'hour', blank=True, editable=False, primary_key=True, serialize=False)),
                ('hour', models.DateTimeField()),
                ('upto', models.UUIDField()),
                ('rows', models.BigIntegerField(default=0)),
                ('closed', models.BooleanField(default=False)),
                ('registered_model', models.ForeignKey(db_index=False, on_delete=django.db.models.deletion.CASCADE, related_name='+', to='training.registeredmodel')),
            ],
            options={
                'default_permissions': (),
            },
        ),
        migrations.CreateModel(
            name='Rollup',
            fields=[
                ('pk', models.CompositePrimaryKey('version_id', 'hour', 'column', 'bin', blank=True, editable=False, primary_key=True, serialize=False)),
                ('hour', models.DateTimeField()),
                ('column', models.CharField(max_length=200)),
                ('bin', models.SmallIntegerField()),
                ('rows', models.BigIntegerField()),
                ('total', models.FloatField(null=True)),
                ('version', models.ForeignKey(db_index=False, on_delete=django.db.models.deletion.CASCADE, related_name='+', to='training.modelversion')),
            ],
            options={
                'default_permissions': (),
            },
        ),
        migrations.RunSQL(APPEND_ONLY),
        migrations.RunSQL(REFERENCES),
        migrations.RunSQL(INPUTS),
        migrations.RunSQL(HOURS),
    ]
