"""What the source must not hold: ways by which data from others could run as code."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PICKLES = frozenset({"src/tellframe/process.py", "src/tellframe/worker.py"})
"""Tasks go to worker processes as pickles, and answers come back so from those that are not
confined: they were started by us. What a confined one says is never unpickled
(tests/test_isolated.py)."""
MODULES = frozenset({"pickle", "marshal", "shelve", "dill", "cloudpickle", "joblib"})
BUILTINS = frozenset({"eval", "exec", "compile", "__import__"})
FOLDERS = ("src", "scripts", "fuzz", "benchmarks")
FILES = sorted(
    path
    for folder in FOLDERS
    for path in ROOT.glob(f"{folder}/**/*.py")
    if "site-packages" not in path.parts  # of an environment that was made there
)


def faults(source: str) -> list[str]:
    """Return what is wrong with a module, by line."""
    found = []
    for node in ast.walk(ast.parse(source)):
        names: list[str] = []
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and not node.level:
            names = [node.module or ""]
        found += [f"{node.lineno}: {n}" for n in names if n.partition(".")[0] in MODULES]
        if isinstance(node, ast.Call):
            found += [f"{node.lineno}: {fault}" for fault in call_faults(node)]
    return found


def call_faults(node: ast.Call) -> list[str]:
    name, given = ast.unparse(node.func), {k.arg: ast.unparse(k.value) for k in node.keywords}
    checks = {
        "it runs text": name in BUILTINS,
        "torch.load without weights_only=True": name == "torch.load"
        and given.get("weights_only") != "True",
        "allow_pickle": given.get("allow_pickle", "False") != "False",
        "yaml.load, not safe_load": name.startswith("yaml.")
        and name.rpartition(".")[2] in ("load", "load_all", "unsafe_load", "full_load"),
        "a shell": given.get("shell", "False") != "False" or name in ("os.system", "os.popen"),
        "torch.hub": name.startswith("torch.hub."),
    }
    return [fault for fault, so in checks.items() if so]


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(ROOT)))
def test_no_data_becomes_code(path):
    found = faults(path.read_text(encoding="utf-8"))
    if str(path.relative_to(ROOT)) in PICKLES:
        found = [fault for fault in found if not fault.endswith(": pickle")]
    assert found == []


def test_all_files_are_looked_at():
    assert len(FILES) > 100
    assert {str(path.relative_to(ROOT)) for path in FILES} >= PICKLES


@pytest.mark.parametrize(
    "source",
    [
        "import pickle",
        "import numpy, pickle as p",
        "from pickle import loads",
        "from dill.session import load",
        "def f():\n    import marshal",
        "torch.load(path)",
        "torch.load(path, weights_only=False)",
        "np.load(path, allow_pickle=True)",
        "np.load(path, allow_pickle=trusted)",
        "yaml.load(text)",
        "eval(text)",
        "exec(text)",
        "subprocess.run(text, shell=True)",
        "os.system(text)",
        "torch.hub.load(name)",
    ],
)
def test_what_is_looked_for_is_found(source):
    assert len(faults(source)) == 1


@pytest.mark.parametrize(
    "source",
    ["model.eval()", "np.load(path)", "torch.load(path, weights_only=True)", "re.compile(text)"],
)
def test_what_looks_like_it_is_not(source):
    assert faults(source) == []
