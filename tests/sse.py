"""A plain reader of event streams, by the letter of the WHATWG HTML standard, 9.2.6."""

from dataclasses import dataclass, field
from typing import Any

import orjson


@dataclass
class Message:
    type: str
    data: str
    id: str
    json: Any = field(init=False)

    def __post_init__(self) -> None:
        self.json = orjson.loads(self.data)


def read(stream: bytes) -> list[Message]:
    """Return the events of a whole stream."""
    text = stream.decode("utf-8", "replace").removeprefix("\ufeff")
    lines = text.replace("\r\n", "\n").replace("\r", "\n").split("\n")
    messages: list[Message] = []
    data: list[str] = []
    type = identifier = ""
    for line in lines[:-1]:  # what no line end follows is no line
        if line == "":
            if data:
                messages.append(Message(type or "message", "\n".join(data), identifier))
            data, type = [], ""
            continue
        name, colon, value = line.partition(":")
        value = value.removeprefix(" ") if colon else ""
        if name == "data":
            data.append(value)
        elif name == "event":
            type = value
        elif name == "id" and "\0" not in value:
            identifier = value
    return messages


def published(stream: bytes) -> list[Message]:
    """Return the events without bookmarks, which only move the position."""
    return [message for message in read(stream) if message.type != "bookmark"]
