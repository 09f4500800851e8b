"""Django, and the progress server around it at /progress."""

import os

from django.core.asgi import get_asgi_application

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "settings")
application = get_asgi_application()

# After it, because these need Django's apps.
from progress_server import Progress
from progress_server.mounted.django import session_user

progress = Progress(authenticate=session_user)
application = progress.around(application, at="/progress")
