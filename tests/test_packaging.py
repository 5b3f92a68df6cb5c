"""The files of versions agree with what the package asks for."""

import tomllib
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from packaging.version import Version

ROOT = Path(__file__).parents[1]
ASKED = [Requirement(line) for line in tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["dependencies"]]


def pinned(file: str) -> dict[str, Version]:
    lines = [line for line in (ROOT / file).read_text().splitlines() if line and not line.startswith("#")]
    names_and_versions = (line.split(";")[0].split("==") for line in lines)
    return {canonicalize_name(name): Version(version.strip()) for name, version in names_and_versions}


@pytest.mark.parametrize("file", ["constraints.txt", "constraints-latest.txt", "constraints-lowest.txt"])
def test_all_that_is_asked_for_is_pinned_to_what_is_allowed(file):
    versions = pinned(file)
    assert [str(asked) for asked in ASKED if versions[canonicalize_name(asked.name)] not in asked.specifier] == []


def test_the_lowest_versions_are_the_lower_bounds():
    versions = pinned("constraints-lowest.txt")
    for asked in ASKED:
        (bound,) = (Version(specifier.version) for specifier in asked.specifier)
        # The first release that there is of what is allowed.
        assert versions[canonicalize_name(asked.name)].release[: len(bound.release)] == bound.release, asked.name
