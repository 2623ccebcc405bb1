"""What tellframe is installed with: pinned for the tests, and under licences that permit it."""

from __future__ import annotations

import re
import sys
from email.message import Message
from pathlib import Path
from types import SimpleNamespace

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

sys.path.insert(0, str(Path(__file__).parents[1] / "scripts"))

import list_licences
import lock
from dependencies import NotInstalledError, find_packages, read_project
from list_licences import BEGIN, END, is_permissive, licence_of, list_packages, replace_section

NOTICE = list_licences.TARGET.read_text(encoding="utf-8")
PINS = lock.read_pins(lock.TARGET.read_text(encoding="utf-8"))


def listed() -> dict[str, tuple[str, str]]:
    """Return version and licence by name, as NOTICE has them."""
    section = NOTICE.partition(BEGIN)[2].partition(END)[0]
    rows = re.findall(r"^    (\S+) (\S+): (.+?)(?: \(.+\))?$", section, re.MULTILINE)
    return {name: (version, licence) for name, version, licence in rows}


def test_licences_of_what_always_comes_with_it_are_permissive():
    lines, faults = list_packages([])
    assert faults == []
    assert len(lines) > 5
    known = listed()
    for line in lines[2:]:  # the version may be a newer one here
        name, licence = line.split()[0], line.partition(": ")[2]
        assert known[name][1] == licence, "run scripts/list_licences.py"


def test_exceptions_are_for_extras_alone():
    core = find_packages(read_project()["project"]["dependencies"], read_project())
    assert not [name for name in core if list_licences.exception_for(name)]


def test_notice_names_the_versions_that_are_tested():
    known = listed()
    assert len(known) > 50
    assert {name: PINS.get(name) for name in known} == {n: v for n, (v, _) in known.items()}


def test_every_requirement_is_pinned_within_its_bounds():
    for text in lock.required():
        requirement = Requirement(text)
        if requirement.name != "tellframe":
            version = PINS[canonicalize_name(requirement.name)]
            assert requirement.specifier.contains(version), text


def package(**facts) -> SimpleNamespace:
    message = Message()
    for name, values in facts.items():
        for value in [values] if isinstance(values, str) else values:
            message[name.replace("_", "-")] = value
    return SimpleNamespace(metadata=message)


MIT = "License :: OSI Approved :: MIT License"


@pytest.mark.parametrize(
    ("facts", "licence"),
    [
        ({"License_Expression": "MIT", "License": "GPL"}, "MIT"),
        ({"License": "Apache 2.0"}, "Apache-2.0"),
        ({"Classifier": ["Topic :: X", "License :: OSI Approved :: BSD License"]}, "BSD"),
        (
            {"License": "Long text\nof many lines", "Classifier": "License :: OSI Approved :: X"},
            "X",
        ),
        ({"License": "GPL-3.0"}, "GPL-3.0"),
        ({"License": "GPL-3.0", "Classifier": MIT}, "GPL-3.0"),
        ({"License": "MIT AND GPL-3.0-only", "Classifier": MIT}, "MIT AND GPL-3.0-only"),
        ({"License": "(MIT OR GPL-2.0+) AND BSD", "Classifier": MIT}, "(MIT OR GPL-2.0+) AND BSD"),
        ({"Classifier": [MIT, "License :: OSI Approved :: GPL"]}, "MIT AND GPL"),
        ({"License": "see LICENSE", "Classifier": MIT}, "MIT"),
        ({"License": "UNKNOWN", "Classifier": [MIT, MIT, "License :: DFSG approved"]}, "MIT"),
        ({"License": "see LICENSE", "Classifier": "License :: OSI Approved"}, "see LICENSE"),
        ({"License": "UNKNOWN"}, "not stated"),
        ({}, "not stated"),
    ],
)
def test_the_licence_is_what_the_package_says(facts, licence):
    assert licence_of(package(**facts)) == licence


@pytest.mark.parametrize(
    ("expression", "permissive"),
    [
        ("MIT", True),
        ("MIT AND BSD-3-Clause", True),
        ("GPL-3.0-only OR MIT", True),
        ("Apache-2.0 WITH LLVM-exception AND MIT", True),
        ("MPL-2.0 AND MIT", False),
        ("MIT AND (GPL-3.0-only OR MIT)", False),  # not understood is not permitted
        ("GPL-3.0-only", False),
        ("not stated", False),
        ("", False),
    ],
)
def test_what_is_permissive(expression, permissive):
    assert is_permissive(expression) is permissive


def test_another_licence_is_a_fault(monkeypatch):
    monkeypatch.setattr(list_licences, "PERMISSIVE", frozenset({"MIT"}))
    _, faults = list_packages([])
    assert [fault for fault in faults if fault.startswith("av ")]
    assert not [fault for fault in faults if fault.startswith("onnxruntime ")]


def test_what_is_missing_is_named():
    with pytest.raises(NotInstalledError, match="no-such-package is not installed"):
        find_packages(["no-such-package>=1"], read_project())


def test_only_the_section_is_replaced():
    assert replace_section(f"a\n{BEGIN}\nold\n{END}\nb", f"{BEGIN}\nnew\n{END}") == (
        f"a\n{BEGIN}\nnew\n{END}\nb"
    )
    with pytest.raises(ValueError, match="put back the lines"):
        replace_section("a", "b")
