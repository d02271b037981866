"""``python -m barkd_py.devnet.child ARGUMENTS``: ``barkd ARGUMENTS``, which ends when its parent does.

The other end of its standard input tells: the kernel closes that however the parent goes, even killed.
"""

import os
import runpy
import signal
import threading


def _stop_at_end_of_input() -> None:
    while os.read(0, 1024):
        pass
    os.kill(os.getpid(), signal.SIGTERM)


if __name__ == "__main__":
    threading.Thread(target=_stop_at_end_of_input, daemon=True).start()
    runpy.run_module("barkd_py.cli", run_name="__main__")
