"""Runs the Python blocks of one page, in one namespace: a block a line on stdin, what came of it a line on stdout."""

import contextlib
import io
import json
import sys
import traceback

namespace: dict[str, object] = {"__name__": "__main__"}
sys.path.insert(0, "")
for line in sys.stdin:
    block = json.loads(line)
    printed = io.StringIO()
    failed = None
    with contextlib.redirect_stdout(printed):
        try:
            exec(compile(block["text"], block["name"], "exec"), namespace)
        except BaseException:
            failed = traceback.format_exc()
    sys.stdout.write(json.dumps({"printed": printed.getvalue(), "failed": failed}) + "\n")
    sys.stdout.flush()
