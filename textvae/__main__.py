"""``python -m textvae``."""

import os
import sys

from textvae.cli.main import main

status = main()
if int(os.environ.get("WORLD_SIZE", "1")) > 1:
    # One of several processes: threads of their group can abort the interpreter's orderly exit
    # ("terminate called without an active exception", seen with gloo) when all work is done.
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(status)
sys.exit(status)
