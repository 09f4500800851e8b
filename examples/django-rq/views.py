"""The page of imports, and the call that starts one."""

import os

from django.contrib.auth.decorators import login_required
from django.http import HttpRequest, HttpResponse, JsonResponse
from django.shortcuts import render
from django.views.decorators.http import require_POST
from jobs import import_rows
from redis import Redis

from progress_workers.queues.rq import Queue

queue = Queue("imports", connection=Redis.from_url(os.environ["PROGRESS_REDIS_URL"]))


@login_required
def imports(request: HttpRequest) -> HttpResponse:
    """Show the imports."""
    return render(request, "imports.html")


@login_required
@require_POST
def start(request: HttpRequest) -> HttpResponse:
    """Enqueue an import. Its operation has the id of the job, and belongs to the user."""
    about = {"kind": "import", "title": "Import of 300 rows", "owner": request.user.get_username()}
    job = queue.enqueue(import_rows, 300, meta={"progress": about})
    return JsonResponse({"id": job.id}, status=202)
