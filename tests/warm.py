"""What a server loads before it serves: two seconds of a processor, spent once for all the servers that tests start."""

import gc

import progress_cli.app
import progress_cli.server.run  # noqa: F401

gc.freeze()  # so that no collection writes on pages that the servers share
