"""Archived models, versions and datasets, their audit, and the bytes that clients have stored."""

import django.db.models.deletion
import django.utils.timezone
from django.conf import settings
from django.db import migrations, models

VERSIONS = """
CREATE OR REPLACE FUNCTION vigia_version_written_once() RETURNS trigger LANGUAGE plpgsql AS $$
DECLARE
    changing text[] := ARRAY[{columns}];
BEGIN
    IF to_jsonb(NEW) - changing IS DISTINCT FROM to_jsonb(OLD) - changing THEN
        RAISE EXCEPTION 'a model version is written once: only its status may change'
            USING ERRCODE = 'restrict_violation';
    END IF;
    RETURN NEW;
END $$;
"""
# An archived version or model answers no request from the commit on.
GENERATION = "".join(
    f"CREATE CONSTRAINT TRIGGER grow_generation_archived AFTER UPDATE ON {table} DEFERRABLE INITIALLY DEFERRED "
    "FOR EACH ROW WHEN (OLD.archived_at IS DISTINCT FROM NEW.archived_at) EXECUTE FUNCTION vigia_grow_generation();"
    for table in ("training_registeredmodel", "training_modelversion")
)
NO_GENERATION = "".join(
    f"DROP TRIGGER grow_generation_archived ON {table};"
    for table in ("training_registeredmodel", "training_modelversion")
)
APPEND_ONLY = """
CREATE TRIGGER append_only BEFORE UPDATE OR DELETE ON training_archival
    FOR EACH ROW EXECUTE FUNCTION vigia_append_only();
CREATE TRIGGER append_only_truncate BEFORE TRUNCATE ON training_archival
    FOR EACH STATEMENT EXECUTE FUNCTION vigia_append_only();
"""
NOT_APPEND_ONLY = """
DROP TRIGGER append_only_truncate ON training_archival;
DROP TRIGGER append_only ON training_archival;
"""


class Migration(migrations.Migration):

    dependencies = [
        ('training', '0016_origins'),
        ('predictions', '0014_erasures'),  # vigia_append_only
        migrations.swappable_dependency(settings.AUTH_USER_MODEL),
    ]

    operations = [
        migrations.CreateModel(
            name='Archival',
            fields=[
                ('id', models.BigAutoField(auto_created=True, primary_key=True, serialize=False, verbose_name='ID')),
                ('action', models.CharField(choices=[('archive', 'archived'), ('restore', 'restored'), ('delete_bytes', 'bytes deleted')], max_length=12)),
                ('reason', models.CharField(max_length=500)),
                ('freed', models.PositiveBigIntegerField(default=0)),
                ('at', models.DateTimeField(default=django.utils.timezone.now, editable=False)),
            ],
            options={
                'ordering': ['-id'],
                'default_permissions': ('view',),
            },
        ),
        migrations.CreateModel(
            name='StoredUpload',
            fields=[
                ('id', models.BigAutoField(auto_created=True, primary_key=True, serialize=False, verbose_name='ID')),
                ('key', models.CharField(blank=True, max_length=25)),
                ('kind', models.CharField(choices=[('upload', 'training rows'), ('push', 'pushed version')], max_length=6)),
                ('size', models.PositiveBigIntegerField()),
                ('at', models.DateTimeField(default=django.utils.timezone.now, editable=False)),
            ],
            options={
                'default_permissions': (),
            },
        ),
        migrations.AddField(
            model_name='dataset',
            name='archived_at',
            field=models.DateTimeField(blank=True, editable=False, null=True),
        ),
        migrations.AddField(
            model_name='dataset',
            name='deleted_at',
            field=models.DateTimeField(blank=True, editable=False, help_text='Time when the file was deleted from the store.', null=True),
        ),
        migrations.AddField(
            model_name='modelversion',
            name='archived_at',
            field=models.DateTimeField(blank=True, editable=False, null=True),
        ),
        migrations.AddField(
            model_name='registeredmodel',
            name='archived_at',
            field=models.DateTimeField(blank=True, editable=False, null=True),
        ),
        migrations.AddConstraint(
            model_name='modelversion',
            constraint=models.CheckConstraint(condition=models.Q(('archived_at', None), models.Q(('status', 'active'), _negated=True), _connector='OR'), name='version_active_not_archived'),
        ),
        migrations.AddField(
            model_name='archival',
            name='by',
            field=models.ForeignKey(blank=True, null=True, on_delete=django.db.models.deletion.PROTECT, related_name='+', to=settings.AUTH_USER_MODEL),
        ),
        migrations.AddField(
            model_name='archival',
            name='dataset',
            field=models.ForeignKey(blank=True, null=True, on_delete=django.db.models.deletion.PROTECT, related_name='archivals', to='training.dataset'),
        ),
        migrations.AddField(
            model_name='archival',
            name='registered_model',
            field=models.ForeignKey(on_delete=django.db.models.deletion.PROTECT, related_name='archivals', to='training.registeredmodel'),
        ),
        migrations.AddField(
            model_name='archival',
            name='version',
            field=models.ForeignKey(blank=True, null=True, on_delete=django.db.models.deletion.PROTECT, related_name='archivals', to='training.modelversion'),
        ),
        migrations.AddField(
            model_name='storedupload',
            name='client',
            field=models.ForeignKey(on_delete=django.db.models.deletion.CASCADE, related_name='+', to=settings.AUTH_USER_MODEL),
        ),
        migrations.AddConstraint(
            model_name='archival',
            constraint=models.CheckConstraint(condition=models.Q(('version', None), ('dataset', None), _connector='OR'), name='archival_of_one_thing'),
        ),
        migrations.AddIndex(
            model_name='storedupload',
            index=models.Index(fields=['client', 'key', 'at'], name='stored_upload_by_key'),
        ),
        migrations.RunSQL(
            VERSIONS.replace("{columns}", "'status', 'archived_at'"), VERSIONS.replace("{columns}", "'status'")
        ),
        migrations.RunSQL(GENERATION, NO_GENERATION),
        migrations.RunSQL(APPEND_ONLY, NOT_APPEND_ONLY),
    ]
