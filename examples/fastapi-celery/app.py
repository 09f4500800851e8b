"""A FastAPI app: sign in, start an import, watch it, cancel it."""

import os
from pathlib import Path
from typing import Annotated

from fastapi import Depends, FastAPI, Form, HTTPException, Request
from fastapi.responses import FileResponse, RedirectResponse
from starlette.middleware.sessions import SessionMiddleware
from tasks import import_rows

from progress_server import Progress

PASSWORDS = {"alice": "alice", "bob": "bob"}  # yours: hashes, in a database
PAGES = Path(__file__).parent


async def signed_in(request: Request) -> str | None:
    """Return the name of the user whose session cookie came, or None."""
    name: str | None = request.session.get("user")
    return name


async def user_of(name: Annotated[str | None, Depends(signed_in)]) -> str:
    """Return the name of the user, or answer 401."""
    if name is None:
        raise HTTPException(401, "sign in first")
    return name


progress = Progress(authenticate=signed_in)
app = FastAPI(lifespan=progress.lifespan)
app.add_middleware(SessionMiddleware, secret_key=os.environ["SECRET_KEY"])
app.mount("/progress", progress.app)


@app.get("/")
async def page(name: Annotated[str | None, Depends(signed_in)]) -> FileResponse:
    """Show the imports, or the form to sign in."""
    return FileResponse(PAGES / ("sign-in.html" if name is None else "imports.html"))


@app.post("/sign-in")
async def sign_in(request: Request, name: Annotated[str, Form()], password: Annotated[str, Form()]) -> RedirectResponse:
    """Check a password, and remember the user in the session."""
    if PASSWORDS.get(name) != password:
        raise HTTPException(403, "wrong name or password")
    request.session["user"] = name
    return RedirectResponse("/", 303)


@app.post("/sign-out")
async def sign_out(request: Request) -> RedirectResponse:
    """Forget the user."""
    request.session.clear()
    return RedirectResponse("/", 303)


@app.post("/imports", status_code=202)
def start(user: Annotated[str, Depends(user_of)]) -> dict[str, str]:
    """Enqueue an import. Its operation has the id of the task, and belongs to the user."""
    about = {"kind": "import", "title": "Import of 300 rows", "owner": user}
    return {"id": import_rows.apply_async([300], headers={"progress": about}).id}
