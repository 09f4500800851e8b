"""How deep JSON may nest. What is stored is shown within other objects, which orjson writes to 254 levels in all."""

import orjson


def showable(value: object) -> bool:
    """Return whether a JSON value can still be written when it stands eight levels down."""
    try:
        orjson.dumps([[[[[[[[value]]]]]]]])
    except (TypeError, ValueError):
        return False
    return True
