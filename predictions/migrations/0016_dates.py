
from django.db import migrations, models


class Migration(migrations.Migration):

    dependencies = [
        ('predictions', '0015_ascending_indexes'),
    ]

    operations = [
        migrations.AlterField(
            model_name='driftfinding',
            name='kind',
            field=models.CharField(max_length=8),
        ),
    ]
