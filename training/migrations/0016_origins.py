"""Versions that come from elsewhere: their origin, their classes, and the models that a push or an import creates."""

from django.db import migrations, models

# A change of the switch binds every process at once, as a change of the active version does.
SWITCH = """
CREATE CONSTRAINT TRIGGER grow_generation_probabilities AFTER UPDATE ON training_registeredmodel
    DEFERRABLE INITIALLY DEFERRED FOR EACH ROW
    WHEN (OLD.answers_probabilities IS DISTINCT FROM NEW.answers_probabilities)
    EXECUTE FUNCTION vigia_grow_generation();
"""
NO_SWITCH = "DROP TRIGGER grow_generation_probabilities ON training_registeredmodel"


class Migration(migrations.Migration):

    dependencies = [
        ('training', '0015_wording'),
    ]

    operations = [
        migrations.AlterModelOptions(
            name='registeredmodel',
            options={'ordering': ['name'], 'permissions': (('predict', 'Can ask for predictions'), ('give_outcomes', 'Can give outcomes'), ('train', 'Can request training runs and evaluations'), ('activate', 'Can activate and roll back versions'), ('read_log', 'Can read the prediction log'), ('push', 'Can push versions of models')), 'verbose_name': 'model'},
        ),
        migrations.AddField(
            model_name='modelversion',
            name='classes',
            field=models.JSONField(blank=True, help_text="Classes in the order of the engine's probabilities; null for numbers and old versions.", null=True),
        ),
        migrations.AddField(
            model_name='modelversion',
            name='origin',
            field=models.CharField(choices=[('trained', 'trained by this service'), ('pushed', 'pushed by a client as a compiled graph'), ('imported', 'imported by a command as a compiled graph')], db_default='trained', default='trained', max_length=10),
        ),
        migrations.AddField(
            model_name='registeredmodel',
            name='answers_probabilities',
            field=models.BooleanField(db_default=True, default=True, help_text='Answers and log hold the probability of every class; off for hundreds of classes.', verbose_name="answer with every class's probability"),
        ),
        migrations.AddField(
            model_name='registeredmodel',
            name='declared',
            field=models.JSONField(blank=True, editable=False, null=True),
        ),
        migrations.AddField(
            model_name='trainingrun',
            name='origin',
            field=models.CharField(choices=[('trained', 'trained by this service'), ('pushed', 'pushed by a client as a compiled graph'), ('imported', 'imported by a command as a compiled graph')], db_default='trained', default='trained', max_length=10),
        ),
        migrations.RunSQL(SWITCH, NO_SWITCH),
    ]
