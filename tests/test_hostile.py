"""Files that broke other programs: no crash, no hang, no flood of memory, no foreign exception.

The files are not part of the repository. `manifest.csv` beside them says what plain PyAV made of
each, decoding up to 60 pictures.
"""

from __future__ import annotations

import csv
import json
import subprocess
import sys
from pathlib import Path

import pytest

HOSTILE = Path(__file__).resolve().parents[2] / "shared" / "hostile"
NUM_CHILDREN = 2
SECONDS = 50
"""For one child process, which reads its share of the files."""

pytestmark = [
    pytest.mark.data,
    pytest.mark.skipif(not (HOSTILE / "manifest.csv").is_file(), reason=f"no files in {HOSTILE}"),
]

READ = """
import json, resource, sys
resource.setrlimit(resource.RLIMIT_AS, (2 << 30, 2 << 30))
from tellframe.errors import TellframeError
from tellframe.video import list_frames, read_frames, sample_uniform
for path in sys.argv[1:]:
    print(json.dumps({"path": path}), flush=True)  # names the culprit of a crash or a hang
    result = {"path": path, "error": None, "indices": [], "sizes": []}
    try:
        listing = list_frames(path)
        wanted = sample_uniform(listing.times, 10)
        for frame in read_frames(path, listing, wanted):
            result["indices"].append(frame.index)
            result["sizes"].append(frame.image.shape)
        result["frames"] = listing.media.num_frames
        result["duration"] = listing.media.duration
    except TellframeError as error:
        result |= {"error": type(error).__name__, "message": str(error)}
    print(json.dumps(result), flush=True)
"""

REFUSED = {  # what PyAV decodes and tellframe does not, and why
    ".gif": "a picture, not a video",
    "0322_rv30.mp4": "RealMedia is not among the containers that are opened",
    "0519_intraforeman_qcif1-5.264": "every picture is damaged",
    "0173_sample_fragmented_sgpd_v2.mp4": "encrypted (cbcs); what decodes is noise",
    "0268_mov-frag-encrypted.mp4": "encrypted; what decodes is noise",
}


@pytest.fixture(scope="module")
def manifest() -> dict[str, str]:
    with (HOSTILE / "manifest.csv").open(newline="") as file:
        return {row["name"]: row["pyav_18_1_result"] for row in csv.DictReader(file)}


@pytest.fixture(scope="module")
def outcomes() -> dict[str, dict]:
    """Read every file; return what came of it by its name."""
    paths = sorted(str(path) for path in (HOSTILE / "files").iterdir())
    children = [
        subprocess.Popen(
            [sys.executable, "-c", READ, *paths[n::NUM_CHILDREN]],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for n in range(NUM_CHILDREN)
    ]
    results = {}
    try:
        for child in children:
            try:
                out, err = child.communicate(timeout=SECONDS)
            except subprocess.TimeoutExpired:
                child.kill()
                out, err = child.communicate()
            lines = [json.loads(line) for line in out.splitlines()]
            last = lines[-1]["path"] if lines else "no file"
            assert child.returncode == 0, f"{last} crashed or hung: {err[-2000:]}"
            results |= {Path(r["path"]).name: r for r in lines if "error" in r}
    finally:
        for child in children:
            child.kill()
    assert len(results) == len(paths)
    return results


@pytest.mark.timeout(3 * SECONDS)
def test_every_file_gives_frames_or_our_own_error(outcomes):
    for name, outcome in outcomes.items():
        if outcome["error"]:
            assert outcome["error"] in {"DecodeError", "NoVideoError", "LimitError"}, name
            assert outcome["message"].startswith(outcome["path"]), name
            continue
        indices = outcome["indices"]
        assert 1 <= len(indices) <= 10, name
        assert indices == sorted(set(indices)), name
        assert 0 <= indices[0] <= indices[-1] < outcome["frames"], name
        assert 0 < outcome["duration"] < 100_000, name
        assert all(height > 0 and width > 0 and c == 3 for height, width, c in outcome["sizes"])


def test_what_plain_pyav_decodes_is_decoded(outcomes, manifest):
    for name in outcomes.keys() & manifest.keys():
        refused = name in REFUSED or Path(name).suffix in REFUSED
        if manifest[name] == "ok":
            assert (outcomes[name]["error"] is not None) == refused, outcomes[name]


@pytest.mark.parametrize(
    ("result", "errors"),
    [
        ("no_video", {"NoVideoError"}),
        ("zero_frames", {"NoVideoError"}),
        ("open_err", {"DecodeError"}),
    ],
)
def test_what_is_no_video_is_said_to_be_none(result, errors, outcomes, manifest):
    files = [name for name in outcomes if manifest.get(name) == result]
    assert files
    for name in files:
        assert outcomes[name]["error"] in errors, outcomes[name]


def test_damaged_files_give_frames_or_a_decode_error(outcomes, manifest):
    files = [name for name in outcomes if manifest.get(name) == "decode_err"]
    assert {outcomes[name]["error"] for name in files} <= {None, "DecodeError"}
