"""Whether the daemon in this container answers. Exit code 0 if it does."""

import os
import sys
from urllib.request import urlopen

PORT = os.environ.get("BARKD_BIND_PORT", "3000")

try:
    with urlopen(f"http://127.0.0.1:{PORT}/ping", timeout=4) as answer:
        sys.exit(0 if answer.read() == b"pong" else 1)
except OSError as error:
    sys.exit(f"barkd does not answer: {error}")
