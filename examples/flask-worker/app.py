"""A Flask app: sign in, start an import, watch it, cancel it. It signs tokens for the progress server."""

import os
import time

import jwt
from flask import Flask, Response, abort, redirect, render_template, request, session
from redis import Redis

from progress_workers import Operation

PASSWORDS = {"alice": "alice", "bob": "bob"}  # yours: hashes, in a database
TOKEN_S = 300

app = Flask(__name__)
app.secret_key = os.environ["SECRET_KEY"]
app.config["SESSION_COOKIE_SAMESITE"] = "Lax"
jobs = Redis.from_url(os.environ["PROGRESS_REDIS_URL"])


def user() -> str:
    """Return the name of the signed-in user, or answer 401."""
    return session.get("user") or abort(401)


@app.get("/")
def page() -> str:
    """Show the imports, or the form to sign in."""
    server = f"http://127.0.0.1:{os.environ['PROGRESS_PORT']}"
    return render_template("imports.html" if "user" in session else "sign-in.html", server=server)


@app.post("/sign-in")
def sign_in() -> Response:
    """Check a password, and remember the user in the session."""
    name = request.form["name"]
    if PASSWORDS.get(name) != request.form["password"]:
        abort(403)
    session["user"] = name
    return redirect("/", 303)


@app.post("/sign-out")
def sign_out() -> Response:
    """Forget the user."""
    session.clear()
    return redirect("/", 303)


@app.get("/progress-token")
def token() -> str:
    """Return a token for the progress server: the user may read and cancel what it owns, for some minutes."""
    claims = {"sub": user(), "scope": "read cancel", "exp": int(time.time()) + TOKEN_S}
    return jwt.encode(claims, os.environ["PROGRESS_JWT_KEY"], algorithm="HS256")


@app.post("/imports")
def start() -> tuple[dict[str, str], int]:
    """Create an operation of the user, and leave the work to the worker."""
    id = Operation.create("import", title="Import of 300 rows", owner=user())
    jobs.lpush("imports", id)
    return {"id": id}, 202
