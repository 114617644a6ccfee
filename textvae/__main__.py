"""``python -m textvae``."""

import os
import sys

from textvae.cli.main import main

status = main()
if int(os.environ.get("WORLD_SIZE", "1")) > 1:
    # With several processes, threads of the process group can abort the interpreter's normal exit
    # after all work is done ("terminate called without an active exception", seen with gloo).
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(status)
sys.exit(status)
