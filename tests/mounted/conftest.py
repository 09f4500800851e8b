"""The servers that people run apps with are many processes to start: `make frameworks` tests them."""

import os

collect_ignore = [] if "PROGRESS_FRAMEWORKS" in os.environ else ["test_servers.py"]
