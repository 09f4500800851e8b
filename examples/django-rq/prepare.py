"""Makes the database, and the users alice and bob, whose passwords are their names."""

import os

import django
from django.core.management import call_command

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "settings")
django.setup()
call_command("migrate", verbosity=0)

# After it, because models need Django's apps.
from django.contrib.auth.models import User

for name in ("alice", "bob"):
    if not User.objects.filter(username=name).exists():
        User.objects.create_user(name, password=name)
