"""``python -m tests.bench``: figures, not assertions.

Ratios within one run count, not the absolute figures: both programs share this machine with the load and with
devnet. Nothing else should run meanwhile.
"""

import argparse
import asyncio
from pathlib import Path

from tests.bench.core import measure_core
from tests.bench.daemons import measure_daemons
from tests.bench.exits import measure_exits
from tests.bench.lightning import measure_lightning
from tests.bench.report import Report, write_json
from tests.bench.rounds import measure_rounds
from tests.bench.scale import measure_scale
from tests.bench.sizes import LARGE, SMALL
from tests.bench.storage import measure_storage

PARTS = ("core", "storage", "daemons", "scale", "exits", "rounds", "lightning")


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tests.bench", description=__doc__)
    parser.add_argument(
        "parts", nargs="*", choices=[*PARTS, []], help="what to measure; everything by default"
    )
    parser.add_argument("--json", type=Path, help="also write the figures to this file")
    arguments = parser.parse_args()
    parts = arguments.parts or PARTS
    report = Report()
    by_size = Report("by the size of the wallet", (str(LARGE), str(SMALL)))
    try:
        if "core" in parts:
            measure_core(report)
        if "storage" in parts:
            asyncio.run(measure_storage(by_size))
        if "daemons" in parts:
            asyncio.run(measure_daemons(report))
        if "scale" in parts:
            asyncio.run(measure_scale(by_size))
        if "exits" in parts:
            asyncio.run(measure_exits(report))
        if "rounds" in parts:
            asyncio.run(measure_rounds(report))
        if "lightning" in parts:
            asyncio.run(measure_lightning(report))
    finally:
        report.show()
        by_size.show()
        if arguments.json is not None:
            write_json(arguments.json, report, by_size)


if __name__ == "__main__":
    main()
