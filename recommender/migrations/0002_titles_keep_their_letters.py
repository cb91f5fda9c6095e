"""Keys of titles keep the marks that are letters, and a word inside a title finds it."""

from django.db import migrations

PIECE = 2_000


def key_again(apps, schema_editor):
    """Computes the keys of all titles beyond ASCII again; ASCII titles keep theirs."""
    from recommender.title_keys import key_of

    Movie = apps.get_model("recommender", "Movie")
    rows = Movie.objects.filter(title__regex=r"[^\x01-\x7f]").order_by("pk")
    changed = []
    for row in rows.only("pk", "title", "title_key").iterator(PIECE):
        key = key_of(row.title)
        if key and key != row.title_key:
            row.title_key = key
            changed.append(row)
        if len(changed) == PIECE:
            Movie.objects.bulk_update(changed, ["title_key"])
            changed = []
    Movie.objects.bulk_update(changed, ["title_key"])


class Migration(migrations.Migration):
    dependencies = [("recommender", "0001_initial")]

    operations = [
        migrations.RunPython(key_again, migrations.RunPython.noop),
        # For `catalogue.service.suggestions`: the words of a title, wherever they stand in it.
        migrations.RunSQL(
            "CREATE INDEX movie_title_words ON recommender_movie USING gin (to_tsvector('simple', title_key))",
            "DROP INDEX movie_title_words",
        ),
    ]
