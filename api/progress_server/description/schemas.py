"""The schemas of models, under one path of a document that they refer to each other by."""

from collections.abc import Iterable
from typing import Any

from pydantic import BaseModel
from pydantic.json_schema import models_json_schema

from progress_broker.model.payloads import Failure, Progress

Schema = dict[str, Any]

REF = "#/components/schemas/"


def ref(name: str) -> Schema:
    """Return a reference to a schema."""
    return {"$ref": REF + name}


def schemas_of(models: Iterable[type[BaseModel]]) -> dict[str, Schema]:
    """Return the schemas of models, and of all that they refer to, by name."""
    asked = [(model, "serialization") for model in dict.fromkeys((*models, Progress, Failure))]
    _, document = models_json_schema(asked, ref_template=REF + "{model}")  # type: ignore[arg-type]
    found: dict[str, Schema] = document["$defs"]
    if "Operation" in found:
        type_operation(found["Operation"])
    return found


def type_operation(schema: Schema) -> None:
    """Say what an operation's progress and error are. Its model keeps them as they came."""
    fields = schema["properties"]
    rolled_up = {"description": "Whether `percent` is that of its children.", "type": "boolean"}
    shown = {"allOf": [ref("Progress")], "type": "object", "properties": {"rolled_up": rolled_up}}
    fields["progress"] = {"anyOf": [shown, {"type": "null"}], "title": "Progress"}
    fields["error"] = {"anyOf": [ref("Failure"), {"type": "null"}], "title": "Error"}


def one_of(envelopes: Iterable[type[BaseModel]]) -> Schema:
    """Return the schema of any of these envelopes.

    Their `type` tells which; but no discriminator can list the types that publishers make up.
    """
    return {"oneOf": [ref(kind.__name__) for kind in envelopes]}
