"""docs/endpoints.md shows every operation with an example, and what it shows is what the API answers."""

from pathlib import Path

from barkd_py.api import generate
from tests.contract.description import operations_of
from tests.support.api_examples import EXAMPLES, page

ROOT = Path(__file__).parent.parent.parent
PAGE = ROOT / "docs" / "endpoints.md"


def test_every_operation_has_an_example() -> None:
    shown = [
        (example.method.lower(), example.path if example.path == "/ping" else f"/api/v1{example.path}")
        for example in EXAMPLES
    ]
    assert sorted(shown) == sorted(operations_of(generate.document()))


async def test_the_page_is_what_the_api_answers() -> None:
    assert PAGE.read_text() == await page(), "run make generate"


def test_almost_every_example_succeeds() -> None:
    statuses = [line for line in PAGE.read_text().splitlines() if line.startswith(("`2", "`3", "`4", "`5"))]
    assert len(statuses) == len(EXAMPLES)
    failed = [status for status in statuses if not status.startswith(("`200", "`308"))]
    # Nobody else has a hand in any VTXO, so there is nothing to refresh.
    assert failed == ["`404`"]
