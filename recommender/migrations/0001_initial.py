"""The catalogue and the interactions. What each index serves stands beside it in `recommender.models`.

Withdrawing a movie decides about answers, so it grows the generation at its commit, and so does its
re-admission: no process recommends by what it knew before. Movies that are added or changed do not; those
that are not in an index yet are looked up.
"""

import django.contrib.postgres.fields
import django.contrib.postgres.indexes
import django.core.validators
import django.db.models.deletion
import django.utils.timezone
from django.conf import settings
from django.db import migrations, models

# PostgreSQL's lower() takes one text, and its ways from a list to a text and back are not immutable.
MAKE_LOWERED = """
CREATE FUNCTION vigia_lowered(terms text[]) RETURNS text[] LANGUAGE sql IMMUTABLE STRICT PARALLEL SAFE AS $$
    SELECT coalesce(array_agg(lower(term) ORDER BY place), '{}') FROM unnest(terms) WITH ORDINALITY AS t (term, place)
$$;
"""

MAKE_GUARDS = """
-- The log and the interactions name movies by their ids. As with the append-only tables, `vigia.maintenance`
-- lets the test suite empty this one.
CREATE FUNCTION vigia_withdrawn_instead() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF TG_OP = 'UPDATE' THEN
        IF NEW.id = OLD.id THEN
            RETURN NEW;
        END IF;
        RAISE EXCEPTION 'a movie keeps its id' USING ERRCODE = 'restrict_violation';
    END IF;
    IF TG_OP = 'DELETE' AND current_setting('vigia.maintenance', true) = 'move' THEN
        RETURN OLD;
    END IF;
    IF TG_OP = 'TRUNCATE' AND current_setting('vigia.maintenance', true) = 'truncate' THEN
        RETURN NULL;
    END IF;
    RAISE EXCEPTION 'a movie is withdrawn, not deleted: % is refused', TG_OP USING ERRCODE = 'restrict_violation';
END $$;
CREATE TRIGGER stays BEFORE DELETE OR UPDATE OF id ON recommender_movie
    FOR EACH ROW EXECUTE FUNCTION vigia_withdrawn_instead();
CREATE TRIGGER stays_truncate BEFORE TRUNCATE ON recommender_movie
    FOR EACH STATEMENT EXECUTE FUNCTION vigia_withdrawn_instead();

-- Whether this is the first time in this transaction. A file may withdraw half a million movies: queued for each
-- of them, the generation's lock would hold predictions up for seconds. A savepoint that is rolled back forgets.
CREATE FUNCTION vigia_first_withdrawal() RETURNS boolean LANGUAGE plpgsql AS $$
BEGIN
    IF current_setting('vigia.withdrawn_in', true) = pg_current_xact_id()::text THEN
        RETURN false;
    END IF;
    PERFORM set_config('vigia.withdrawn_in', pg_current_xact_id()::text, true);
    RETURN true;
END $$;
-- CASE: the function must not be asked about rows that nobody withdraws.
CREATE CONSTRAINT TRIGGER grow_generation_withdrawn AFTER UPDATE ON recommender_movie
    DEFERRABLE INITIALLY DEFERRED FOR EACH ROW
    WHEN (CASE WHEN (OLD.withdrawn_at IS NULL) IS DISTINCT FROM (NEW.withdrawn_at IS NULL)
        THEN vigia_first_withdrawal() ELSE false END)
    EXECUTE FUNCTION vigia_grow_generation();

CREATE TRIGGER append_only BEFORE UPDATE OR DELETE ON recommender_interaction
    FOR EACH ROW EXECUTE FUNCTION vigia_append_only();
CREATE TRIGGER append_only_truncate BEFORE TRUNCATE ON recommender_interaction
    FOR EACH STATEMENT EXECUTE FUNCTION vigia_append_only();
"""
UNMAKE_GUARDS = """
DROP TRIGGER append_only_truncate ON recommender_interaction;
DROP TRIGGER append_only ON recommender_interaction;
DROP TRIGGER grow_generation_withdrawn ON recommender_movie;
DROP FUNCTION vigia_first_withdrawal();
DROP TRIGGER stays_truncate ON recommender_movie;
DROP TRIGGER stays ON recommender_movie;
DROP FUNCTION vigia_withdrawn_instead();
"""


class Migration(migrations.Migration):

    initial = True

    dependencies = [
        ('training', '0001_squashed_0011_profiles_written_once'),
        ('predictions', '0001_squashed_0008_changed_hours'),
        migrations.swappable_dependency(settings.AUTH_USER_MODEL),
    ]

    operations = [
        migrations.RunSQL(MAKE_LOWERED, "DROP FUNCTION vigia_lowered(text[])"),
        migrations.CreateModel(
            name='Movie',
            fields=[
                ('id', models.BigIntegerField(primary_key=True, serialize=False, validators=[django.core.validators.MinValueValidator(1)])),
                ('title', models.CharField(max_length=300)),
                ('original_title', models.CharField(blank=True, max_length=300, verbose_name='original title')),
                ('description', models.TextField(blank=True, max_length=20000)),
                ('genres', django.contrib.postgres.fields.ArrayField(base_field=models.CharField(max_length=100), blank=True, default=list, size=50)),
                ('keywords', django.contrib.postgres.fields.ArrayField(base_field=models.CharField(max_length=100), blank=True, default=list, size=500)),
                ('year', models.SmallIntegerField(blank=True, null=True, validators=[django.core.validators.MinValueValidator(1870), django.core.validators.MaxValueValidator(2100)])),
                ('language', models.CharField(blank=True, help_text='Such as en, es or pt-br.', max_length=12, validators=[django.core.validators.RegexValidator('^(?:[a-z]{2,3}(-[a-z0-9]{2,8})?)\\Z')])),
                ('popularity', models.FloatField(default=0.0, validators=[django.core.validators.MinValueValidator(0)])),
                ('rating', models.FloatField(blank=True, null=True, validators=[django.core.validators.MinValueValidator(0), django.core.validators.MaxValueValidator(10)])),
                ('votes', models.PositiveIntegerField(default=0)),
                ('runtime', models.PositiveSmallIntegerField(blank=True, help_text='Minutes.', null=True)),
                ('title_key', models.TextField(db_collation='C', editable=False)),
                ('changed_at', models.DateTimeField(default=django.utils.timezone.now, editable=False)),
                ('withdrawn_at', models.DateTimeField(blank=True, editable=False, null=True)),
            ],
            options={
                'ordering': ['id'],
                'default_permissions': ('view',),
                'indexes': [models.Index(fields=['title_key'], name='movie_title'), models.Index(condition=models.Q(('withdrawn_at__isnull', True)), fields=['-popularity', 'id'], name='movie_popular'), django.contrib.postgres.indexes.GinIndex(models.Func('genres', function='vigia_lowered', output_field=django.contrib.postgres.fields.ArrayField(base_field=models.TextField(), size=None)), name='movie_genre'), models.Index(fields=['year', 'id'], name='movie_year'), models.Index(fields=['language', 'id'], name='movie_language'), models.Index(fields=['changed_at', 'id'], name='movie_changed'), models.Index(condition=models.Q(('withdrawn_at__isnull', False)), fields=['id'], name='movie_withdrawn')],
                'constraints': [models.CheckConstraint(condition=models.Q(('id__gte', 1)), name='movie_id_from_one'), models.CheckConstraint(condition=models.Q(('title_key', ''), _negated=True), name='movie_has_a_title'), models.CheckConstraint(condition=models.Q(('year__isnull', True), ('year__range', (1870, 2100)), _connector='OR'), name='movie_year_plausible'), models.CheckConstraint(condition=models.Q(('popularity__gte', 0), ('popularity__lt', float("inf"))), name='movie_popularity_finite'), models.CheckConstraint(condition=models.Q(('rating__isnull', True), ('rating__range', (0, 10)), _connector='OR'), name='movie_rating_plausible')],
            },
        ),
        migrations.CreateModel(
            name='Interaction',
            fields=[
                ('id', models.BigAutoField(auto_created=True, primary_key=True, serialize=False, verbose_name='ID')),
                ('user', models.CharField(max_length=200, null=True)),
                ('kind', models.CharField(choices=[('clicked', 'Clicked'), ('watched', 'Watched'), ('liked', 'Liked'), ('disliked', 'Disliked')], max_length=8)),
                ('recommendation', models.UUIDField(null=True)),
                ('rank', models.PositiveSmallIntegerField(null=True)),
                ('at', models.DateTimeField()),
                ('received_at', models.DateTimeField(default=django.utils.timezone.now, editable=False)),
                ('client', models.ForeignKey(db_index=False, null=True, on_delete=django.db.models.deletion.PROTECT, related_name='+', to=settings.AUTH_USER_MODEL)),
                ('version', models.ForeignKey(db_index=False, null=True, on_delete=django.db.models.deletion.PROTECT, related_name='interactions', to='training.modelversion')),
                ('movie', models.ForeignKey(db_index=False, on_delete=django.db.models.deletion.PROTECT, related_name='interactions', to='recommender.movie')),
            ],
            options={
                'ordering': ['-id'],
                'default_permissions': ('view',),
                'indexes': [models.Index(condition=models.Q(('user__isnull', False)), fields=['user', '-at'], name='interaction_user'), models.Index(fields=['movie', '-id'], name='interaction_movie'), models.Index(condition=models.Q(('version__isnull', False)), fields=['version', 'at'], name='interaction_version'), models.Index(condition=models.Q(('client__isnull', False)), fields=['client'], name='interaction_client')],
                'constraints': [models.CheckConstraint(condition=models.Q(('user__isnull', False), ('recommendation__isnull', False), _connector='OR'), name='interaction_of_somebody'), models.CheckConstraint(condition=models.Q(('user', ''), _negated=True), name='interaction_user_named'), models.CheckConstraint(condition=models.Q(('kind__in', ['clicked', 'watched', 'liked', 'disliked'])), name='interaction_kind_known'), models.UniqueConstraint(condition=models.Q(('recommendation__isnull', False)), fields=('recommendation', 'movie', 'kind'), name='interaction_feedback_once'), models.UniqueConstraint(condition=models.Q(('recommendation__isnull', True)), fields=('user', 'movie', 'kind', 'at'), name='interaction_once')],
            },
        ),
        migrations.RunSQL(MAKE_GUARDS, UNMAKE_GUARDS),
    ]
