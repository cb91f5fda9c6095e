"""Fence and claim in one step that nobody can make long.

The writer sends rows and claim in one statement, which PostgreSQL begins to execute when all of it has come:
no client is waited for while the fence or a claim is held. A claim waits for another of the same name only so
long as that one needs to be committed; when it takes longer, PostgreSQL is in trouble, and the other
predictions of the process must not wait for it.
"""

from django.db import migrations

MAKE = """
ALTER FUNCTION vigia_claim(integer, text, text, text, integer) SET lock_timeout = '1s';

-- The fence first, always: two sessions that took them in different orders could wait for each other.
CREATE FUNCTION vigia_fence_and_claim(
    expected bigint, client integer, name text, sha256 text, stored text, hours integer
) RETURNS boolean LANGUAGE plpgsql AS $$
BEGIN
    PERFORM vigia_fence(expected, false);
    RETURN vigia_claim(client, name, sha256, stored, hours);
END $$;
"""
UNMAKE = """
DROP FUNCTION vigia_fence_and_claim(bigint, integer, text, text, text, integer);
ALTER FUNCTION vigia_claim(integer, text, text, text, integer) RESET lock_timeout;
"""


class Migration(migrations.Migration):
    dependencies = [("predictions", "0008_changed_hours")]

    operations = [migrations.RunSQL(MAKE, UNMAKE)]
