"""Pin in constraints.txt everything that `make test` installs, as it is installed here.

`make lock` installs the newest versions and runs this; `make test` then says whether they do.
"""

from __future__ import annotations

import argparse
import platform
import sys

from dependencies import ROOT, NotInstalledError, find_packages, read_project

TARGET = ROOT / "constraints.txt"
ALSO = ("pip",)
"""What `make test` installs, and pyproject.toml does not ask for."""


def required() -> list[str]:
    """Return all requirements of pyproject.toml: core, extras, groups and the build."""
    project = read_project()
    extras = project["project"]["optional-dependencies"].values()
    groups = project["dependency-groups"].values()
    core, build = project["project"]["dependencies"], project["build-system"]["requires"]
    return [*ALSO, *build, *core, *(r for some in (*extras, *groups) for r in some)]


def pins() -> str:
    """Return the content of constraints.txt for what is installed here.

    Raises:
        NotInstalledError: something is missing here.
    """
    version = ".".join(platform.python_version_tuple()[:2])
    lines = [
        "# Every package that `make test` installs, with the version that it is tested with.",
        f"# Written by `make lock` on {platform.system()} {platform.machine()}, Python {version}.",
    ]
    packages = find_packages(required(), read_project())
    return "\n".join([*lines, *(f"{name}=={d.version}" for name, d in packages.items())]) + "\n"


def read_pins(text: str) -> dict[str, str]:
    """Return the versions by name that a content of constraints.txt pins."""
    lines = text.splitlines()
    return dict(line.split("==") for line in lines if line and not line.startswith("#"))


def main(arguments: list[str] | None = None) -> int:
    """Write constraints.txt, or compare it with what is installed; return the exit status."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--check", action="store_true", help="write nothing; 1 where it differs")
    options = parser.parse_args(arguments)
    try:
        text = pins()
    except NotInstalledError as error:
        print(error, file=sys.stderr)
        return 2
    if not options.check:
        TARGET.write_text(text, encoding="utf-8")
        return 0
    here, pinned = read_pins(text), read_pins(TARGET.read_text(encoding="utf-8"))
    for name in sorted(here.keys() | pinned.keys()):
        if here.get(name) != pinned.get(name):
            print(f"{name}: pinned {pinned.get(name, 'not')}, here {here.get(name, 'not needed')}")
    return int(here != pinned)


if __name__ == "__main__":
    sys.exit(main())
