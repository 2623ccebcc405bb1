from __future__ import annotations

import dataclasses
import io
import json
import math
from pathlib import Path

import jsonschema
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tellframe.errors import UsageError
from tellframe.report import (
    verdict_from_dict,
    verdict_schema,
    verdict_to_dict,
    write_json,
    write_jsonl,
)
from tellframe.types import (
    FaceVerdict,
    Label,
    Media,
    ModelInfo,
    Moment,
    Reason,
    Verdict,
)

PUBLISHED = Path(__file__).parents[2] / "docs" / "verdict.schema.json"

probabilities = st.floats(0, 1).map(lambda p: round(p, 6))
limits = st.none() | st.floats(0, 1)  # never rounded
lengths = st.floats(-1e5, 1e7).map(lambda t: round(t, 3) + 0.0)
counts = st.integers(0, 10**12)
# Surrogates stand for bytes of a file name that are not UTF-8.
texts = st.text(
    st.characters()
    | st.characters(codec=None, min_codepoint=0xDC80, max_codepoint=0xDCFF, categories=["Cs"]),
    max_size=20,
)
reasons = st.lists(st.sampled_from(Reason), max_size=3).map(tuple)
moments = st.builds(Moment, time=lengths, probability=probabilities, box=st.tuples(*[lengths] * 4))
people = st.builds(
    FaceVerdict,
    person=counts,
    label=st.sampled_from(Label),
    probability=st.none() | probabilities,
    start=lengths,
    end=lengths,
    frames=counts,
    reasons=reasons,
    face_size=lengths,
    moments=st.lists(moments, max_size=4).map(tuple),
    evidence=st.none(),
)
overrides = st.dictionaries(
    texts,
    st.booleans()
    | st.integers()
    | st.floats(allow_nan=False, allow_infinity=False)
    | texts
    | st.lists(st.floats(0, 1), max_size=3).map(tuple),
    max_size=3,
)
verdicts = st.builds(
    Verdict,
    video=texts,
    label=st.sampled_from(Label),
    probability=st.none() | probabilities,
    reasons=reasons,
    people=st.lists(people, max_size=3).map(tuple),
    media=st.none()
    | st.builds(
        Media,
        path=texts,
        bytes=counts,
        sha256=texts,
        container=texts,
        codec=texts,
        width=counts,
        height=counts,
        rotation=st.sampled_from([0, 90, 180, 270]),
        duration=lengths,
        num_frames=counts,
        frame_rate=lengths,
        partial=st.booleans(),
        num_declared=st.none() | counts,
        num_packets=counts,
        num_asked=counts,
        num_decoded=counts,
        decode_errors=counts,
        sampled_every=lengths,
    ),
    model=st.none()
    | st.builds(
        ModelInfo,
        name=texts,
        version=texts,
        sha256=texts,
        recipe_digest=texts,
        recipe_overrides=overrides,
        calibrated_on=texts,
        real_to=limits,
        fake_from=limits,
        prior_use=limits,
    ),
    error=st.none() | texts,
    counters=st.dictionaries(texts, counts, max_size=3),
    seconds=lengths,
)


@settings(max_examples=60)
@given(verdict=verdicts)
def test_round_trip_and_schema(verdict):
    buffer = io.StringIO()
    write_jsonl(verdict, buffer)
    assert buffer.getvalue().count("\n") == 1
    buffer.getvalue().encode("utf-8")
    row = json.loads(buffer.getvalue(), parse_constant=pytest.fail)
    assert row == verdict_to_dict(verdict)
    jsonschema.validate(row, verdict_schema(), cls=jsonschema.Draft202012Validator)
    assert verdict_from_dict(row) == verdict


def test_row_begins_in_the_promised_order(rich_verdict):
    row = verdict_to_dict(rich_verdict)
    assert list(row)[:5] == ["video", "label", "probability", "reasons", "people"]
    assert list(row)[-2:] == ["schema_version", "tellframe_version"]
    first = ["person", "label", "probability", "start", "end", "frames"]
    assert all(list(person)[:6] == first for person in row["people"])
    assert row["video"] == "folder/interview.mp4"
    assert row["label"] == "FAKE"
    assert row["schema_version"] == 1


def test_every_field_but_evidence_is_written(rich_verdict):
    row = verdict_to_dict(rich_verdict)
    assert set(row) - {"schema_version", "tellframe_version"} == {
        field.name for field in dataclasses.fields(Verdict)
    }
    assert set(row["people"][0]) == {f.name for f in dataclasses.fields(FaceVerdict)} - {"evidence"}
    assert verdict_from_dict(row).people[0].evidence is None


def test_numbers_are_rounded_and_plain(make):
    person = dataclasses.replace(make.person(), start=np.float32(0.1), end=9.87654321)
    row = verdict_to_dict(make.verdict(people=(person,)))
    assert row["probability"] == 0.973123
    assert row["people"][0]["start"] == 0.1
    assert row["people"][0]["end"] == 9.877
    assert type(row["people"][0]["start"]) is float
    assert row["media"]["frame_rate"] == 29.97003


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf, np.float32("nan")])
def test_no_number_that_is_not_finite(make, value):
    person = dataclasses.replace(make.person(), start=value)
    with pytest.raises(ValueError, match=r"people\[0\]\.start"):
        verdict_to_dict(make.verdict(people=(person,)))


def test_recipe_overrides_of_unknown_type_are_refused(verdict):
    model = dataclasses.replace(verdict.model, recipe_overrides={"x": {1, 2}})
    with pytest.raises(TypeError, match=r"recipe_overrides\.x"):
        verdict_to_dict(dataclasses.replace(verdict, model=model))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"schema_version": 2}, "schema_version is 2"),
        ({"label": "MAYBE"}, "label: 'MAYBE' is none of REAL, FAKE"),
        ({"people": None}, "people: expected a list"),
        ({"people": [{}]}, r"people\[0\]\.person: this key is missing"),
        ({"probability": "0.5"}, "probability: expected a number"),
        ({"probability": True}, "probability: expected a finite number"),
        ({"video": 3}, "video: expected a value of type str"),
        ({"seconds": math.nan}, "seconds: expected a finite number"),
        ({"counters": {"a": True}}, r"counters\.a: expected an integer"),
    ],
)
def test_wrong_rows_are_explained(verdict, change, message):
    with pytest.raises(UsageError, match=message):
        verdict_from_dict(verdict_to_dict(verdict) | change)


def test_wrong_number_of_box_sides(verdict):
    row = verdict_to_dict(verdict)
    row["people"][0]["moments"][0]["box"] = [1, 2, 3]
    with pytest.raises(UsageError, match=r"box: expected 4 values, got 3"):
        verdict_from_dict(row)


def test_unknown_keys_are_ignored_and_missing_ones_take_their_default(verdict):
    row = verdict_to_dict(verdict) | {"of_the_future": 1}
    del row["seconds"]
    assert verdict_from_dict(row) == verdict_from_dict(row | {"seconds": 0.0})


def test_rows_of_older_versions_are_read(verdict):
    row = verdict_to_dict(verdict)
    for name in ("num_declared", "num_packets", "num_asked", "num_decoded", "decode_errors"):
        del row["media"][name]
    del row["media"]["sampled_every"]
    for name in ("calibrated_on", "real_to", "fake_from", "prior_use"):
        del row["model"][name]
    model = verdict_from_dict(row).model
    assert model.calibrated_on == ""
    assert (model.real_to, model.fake_from, model.prior_use) == (None, None, None)
    media = verdict_from_dict(row).media
    assert (media.num_declared, media.num_asked, media.decode_errors) == (None, 0, 0)
    assert media.sampled_every == 0


def test_published_schema_is_the_generated_one():
    assert json.loads(PUBLISHED.read_text("utf-8")) == verdict_schema(), (
        "write docs/verdict.schema.json again: python -c 'import json; from tellframe.report "
        "import verdict_schema; print(json.dumps(verdict_schema(), indent=2))'"
    )


def test_schema_is_valid_and_described():
    schema = verdict_schema()
    jsonschema.Draft202012Validator.check_schema(schema)
    assert schema["$defs"]["Label"]["enum"] == ["REAL", "FAKE", "INCONCLUSIVE"]
    assert "Evidence" not in schema["$defs"]
    for part in (schema, *schema["$defs"].values()):
        assert part["description"]
        assert all(field["description"] for field in part.get("properties", {}).values())


@pytest.mark.parametrize(
    "change", [{"probability": 1.2}, {"label": "fake"}, {"schema_version": 2}, {"media": {}}]
)
def test_schema_refuses_what_is_wrong(verdict, change):
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate(verdict_to_dict(verdict) | change, verdict_schema())


def test_lone_surrogates_survive_a_file(tmp_path, make):
    name = "caf\udce9 é 映像.mp4"
    write_json(make.verdict(name), tmp_path / "out.json")
    raw = (tmp_path / "out.json").read_bytes()
    assert b"caf\\udce9 \xc3\xa9" in raw
    assert json.loads(raw)["video"] == name


def test_ascii_streams_get_escapes(make):
    raw = io.BytesIO()
    stream = io.TextIOWrapper(raw, encoding="ascii")
    write_jsonl(make.verdict("é.mp4"), stream)
    assert json.loads(raw.getvalue())["video"] == "é.mp4"


def test_one_is_an_object_and_many_are_an_array(tmp_path, verdict):
    write_json(verdict, tmp_path / "one.json")
    write_json([verdict, verdict], tmp_path / "two.json")
    write_jsonl([verdict, verdict], tmp_path / "two.jsonl")
    assert isinstance(json.loads((tmp_path / "one.json").read_text()), dict)
    assert len(json.loads((tmp_path / "two.json").read_text())) == 2
    assert len((tmp_path / "two.jsonl").read_text().splitlines()) == 2


def test_failure_leaves_the_old_file_and_nothing_else(tmp_path, verdict):
    target = tmp_path / "out.jsonl"
    target.write_text("old")
    wrong = dataclasses.replace(verdict, seconds=math.nan)
    with pytest.raises(ValueError, match="seconds"):
        write_jsonl([verdict, wrong], target)
    assert target.read_text() == "old"
    assert list(tmp_path.iterdir()) == [target]


def test_links_are_followed_and_long_names_work(tmp_path, verdict):
    real = tmp_path / ("n" * 250 + ".json")
    link = tmp_path / "link.json"
    link.symlink_to(real)
    write_json(verdict, link)
    assert link.is_symlink()
    assert json.loads(real.read_text())["label"] == "FAKE"


def test_devices_are_not_replaced(verdict):
    write_json(verdict, "/dev/null")
    assert not Path("/dev/null").is_file()
