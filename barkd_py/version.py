"""The version of barkd-py, which is that of the REST contract it serves."""

from typing import Final

VERSION: Final = "0.8.0"
USER_AGENT: Final = f"barkd/{VERSION}"
"""How the daemon names itself to the Ark server, which reads it as `<name>/<version>`."""
