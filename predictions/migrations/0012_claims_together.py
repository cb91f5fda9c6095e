"""Several claims behind one fence: requests with idempotency keys share a commit like all others.

One claim that is taken already raises for all of them, and the writer then writes each by itself. Claims are
taken in order of client and key, so that two groups with the same keys never wait for each other.
"""

from django.db import migrations

MAKE = """
CREATE FUNCTION vigia_fence_and_claims(
    expected bigint, clients integer[], names text[], sha256s text[], answers text[], hours integer
) RETURNS boolean LANGUAGE plpgsql AS $$
DECLARE
    usual text := current_setting('lock_timeout');
BEGIN
    PERFORM vigia_fence(expected, false);
    PERFORM set_config('lock_timeout', '1s', true);
    PERFORM vigia_claim(each.client, each.name, each.sha256, each.answer, hours)
        FROM (
            SELECT * FROM unnest(clients, names, sha256s, answers) AS given (client, name, sha256, answer)
            ORDER BY client, name
        ) AS each;
    PERFORM set_config('lock_timeout', usual, true);
    RETURN true;
END $$;
"""
UNMAKE = "DROP FUNCTION vigia_fence_and_claims(bigint, integer[], text[], text[], text[], integer);"


class Migration(migrations.Migration):
    dependencies = [("predictions", "0011_activations_at_the_fence")]

    operations = [migrations.RunSQL(MAKE, UNMAKE)]
