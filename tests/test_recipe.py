"""The recipe: validation, digest, comparison."""

import dataclasses
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tellframe.errors import ConfigError, RecipeMismatchError
from tellframe.recipe import DFDC_PROJECT, Recipe


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("num_frames", 0),
        ("sampling", "random"),
        ("face_detector", "haar"),
        ("detector_thresholds", (0.9, 0.9)),
        ("detector_thresholds", (0.9, 0.9, 1.0)),
        ("yunet_threshold", 0.0),
        ("min_face_size", 11),
        ("pyramid_factor", 1.0),
        ("max_faces", 0),
        ("brighten_below", 256.0),
        ("alignment", "affine"),
        ("margin", -0.1),
        ("crop_size", 8),
        ("mean", (0.5, 0.5)),
        ("std", (0.5, 0.5, 0.0)),
    ],
)
def test_values_out_of_range_are_errors_that_name_the_field(key, value):
    with pytest.raises(ConfigError, match=key):
        dataclasses.replace(Recipe(), **{key: value})


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"num_frame": 3}, "did you mean 'num_frames'"),
        ({"num_frames": "3"}, "must be of type int"),
        ({"keep_all": 1}, "must be of type bool"),
        ({"mean": ["a", "b", "c"]}, "must be of type float"),
    ],
)
def test_bad_tables_are_errors(values, message):
    with pytest.raises(ConfigError, match=message):
        Recipe.from_dict(values)


@given(
    num_frames=st.integers(1, 1000),
    margin=st.floats(0, 4),
    size=st.integers(16, 1024),
    alignment=st.sampled_from(["square", "stretch", "similarity"]),
)
def test_json_round_trip_keeps_the_digest(num_frames, margin, size, alignment):
    recipe = Recipe(num_frames=num_frames, margin=margin, crop_size=size, alignment=alignment)
    again = Recipe.from_dict(json.loads(json.dumps(recipe.to_dict())))
    assert again == recipe
    assert again.digest == recipe.digest


def test_every_field_changes_the_digest():
    other = Recipe(
        num_frames=11,
        sampling="start",
        face_detector="yunet",
        detector_thresholds=(0.5, 0.6, 0.7),
        yunet_threshold=0.5,
        min_face_size=41,
        pyramid_factor=0.7,
        search_every=2.0,
        keep_all=False,
        max_faces=3,
        brighten_below=10.0,
        brighten_crops=True,
        alignment="similarity",
        margin=0.2,
        crop_scales=(1.0, 0.8),
        crop_size=160,
        crop_format="png",
        crop_quality=90,
        mean=(0.4, 0.5, 0.5),
        std=(0.5, 0.5, 0.6),
    )
    names = [f.name for f in dataclasses.fields(Recipe)]
    assert set(Recipe().differences(other)) == set(names)
    digests = {
        dataclasses.replace(Recipe(), **{name: getattr(other, name)}).digest for name in names
    }
    assert len(digests | {Recipe().digest}) == len(names) + 1


def test_a_mismatch_says_what_differs():
    with pytest.raises(RecipeMismatchError, match=r"model and shards.*margin: 0\.1 against 0\.3"):
        Recipe().require_same(Recipe(margin=0.3), "model and shards")
    Recipe().require_same(Recipe(), "model and shards")


def test_the_dfdc_project_is_one_recipe():
    assert DFDC_PROJECT.crop_size == 160
    assert DFDC_PROJECT.detector_thresholds == (0.9, 0.9, 0.9)
    assert DFDC_PROJECT.num_frames == 10
    # A box of 146 px gets a margin of 14 px in all, as facenet-pytorch has it.
    assert DFDC_PROJECT.margin * 146 == pytest.approx(14)
