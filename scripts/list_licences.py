"""List name, version and licence of all packages that tellframe needs to run, in NOTICE.

A licence that is neither permissive nor an exception with a reason is an error. Licences are what
the packages say of themselves.
"""

from __future__ import annotations

import argparse
import re
import sys
from fnmatch import fnmatch
from importlib import metadata

from dependencies import ROOT, NotInstalledError, find_packages, read_project, requirements_of

TARGET = ROOT / "NOTICE"
BEGIN = "--- Packages that are installed with it, as `scripts/list_licences.py` found them ---"
END = "--- End of the packages ---"
PERMISSIVE = frozenset(
    {
        *("0BSD", "Apache-2.0", "Apache-2.0 WITH LLVM-exception", "BSD", "BSD-2-Clause"),
        *("BSD-3-Clause", "BSL-1.0", "CC0-1.0", "HPND", "ISC", "MIT", "MIT-0", "MIT-CMU"),
        *("PSF-2.0", "Python-2.0", "Unlicense", "Zlib"),
    }
)
"""SPDX identifiers, and "BSD" where a package does not say which."""
EXCEPTIONS = {
    "certifi": "a list of certificates under MPL-2.0, used as it is",
    "tqdm": "MPL-2.0 in part, used as it is",
    "cuda-toolkit": "names packages of CUDA and holds nothing; comes with torch",
    "nvidia-*": "CUDA, under NVIDIA's terms; comes with torch",
}
"""Packages of other licences, and why they are taken nevertheless."""
SPDX = {
    "Apache": "Apache-2.0",
    "Apache 2.0": "Apache-2.0",
    "Apache Software License": "Apache-2.0",
    "3-Clause BSD License": "BSD-3-Clause",
    "BSD 2-Clause License": "BSD-2-Clause",
    "BSD 3-Clause License": "BSD-3-Clause",
    "BSD License": "BSD",
    "MIT License": "MIT",
    "Mozilla Public License 2.0 (MPL 2.0)": "MPL-2.0",
    "Python Software Foundation License": "PSF-2.0",
}
"""Other ways in which packages name licences."""
UNKNOWN = "not stated"
EXPRESSION = re.compile(r"[(\s]*[\w.+-]+([)\s]*\s(AND|OR|WITH)\s[(\s]*[\w.+-]+)*[)\s]*")
"""What looks like an SPDX expression: names, joined by its operators."""
SAYS_NOTHING = frozenset({"", "UNKNOWN"})
"""What some packages have where a licence should be."""
APPROVALS = frozenset({"OSI Approved", "DFSG approved"})
"""Classifiers that name no licence, but who approved of it."""


def licence_of(package: metadata.Distribution) -> str:
    """Return the licence that a package states: its SPDX expression where that can be told.

    Classifiers count where nothing else is clear. All of them: they do not say whether one may
    choose.
    """
    facts = package.metadata
    if expression := facts.get_all("License-Expression", [""])[0]:
        return str(expression)
    text = str(facts.get_all("License", [""])[0]).strip()
    if text in SPDX or (text not in SAYS_NOTHING and EXPRESSION.fullmatch(text)):
        return SPDX.get(text, text)
    classified = [
        line.rpartition(" :: ")[2]
        for line in facts.get_all("Classifier") or ()
        if line.startswith("License :: ")
    ]
    names = dict.fromkeys(SPDX.get(name, name) for name in classified if name not in APPROVALS)
    # A whole text, as some packages give it, is not shown.
    shown = text if text not in SAYS_NOTHING and "\n" not in text else UNKNOWN
    return " AND ".join(names) or shown


def is_permissive(expression: str) -> bool:
    """Tell whether a licence expression can be met with permissive licences alone."""
    ways = re.split(r"\s+OR\s+", expression.strip())
    return any(all(p in PERMISSIVE for p in re.split(r"\s+AND\s+", way)) for way in ways)


def exception_for(name: str) -> str:
    """Return why a package is taken whatever its licence is; empty where it is not."""
    return next((why for pattern, why in EXCEPTIONS.items() if fnmatch(name, pattern)), "")


def list_packages(extras: list[str]) -> tuple[list[str], list[str]]:
    """Return the lines of the section, and what is wrong.

    Args:
        extras: which are listed behind the core, each without what was listed before.

    Raises:
        NotInstalledError: a package is missing here.
    """
    project, listed = read_project(), set[str]()
    lines, faults = [], []
    for extra in ["", *extras]:
        packages = find_packages(requirements_of(project, extra=extra), project)
        lines += ["", f"With [{extra}]:" if extra else "Always:"]
        for name, package in packages.items():
            if name in listed:
                continue
            listed.add(name)
            licence = licence_of(package)
            why = "" if is_permissive(licence) else exception_for(name)
            lines.append(f"    {name} {package.version}: {licence}" + (f" ({why})" if why else ""))
            if not is_permissive(licence) and not why:
                faults.append(f"{name} {package.version}: its licence is {licence!r}")
    return lines, faults


def section(lines: list[str]) -> str:
    """Return the section of NOTICE with its markers."""
    return "\n".join([BEGIN, *lines, "", END])


def replace_section(text: str, new: str) -> str:
    """Return the text of NOTICE with another section.

    Raises:
        ValueError: the markers are missing.
    """
    before, begin, rest = text.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not (begin and end):
        raise ValueError(f"{TARGET}: its section is gone; put back the lines {BEGIN} and {END}")
    return before + new + after


def main(arguments: list[str] | None = None) -> int:
    """Write the section, or check it; return the exit status."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--check", action="store_true", help="write nothing; 1 where it differs")
    options = parser.parse_args(arguments)
    extras = list(read_project()["project"]["optional-dependencies"])
    try:
        lines, faults = list_packages(extras)
    except NotInstalledError as error:
        print(error, file=sys.stderr)
        return 2
    for fault in faults:
        what = "which is not permissive; find another package, or say why not"
        print(f"{fault}, {what}", file=sys.stderr)
    text = TARGET.read_text(encoding="utf-8")
    wanted = replace_section(text, section(lines))
    if options.check and wanted != text:
        print(f"{TARGET}: is out of date; run scripts/list_licences.py", file=sys.stderr)
        return 1
    if not options.check and not faults:
        TARGET.write_text(wanted, encoding="utf-8")
    return int(bool(faults))


if __name__ == "__main__":
    sys.exit(main())
