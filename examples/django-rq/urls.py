"""The pages."""

from django.contrib.auth.views import LoginView, LogoutView
from django.urls import path
from views import imports, start

urlpatterns = [
    path("", imports),
    path("imports", start),
    path("sign-in", LoginView.as_view(), name="sign-in"),
    path("sign-out", LogoutView.as_view(), name="sign-out"),
]
