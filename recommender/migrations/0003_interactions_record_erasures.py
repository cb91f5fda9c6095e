"""Records the interactions that are erased; see `predictions.migrations.0014_erasures`."""

from django.db import migrations

MAKE = """
CREATE TRIGGER record_erasure AFTER DELETE ON recommender_interaction
    FOR EACH ROW EXECUTE FUNCTION vigia_record_erasure('interaction', 'id', 'received_at');
"""


class Migration(migrations.Migration):
    dependencies = [
        ("recommender", "0002_titles_keep_their_letters"),
        ("predictions", "0014_erasures"),
    ]

    operations = [
        migrations.RunSQL(MAKE, "DROP TRIGGER record_erasure ON recommender_interaction;"),
    ]
