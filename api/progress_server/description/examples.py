"""Examples of calls, by the id of the call, in the form that most viewers of OpenAPI show (`x-codeSamples`)."""

Example = dict[str, str]


def _curl(source: str) -> Example:
    return {"lang": "Shell", "label": "curl", "source": source}


def _event_source(source: str) -> Example:
    return {"lang": "JavaScript", "label": "EventSource", "source": source}


EXAMPLES: dict[str, list[Example]] = {
    "create": [
        _curl(
            """\
curl -H "Authorization: Bearer $TOKEN" http://127.0.0.1:8000/v1/operations \\
  -d '{"id": "import-42", "kind": "import", "title": "Import customers"}'"""
        )
    ],
    "publish": [
        _curl(
            """\
curl -H "Authorization: Bearer $TOKEN" http://127.0.0.1:8000/v1/operations/import-42/events \\
  -d '{"type": "progress", "data": {"current": 42, "total": 100}}'"""
        )
    ],
    "history": [
        _curl(
            """\
curl -H "Authorization: Bearer $TOKEN" \\
  'http://127.0.0.1:8000/v1/operations/import-42/events?after=1795231360001-0&wait=30'"""
        )
    ],
    "stream": [
        _curl(
            """\
curl -N -H "Authorization: Bearer $TOKEN" -H 'Last-Event-ID: 1795231360001-0' \\
  http://127.0.0.1:8000/v1/operations/import-42/stream"""
        ),
        _event_source(
            """\
const source = new EventSource('/v1/operations/import-42/stream?ticket=' + ticket);
source.addEventListener('snapshot', (message) => show(JSON.parse(message.data).data));
source.addEventListener('progress', (message) => showProgress(JSON.parse(message.data).data));
source.addEventListener('end', (message) => { showEnd(JSON.parse(message.data).data); source.close(); });"""
        ),
    ],
    "multi_stream": [
        _curl(
            """\
curl -N -H "Authorization: Bearer $TOKEN" \\
  'http://127.0.0.1:8000/v1/stream?operation=import-42&operation=import-43'"""
        ),
        _event_source(
            """\
const source = new EventSource('/v1/stream?owner=alice&ticket=' + ticket);
source.addEventListener('operations', (message) => begin(JSON.parse(message.data).operations));
for (const type of ['snapshot', 'progress', 'end']) {
  source.addEventListener(type, (message) => {
    const { operation, data } = JSON.parse(message.data);
    show(operation, type, data);
  });
}"""
        ),
    ],
}
