"""The outbox: events, their order, subscriptions and deliveries."""

import django.contrib.postgres.fields
import django.contrib.postgres.functions
import django.db.models.deletion
import django.db.models.functions.datetime
from django.conf import settings
from django.db import migrations, models


class Migration(migrations.Migration):

    initial = True

    dependencies = [
        migrations.swappable_dependency(settings.AUTH_USER_MODEL),
    ]

    operations = [
        # Positions of events; see core.events.placing. A sequence never goes back, even if all events are removed.
        migrations.RunSQL(
            "CREATE SEQUENCE core_event_position AS bigint NO CYCLE", "DROP SEQUENCE core_event_position"
        ),
        migrations.CreateModel(
            name='Subscription',
            fields=[
                ('id', models.BigAutoField(auto_created=True, primary_key=True, serialize=False, verbose_name='ID')),
                ('name', models.CharField(max_length=100, unique=True)),
                ('channel', models.CharField(max_length=20)),
                ('address', models.CharField(max_length=2000)),
                ('secret', models.CharField(blank=True, max_length=200)),
                ('previous_secret', models.CharField(blank=True, max_length=200)),
                ('previous_until', models.DateTimeField(blank=True, null=True)),
                ('enabled', models.BooleanField(default=True)),
                ('disabled_reason', models.CharField(blank=True, max_length=300)),
                ('disabled_at', models.DateTimeField(blank=True, null=True)),
                ('style', models.CharField(choices=[('plain', 'plain'), ('cloudevents', 'CloudEvents names')], default='plain', max_length=12)),
                ('digest_minutes', models.PositiveIntegerField(default=0)),
                ('created_at', models.DateTimeField(db_default=django.db.models.functions.datetime.Now(), editable=False)),
                ('kinds', django.contrib.postgres.fields.ArrayField(base_field=models.CharField(max_length=50), blank=True, default=list, size=None)),
                ('models', django.contrib.postgres.fields.ArrayField(base_field=models.CharField(max_length=200), blank=True, default=list, size=None)),
                ('owner', models.ForeignKey(on_delete=django.db.models.deletion.PROTECT, related_name='+', to=settings.AUTH_USER_MODEL)),
            ],
            options={
                'ordering': ['name'],
            },
        ),
        migrations.CreateModel(
            name='Event',
            fields=[
                ('id', models.BigAutoField(auto_created=True, primary_key=True, serialize=False, verbose_name='ID')),
                ('message_id', models.UUIDField(db_default=django.contrib.postgres.functions.RandomUUID(), editable=False, unique=True)),
                ('kind', models.CharField(max_length=50)),
                ('model', models.CharField(blank=True, db_default='', max_length=200)),
                ('subject', models.CharField(max_length=300)),
                ('data', models.JSONField(db_default=models.Value({}, models.JSONField()))),
                ('at', models.DateTimeField(db_default=django.db.models.functions.datetime.Now(), editable=False)),
                ('position', models.BigIntegerField(editable=False, null=True, unique=True)),
            ],
            options={
                'ordering': ['-id'],
                'default_permissions': ('view',),
                'indexes': [models.Index(condition=models.Q(('position__isnull', True)), fields=['id'], name='event_not_placed'), models.Index(fields=['kind', '-id'], name='event_by_kind'), models.Index(fields=['model', '-id'], name='event_by_model'), models.Index(fields=['at'], name='event_by_time')],
            },
        ),
        migrations.CreateModel(
            name='SubscriptionState',
            fields=[
                ('subscription', models.OneToOneField(on_delete=django.db.models.deletion.CASCADE, primary_key=True, related_name='delivery_state', serialize=False, to='core.subscription')),
                ('owner', models.UUIDField(null=True)),
                ('until', models.DateTimeField(null=True)),
                ('delivered', models.BigIntegerField(default=0)),
                ('failed', models.BigIntegerField(default=0)),
            ],
            options={
                'default_permissions': (),
            },
        ),
        migrations.CreateModel(
            name='Delivery',
            fields=[
                ('id', models.BigAutoField(auto_created=True, primary_key=True, serialize=False, verbose_name='ID')),
                ('position', models.BigIntegerField()),
                ('state', models.CharField(choices=[('pending', 'Pending'), ('delivered', 'Delivered'), ('dead', 'dead letter')], default='pending', max_length=9)),
                ('attempts', models.PositiveSmallIntegerField(default=0)),
                ('next_at', models.DateTimeField()),
                ('error', models.TextField(blank=True)),
                ('created_at', models.DateTimeField(db_default=django.db.models.functions.datetime.Now(), editable=False)),
                ('finished_at', models.DateTimeField(blank=True, null=True)),
                ('event', models.ForeignKey(on_delete=django.db.models.deletion.CASCADE, related_name='deliveries', to='core.event')),
                ('subscription', models.ForeignKey(db_index=False, on_delete=django.db.models.deletion.CASCADE, related_name='deliveries', to='core.subscription')),
            ],
            options={
                'verbose_name_plural': 'deliveries',
                'ordering': ['-position'],
                'default_permissions': ('view',),
                'indexes': [models.Index(condition=models.Q(('state', 'pending')), fields=['subscription', 'position'], name='delivery_pending'), models.Index(condition=models.Q(('state', 'dead')), fields=['subscription', '-position'], name='delivery_dead')],
                'constraints': [models.UniqueConstraint(fields=('subscription', 'position'), name='delivery_once_a_position'), models.CheckConstraint(condition=models.Q(('state__in', ['pending', 'delivered', 'dead'])), name='delivery_state_known'), models.CheckConstraint(condition=models.Q(models.Q(('finished_at', None), ('state', 'pending')), models.Q(models.Q(('state', 'pending'), _negated=True), ('finished_at__isnull', False)), _connector='OR'), name='delivery_finished_or_pending')],
            },
        ),
    ]
