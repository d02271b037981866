"""What works offline of an audit of the dependencies; `make audit` asks for known vulnerabilities besides."""

import re
import tomllib
from importlib import metadata
from pathlib import Path

import pytest
from packaging.requirements import Requirement

ROOT = Path(__file__).parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
OPTIONAL = [text for texts in PROJECT["optional-dependencies"].values() for text in texts]
REQUIREMENTS = [
    Requirement(text) for text in (*PROJECT["dependencies"], *OPTIONAL) if not text.startswith("barkd-py")
]


@pytest.mark.parametrize("requirement", REQUIREMENTS, ids=lambda requirement: str(requirement.name))
def test_each_dependency_is_bounded_and_explained(requirement: Requirement) -> None:
    """A release that nobody has tried does not come in by itself; nor is one taken up without a reason."""
    operators = {each.operator for each in requirement.specifier}
    assert "==" in operators or {">=", "<"} <= operators
    text = (ROOT / "docs" / "dependencies.md").read_text().lower()
    assert re.search(rf"\b{re.escape(requirement.name.lower())}\b", text), "not in docs/dependencies.md"


@pytest.mark.parametrize("requirement", REQUIREMENTS, ids=lambda requirement: str(requirement.name))
def test_each_dependency_is_installed_within_its_bounds(requirement: Requirement) -> None:
    assert requirement.specifier.contains(metadata.version(requirement.name), prereleases=True)
