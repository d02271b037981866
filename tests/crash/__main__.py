"""Every flow, killed at every point that it has, and under every trouble; writes docs/reliability.md.

    python -m tests.crash [--afresh | --missing] [--without-look-ups] [--processes N]
                          [--flows NAME,NAME] [--parts all|kills|troubles] [--troubles NAME,NAME]
                          [--at-most N] [--seed S] [--results FILE] [--list]

``--afresh`` forgets what was tried before, so that every row of the tables is of one commit. Each run is
noted as it ends, so that what was interrupted may go on with ``--missing``. Each flow has a world of its own,
and there are as many worlds at a time as processes. Each violation is printed, and the exit code is 1 if
there was one.
"""

import argparse
import asyncio
import signal
import sys
from pathlib import Path

from tests.crash import report
from tests.crash.flows import FLOWS
from tests.crash.suite import list_points, share_out


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tests.crash", description=__doc__)
    parser.add_argument("--flows", help="names, separated by commas; all by default")
    parser.add_argument("--troubles", help="names, separated by commas; all by default")
    parser.add_argument("--at-most", type=int, help="points of each flow, chosen at random")
    parser.add_argument("--parts", choices=["all", "kills", "troubles"], default="all")
    parser.add_argument("--processes", type=int, default=2, help="flows at a time")
    parser.add_argument("--seed", type=int, default=1)
    which = parser.add_mutually_exclusive_group()
    which.add_argument("--missing", action="store_true", help="only what has not struck without a violation")
    which.add_argument("--afresh", action="store_true", help="forget what was tried before")
    parser.add_argument("--without-look-ups", action="store_true", help="not where it reads the chain")
    parser.add_argument("--results", type=Path, help="note runs there, and write no document")
    parser.add_argument("--list", action="store_true", help="say where flows can be killed, and kill none")
    options = parser.parse_args()
    names = options.flows.split(",") if options.flows else [flow.name for flow in FLOWS]
    flows = [flow for name in names for flow in FLOWS if flow.name == name]
    if len(flows) != len(names):
        parser.error(f"the flows are {', '.join(flow.name for flow in FLOWS)}")
    if options.list:
        for flow in flows:
            asyncio.run(list_points(flow))
        return
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))
    results = options.results or report.RESULTS
    before = 0 if options.afresh else report.noted(results)
    went_well = share_out(options, flows, results)
    print(report.table(report.recorded(results, before)))
    if options.results is None:
        report.write_document()
    sys.exit(not went_well)


if __name__ == "__main__":
    main()
