"""Our protocols for an app that uvicorn runs by itself:

    uvicorn --factory progress_server.app:create_app \\
        --http progress_server.protocols.for_uvicorn:HTTP --ws progress_server.protocols.for_uvicorn:WEBSOCKET

`progress-broker serve` uses them automatically. Without them the app works too: it sends streams over the slower ASGI
outlet.
"""

from progress_server.protocols.choice import http_protocol, warn_of_missing_names, websocket_protocol

warn_of_missing_names()
HTTP = http_protocol()
WEBSOCKET = websocket_protocol()
