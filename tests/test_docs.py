"""The pages for people: what they link to is there, and the glossary has the words that the others use."""

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
PAGES = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md")])
LINK = re.compile(r"\]\(([^)\s]+)\)")


def _anchors(page: Path) -> set[str]:
    """Of its headings, as GitHub makes them."""
    headings = re.findall(r"^#+ (.+)$", page.read_text(), re.M)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_links_lead_somewhere(page: Path) -> None:
    prose = re.sub(r"```.*?```|`[^`\n]*`", "", page.read_text(), flags=re.S)
    for target in LINK.findall(prose):
        if "://" in target:
            continue
        path, _, anchor = target.partition("#")
        linked = page if not path else (page.parent / path).resolve()
        assert linked.exists(), target
        if anchor:
            assert anchor in _anchors(linked), target


def test_the_glossary_explains_the_words_of_the_protocol() -> None:
    glossary = (ROOT / "docs" / "glossary.md").read_text()
    explained = {
        term.strip().lower()
        for terms in re.findall(r"^\| (\*\*.+?) \| \S", glossary, re.M)
        for term in terms.replace("*", "").split(",")
    }
    words = {
        "vtxo",
        "arkoor",
        "board",
        "offboard",
        "round",
        "refresh",
        "forfeit",
        "connector",
        "genesis",
        "exit",
    }
    words |= {
        "claim",
        "cpfp",
        "truc",
        "p2a",
        "checkpoint transaction",
        "anchor point",
        "fee anchor",
        "mailbox",
    }
    words |= {"policy", "clause", "tree", "leaf", "movement", "htlc", "expiry height", "exit delta", "lease"}
    assert words - explained == set()


def test_a_newcomer_finds_the_glossary() -> None:
    for name in ("README.md", "ARCHITECTURE.md"):
        assert "](docs/glossary.md)" in (ROOT / name).read_text()
