"""Events of keys, written by the database, and the versions that web processes cannot load.

Keys are created and removed by the API's commands, the admin, knox's own views, the removal of their users, erasures
after a restore, and plain SQL, one by one and in bulk. Only a trigger sees them all, in the same transaction.
"""

import django.db.models.deletion
import django.utils.timezone
from django.db import migrations, models


# An event holds the first characters of a key, as the admin shows them, and no hash.
KEYS = """
CREATE FUNCTION vigia_emit_key(kind text, token knox_authtoken) RETURNS void LANGUAGE plpgsql AS $$
DECLARE
    beginning text := left(token.token_key, 8);
    client text := coalesce((SELECT username FROM auth_user WHERE id = token.user_id), 'a removed user');
BEGIN
    INSERT INTO core_event (kind, subject, data) VALUES (
        kind,
        format('key %s… of %s', beginning, client),
        jsonb_build_object('client', client, 'key', beginning) || CASE kind
            WHEN 'key.created' THEN jsonb_build_object('expires', token.expiry)
            ELSE jsonb_build_object('expired', coalesce(token.expiry <= clock_timestamp(), false))
        END
    );
END $$;

CREATE FUNCTION vigia_key_event() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF TG_OP = 'INSERT' THEN
        PERFORM vigia_emit_key('key.created', NEW);
    ELSIF TG_OP = 'DELETE' THEN
        PERFORM vigia_emit_key('key.revoked', OLD);
    ELSE
        PERFORM vigia_emit_key('key.revoked', token) FROM knox_authtoken token;
    END IF;
    RETURN NULL;
END $$;

CREATE TRIGGER emit_event AFTER INSERT OR DELETE ON knox_authtoken
    FOR EACH ROW EXECUTE FUNCTION vigia_key_event();
CREATE TRIGGER emit_event_truncate BEFORE TRUNCATE ON knox_authtoken
    FOR EACH STATEMENT EXECUTE FUNCTION vigia_key_event();
"""
NO_KEYS = """
DROP TRIGGER emit_event_truncate ON knox_authtoken;
DROP TRIGGER emit_event ON knox_authtoken;
DROP FUNCTION vigia_key_event();
DROP FUNCTION vigia_emit_key(text, knox_authtoken);
"""


class Migration(migrations.Migration):

    dependencies = [
        ("core", "0001_events"),
        ('training', '0018_graphs_of_pushes'),
    ]

    operations = [
        migrations.RunSQL(KEYS, NO_KEYS),
        migrations.CreateModel(
            name='UnusableArtifact',
            fields=[
                ('version', models.OneToOneField(on_delete=django.db.models.deletion.CASCADE, primary_key=True, related_name='unusable', serialize=False, to='training.modelversion')),
                ('reason', models.TextField()),
                ('by_check', models.BooleanField()),
                ('since', models.DateTimeField(default=django.utils.timezone.now, editable=False)),
            ],
            options={
                'default_permissions': (),
            },
        ),
    ]
