"""A Django app with the server beside it. Its only user is alice."""

import os

import django
from django.conf import settings

settings.configure(
    SECRET_KEY="for tests only, and long enough for all checks of it",
    ALLOWED_HOSTS=["*"],
    ROOT_URLCONF=__name__,
    INSTALLED_APPS=["django.contrib.auth", "django.contrib.contenttypes", "django.contrib.sessions"],
    MIDDLEWARE=[
        "django.contrib.sessions.middleware.SessionMiddleware",
        "django.contrib.auth.middleware.AuthenticationMiddleware",
    ],
    DATABASES={"default": {"ENGINE": "django.db.backends.sqlite3", "NAME": os.environ["DB"]}},
    USE_TZ=True,
)
django.setup()

from django.contrib.auth import alogin  # noqa: E402
from django.contrib.auth.models import User  # noqa: E402
from django.core.asgi import get_asgi_application  # noqa: E402
from django.core.management import call_command  # noqa: E402
from django.http import HttpRequest, HttpResponse, JsonResponse  # noqa: E402
from django.urls import path  # noqa: E402

from progress_server import Progress  # noqa: E402
from progress_server.mounted.django import session_user  # noqa: E402

call_command("migrate", verbosity=0)
User.objects.get_or_create(username="alice")
progress = Progress(authenticate=session_user)


async def sign_in(request: HttpRequest) -> HttpResponse:
    await alogin(request, await User.objects.aget(username="alice"))
    return HttpResponse()


async def start(request: HttpRequest, id: str) -> HttpResponse:
    return JsonResponse((await progress.operations.create(id=id, owner="alice")).id, safe=False)


async def say(request: HttpRequest, id: str, text: str) -> HttpResponse:
    return JsonResponse((await progress.operations.publish(id, "log", {"message": text})).events, safe=False)


urlpatterns = [path("sign-in", sign_in), path("start/<id>", start), path("say/<id>/<text>", say)]
application = progress.around(get_asgi_application())
