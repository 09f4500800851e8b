"""A replica in a child process. It answers questions of its parent until the parent exits."""

import asyncio
from collections.abc import Callable
from multiprocessing.connection import Connection
from socket import socket
from typing import Any

from progress_server.server.server import Server


async def serve_and_answer(
    pipe: Connection, app: Any, server: Server, listener: socket, answer: Callable[[str], Any]
) -> None:
    """Serve on the listener, and answer questions from the pipe."""
    loop, ended = asyncio.get_running_loop(), asyncio.Event()
    serving = asyncio.create_task(server.run_on(listener))
    while not server.started:  # noqa: ASYNC110 - uvicorn reports it in no other way
        await asyncio.sleep(0.01)

    def on_question() -> None:
        try:
            (question,) = pipe.recv()
            pipe.send(answer(question))
        except (EOFError, BrokenPipeError):
            loop.remove_reader(pipe.fileno())
            ended.set()

    loop.add_reader(pipe.fileno(), on_question)
    pipe.send("ready")
    await ended.wait()
    server.should_exit = True
    app.state.context.hub.drain()
    await serving
