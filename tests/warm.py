"""What servers, commands and workers load: two seconds of a processor, spent once for all of them that tests start."""

import gc

import progress_cli.app
import progress_cli.server.run  # noqa: F401
import progress_workers  # noqa: F401

gc.freeze()  # so that no collection writes on pages that the servers share
