"""The networks: what every head gives, what it must not see, and what it can learn."""

from __future__ import annotations

import re

import pytest
import torch
from torch.nn.functional import binary_cross_entropy_with_logits, interpolate

from tellframe.errors import ConfigError
from tellframe.recipe import Recipe
from tellframe.train.backbone import PatchReader
from tellframe.train.config import HEADS, ModelConfig
from tellframe.train.models import FrameEnsemble, MeanModel, build_model

pytestmark = pytest.mark.train

RECIPE = Recipe(crop_size=64, mean=(0.2, 0.5, 0.7), std=(0.1, 0.2, 0.3))
NAME = "test_efficientnet"
SEQUENCE = [head for head in HEADS if head != "mean"]


def build(head="mean", recipe=RECIPE, **fields):
    torch.manual_seed(0)
    values = {"backbone": NAME, "head": head, "hidden": 16, **fields}
    return build_model(ModelConfig(**values), recipe)


@pytest.fixture(scope="module")
def models():
    """One network a head, judging, in which no weight is zero and no layer is mute."""
    built = {head: build(head, dropout=0.5) for head in HEADS}
    generator = torch.Generator().manual_seed(1)
    for model in built.values():
        for layer in model.backbone.modules():
            if isinstance(layer, torch.nn.BatchNorm2d):
                layer.momentum = None  # take over the statistics of the next batch as they are
        with torch.no_grad():
            model.features(clips().flatten(0, 1))
            for name, weight in model.named_parameters():
                if not name.startswith("backbone"):
                    weight += 0.1 * torch.randn(weight.shape, generator=generator)
    return {head: model.eval() for head, model in built.items()}


def clips(count=3, frames=5, seed=1):
    """Clips of coarse patterns, so that no frame is like another."""
    generator = torch.Generator().manual_seed(seed)
    coarse = torch.rand(count * frames, 3, 3, 3, generator=generator) * 255
    smooth = interpolate(coarse, size=64, mode="bilinear").permute(0, 2, 3, 1)
    return smooth.reshape(count, frames, 64, 64, 3).byte()


def ones(crops):
    return torch.ones(crops.shape[:2], dtype=torch.bool)


MASK = torch.tensor([[1, 0, 1, 1, 0], [0, 0, 1, 0, 0], [1, 1, 1, 1, 1]], dtype=torch.bool)


@torch.no_grad()
def judge(model, crops, valid=None):
    return model(crops, ones(crops) if valid is None else valid)


def assert_close(found, expected):
    for a, b in zip(found, expected, strict=True):
        torch.testing.assert_close(a, b, atol=1e-5, rtol=1e-5)


# Shapes, and how the parts belong together.


@pytest.mark.parametrize("head", HEADS)
def test_shapes(models, head):
    logit, frame_logit, heat = judge(models[head], clips(), MASK)
    assert [tuple(t.shape) for t in (logit, frame_logit, heat)] == [(3,), (3, 5), (3, 5, 2, 2)]
    assert logit.std() > 0.01  # not mute
    logit, marks = models[head].forward_train(clips(), MASK)
    assert [tuple(t.shape) for t in (logit, marks)] == [(3,), (3, 5, 2, 2)]


@pytest.mark.parametrize("head", HEADS)
def test_frames_that_are_not_valid_score_nothing(models, head):
    _, frame_logit, heat = judge(models[head], clips(), MASK)
    assert torch.equal(frame_logit != 0, MASK)
    assert not heat[~MASK].any()
    assert not models[head].forward_train(clips(), MASK)[1][~MASK].any()


@pytest.mark.parametrize("head", ["mean", "attention", "gru"])
def test_the_mean_of_the_heat_is_the_score_of_the_frame(models, head):
    _, frame_logit, heat = judge(models[head], clips(), MASK)
    torch.testing.assert_close(heat.mean(dim=(2, 3)), frame_logit)


@pytest.mark.parametrize("head", ["mean", "gru"])
def test_the_clip_scores_the_mean_of_its_frames(models, head):
    logit, frame_logit, _ = judge(models[head], clips(), MASK)
    torch.testing.assert_close(frame_logit.sum(dim=1) / MASK.sum(dim=1), logit)


def test_attention_scores_between_its_frames(models):
    crops = clips()
    logit, frame_logit, _ = judge(models["attention"], crops)
    assert ((frame_logit.min(dim=1).values < logit) & (logit < frame_logit.max(dim=1).values)).all()
    assert (logit - frame_logit.mean(dim=1)).abs().min() > 1e-3


@pytest.mark.parametrize("head", ["mean", "attention", "dfdcnet"])
def test_a_frame_scores_as_a_clip_of_itself(models, head):
    crops = clips()
    logit, frame_logit, heat = judge(models[head], crops)
    alone = judge(models[head], crops.flatten(0, 1)[:, None])
    assert_close(
        alone, (frame_logit.flatten(), frame_logit.view(-1, 1), heat.flatten(0, 1)[:, None])
    )
    assert not torch.allclose(frame_logit[:, 0], logit, atol=1e-3)


def test_the_heat_of_dfdcnet_is_its_judgement_of_every_place(models):
    """A picture that looks alike everywhere is judged as each of its places."""
    model = models["dfdcnet"]
    features = torch.randn(1, 1, 256, 1, 1).expand(1, 1, 256, 3, 3)
    with torch.no_grad():
        logit, frame_logit, heat = model._judge(features, torch.ones(1, 1, dtype=torch.bool))
    torch.testing.assert_close(heat, frame_logit[..., None, None].expand_as(heat))
    torch.testing.assert_close(logit, frame_logit[:, 0])


# What must have no influence: missing frames, other clips, earlier batches, and chance.


@pytest.mark.parametrize("head", HEADS)
def test_frames_that_are_not_valid_have_no_influence(models, head):
    zeros, noise = clips(), clips()
    zeros[~MASK] = 0
    noise[~MASK] = clips(seed=7)[~MASK]
    assert_close(judge(models[head], noise, MASK), judge(models[head], zeros, MASK))
    assert_close(models[head].forward_train(noise, MASK), models[head].forward_train(zeros, MASK))


@pytest.mark.parametrize("head", HEADS)
def test_missing_frames_are_as_if_they_had_never_been(models, head):
    crops = clips()
    logit, frame_logit, heat = judge(models[head], crops, MASK)
    for k, valid in enumerate(MASK):
        alone = judge(models[head], crops[k : k + 1, valid])
        assert_close(alone, (logit[k : k + 1], frame_logit[k : k + 1, valid], heat[None, k, valid]))


@pytest.mark.parametrize("head", HEADS)
def test_missing_frames_do_not_enter_the_statistics_of_training(head):
    states = []
    for seed in (1, 7):
        model, crops = build(head, dropout=0.0), clips()
        crops[~MASK] = clips(seed=seed)[~MASK]
        logit, _ = model.forward_train(crops, MASK)
        logit.sum().backward()
        gradient = {k: p.grad for k, p in model.named_parameters() if p.grad is not None}
        states.append({**model.state_dict(), **{f"d {k}": v for k, v in gradient.items()}})
    assert states[0].keys() == states[1].keys()
    for key, value in states[0].items():
        assert torch.equal(value, states[1][key]), key


@pytest.mark.parametrize("head", HEADS)
def test_a_clip_scores_the_same_alone_and_among_others(models, head):
    crops = clips(7, 3)
    together = judge(models[head], crops)
    alone = [judge(models[head], clip[None]) for clip in crops]
    assert_close([torch.cat(parts) for parts in zip(*alone, strict=True)], together)
    turned = judge(models[head], crops.flip(0))
    assert_close([part.flip(0) for part in turned], together)


@pytest.mark.parametrize("head", HEADS)
def test_nothing_is_kept_between_batches(models, head):
    model = models[head]
    before = {k: v.clone() for k, v in model.state_dict().items()}
    first = judge(model, clips(), MASK)
    judge(model, clips(5, 9, seed=3))
    for a, b in zip(judge(model, clips(), MASK), first, strict=True):
        assert torch.equal(a, b)
    for key, value in model.state_dict().items():
        assert torch.equal(value, before[key]), key


@pytest.mark.parametrize("head", HEADS)
def test_a_clip_without_a_valid_frame_is_finite_and_harms_nobody(models, head):
    crops, valid = clips(2), ones(clips(2))
    valid[0] = False
    found = judge(models[head], crops, valid)
    assert all(part.isfinite().all() for part in found)
    other = torch.cat([clips(1, seed=7), crops[1:]])
    assert_close(judge(models[head], other, valid), found)
    assert_close([part[1:] for part in found], judge(models[head], crops[1:]))


@pytest.mark.parametrize(("head", "sees"), [("attention", False), ("gru", True), ("dfdcnet", True)])
def test_who_sees_the_order_of_the_frames(models, head, sees):
    crops = clips()
    there, back = (judge(models[head], c)[0] for c in (crops, crops.flip(1)))
    assert torch.allclose(there, back, atol=1e-4) is not sees


def test_the_gru_looks_both_ways(models):
    crops = clips(1, 5)
    _, before, _ = judge(models["gru"], crops)
    crops[0, 2] = clips(1, 1, seed=9)[0, 0]
    _, after, _ = judge(models["gru"], crops)
    assert ((after - before).abs() > 1e-5).all()


# Training and judging.


@pytest.mark.parametrize("head", HEADS)
def test_training_and_judging_agree_without_dropout(models, head):
    """The models of this file are in the mode of judging, where dropout does nothing."""
    with torch.no_grad():
        logit, _ = models[head].forward_train(clips(), MASK)
    torch.testing.assert_close(logit, judge(models[head], clips(), MASK)[0], atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("head", HEADS)
def test_dropout_acts_in_training_alone(head):
    model = build(head, dropout=0.5, frozen=True, start="runs/trained")
    crops = clips()
    with torch.no_grad():
        a, b = (model.forward_train(crops, MASK)[0] for _ in range(2))
        assert not torch.equal(a, b)
        model.eval()
        a, b = (model.forward_train(crops, MASK)[0] for _ in range(2))
        assert torch.equal(a, b)


@pytest.mark.parametrize("head", HEADS)
def test_a_frozen_backbone_keeps_weights_and_statistics(head):
    model = build(head, frozen=True, start="runs/trained")
    before = {k: v.clone() for k, v in model.state_dict().items()}
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.1)
    for _ in range(2):
        logit, marks = model.train().forward_train(clips(), MASK)
        (logit.square().sum() + logit.sum() + marks.sum()).backward()
        optimizer.step()
    after = model.state_dict()
    changed = {k.split(".")[0] for k, v in before.items() if not torch.equal(v, after[k])}
    assert "backbone" not in changed
    assert {"head", "difference"} <= changed
    assert all(p.grad is None for p in model.backbone.parameters())
    assert build(head).train().backbone.training


def test_frozen_stages_are_the_first_ones():
    model = build(frozen_stages=2, start="runs/trained")
    before = {k: v.clone() for k, v in model.backbone.state_dict().items()}
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.1)
    logit, marks = model.train().forward_train(clips(), MASK)
    (logit.square().sum() + logit.sum() + marks.sum()).backward()
    optimizer.step()
    after = model.backbone.state_dict()
    same = {k: torch.equal(v, after[k]) for k, v in before.items()}
    frozen = [k for k in same if k.startswith(("conv_stem.", "bn1.", "blocks.0."))]
    assert all(same[k] for k in frozen)
    assert not any(same[k] for k in same if k not in frozen)
    with pytest.raises(ConfigError, match=r"frozen_stages = 50: test_efficientnet has \d+;"):
        build(frozen_stages=50, start="runs/trained")


# Cut off, and several together.


def test_a_network_cut_off_keeps_its_first_stages():
    whole, cut = build(), build(stages=3)
    names = {n for n, _ in cut.backbone.named_parameters()}
    first = ("conv_stem.", "bn1.", "blocks.0.", "blocks.1.")
    assert names == {n for n, _ in whole.backbone.named_parameters() if n.startswith(first)}
    features = cut.eval().features(clips()[0])
    assert features.shape[1:] == (PatchReader.features, 16, 16)  # stride 4 instead of 32
    with pytest.raises(ConfigError, match=r"stages = 50: test_efficientnet has \d+; 0 keeps all"):
        build(stages=50)


def test_a_network_cut_off_sees_a_part_at_once():
    changed = clips()[0].clone()
    changed[:, :, 40:] = 0
    for stages, untouched in ((3, True), (0, False)):
        model = build(stages=stages).eval()
        before, after = (model.heat(model.features(x)) for x in (clips()[0], changed))
        first = slice(None), slice(None), 0  # the column farthest from the change
        assert torch.equal(before[first], after[first]) == untouched
        assert not torch.equal(before[..., -1], after[..., -1])


@pytest.mark.parametrize("backbone", ["resnet10t", "mobilenetv3_small_050", "convnext_atto"])
def test_networks_of_other_designs_are_cut_off_too(backbone):
    whole = build(backbone=backbone, recipe=RECIPE).eval()
    cut = build(backbone=backbone, stages=2).eval()
    logit, heat = cut.judge_frames(clips()[0])
    assert torch.isfinite(logit).all()
    assert heat.shape[1] > whole.judge_frames(clips()[0])[1].shape[1]


def test_the_stages_of_a_network_cut_off_can_be_frozen():
    model = build(stages=3, frozen_stages=2, start="runs/trained")
    frozen = {n for n, p in model.named_parameters() if not p.requires_grad}
    assert frozen == {
        f"backbone.{n}"
        for n, _ in model.backbone.named_parameters()
        if n.startswith(("conv_stem.", "bn1.", "blocks.0."))
    }


def test_an_ensemble_takes_the_mean_of_its_members(models):
    cut = build(stages=3).eval()
    pixels = clips()[0]
    members = models["mean"], cut
    logits, heats = zip(*(m.judge_frames(pixels) for m in members), strict=True)
    logit, heat = FrameEnsemble(members).judge_frames(pixels)
    assert heats[0].shape != heats[1].shape
    torch.testing.assert_close(logit, (logits[0] + logits[1]) / 2)
    assert heat.shape == heats[0].shape  # the coarser one
    torch.testing.assert_close(heat.mean(dim=(1, 2)), logit)
    assert not torch.equal(heat, heats[0])


def test_degradation_is_told_by_the_members_that_can(models):
    pixels = clips()[0]
    width = models["mean"].difference.in_channels
    able = build().eval()
    able.probe = torch.nn.Linear(width, 1)
    told = able.judge_frames(pixels)[2]
    assert len(FrameEnsemble([models["mean"], models["mean"]]).judge_frames(pixels)) == 2
    torch.testing.assert_close(FrameEnsemble([models["mean"], able]).judge_frames(pixels)[2], told)


def test_pixels_are_normalised_as_the_recipe_says():
    model = build().eval()
    seen = []
    model.backbone.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
    picture = torch.tensor([51, 128, 255], dtype=torch.uint8).expand(1, 1, 64, 64, 3)
    judge(model, picture)
    expected = [(0.2 - 0.2) / 0.1, (128 / 255 - 0.5) / 0.2, (1 - 0.7) / 0.3]
    torch.testing.assert_close(seen[0][0, :, 5, 9], torch.tensor(expected), atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("head", HEADS)
def test_building_is_decided_by_the_seed(head):
    a, b = build(head).state_dict(), build(head).state_dict()
    assert all(torch.equal(a[k], b[k]) for k in a)
    assert build(head).training


# The frame classifier, as it was before there were other heads.


def test_the_frame_classifier_by_hand(models):
    model, crops = models["mean"], clips()
    with torch.no_grad():
        features = model.features(crops.flatten(0, 1))
        weight, bias = model.head.weight, model.head.bias
        heat = (features * weight.view(1, -1, 1, 1)).sum(dim=1) + bias
        logit, found = model.judge_frames(crops.flatten(0, 1))
    torch.testing.assert_close(found, heat, atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(logit, heat.mean(dim=(1, 2)), atol=1e-4, rtol=1e-4)
    assert_close(
        judge(model, crops),
        (logit.view(3, 5).mean(dim=1), logit.view(3, 5), found.view(3, 5, 2, 2)),
    )


def test_names_of_the_weights_are_those_of_old_checkpoints():
    names = list(build().state_dict())
    assert names[-4:] == ["head.weight", "head.bias", "difference.weight", "difference.bias"]
    assert {n.split(".")[0] for n in names[:-4]} == {"mean", "std", "backbone"}
    for head in SEQUENCE:
        others = set(names) - {n for n in names if head == "dfdcnet" and n.startswith("head.")}
        assert others < set(build(head).state_dict())


@pytest.mark.parametrize("head", ["attention", "gru"])
def test_a_head_starts_as_the_frame_classifier(models, head):
    model = build(head)
    missing, unexpected = model.load_state_dict(models["mean"].state_dict(), strict=False)
    assert missing
    assert not unexpected
    assert_close(judge(model.eval(), clips(), MASK), judge(models["mean"], clips(), MASK))


def test_kinds():
    assert {head: build(head).kind for head in HEADS} == {
        "mean": "frame",
        **dict.fromkeys(SEQUENCE, "clip"),
    }
    assert isinstance(build(), MeanModel)


def test_dfdcnet_is_the_network_of_the_dfdc_project():
    """As its code and README say: MixNet's 1536 features, an LSTM, 32 units, one logit."""
    model = build("dfdcnet", backbone="mixnet_s", hidden=512, layers=2, dropout=0.75)
    shapes = {k: tuple(v.shape) for k, v in model.head.state_dict().items() if v.ndim == 2}
    assert shapes == {
        "lstm.weight_ih_l0": (4 * 512, 1536),
        "lstm.weight_hh_l0": (4 * 512, 512),
        "lstm.weight_ih_l1": (4 * 512, 512),
        "lstm.weight_hh_l1": (4 * 512, 512),
        "first.weight": (32, 512),
        "last.weight": (1, 32),
    }
    assert model.head.dropout.p == 0.75
    logit, frame_logit, heat = judge(model.eval(), clips(2, 3, seed=2))
    assert [tuple(t.shape) for t in (logit, frame_logit, heat)] == [(2,), (2, 3), (2, 3, 2, 2)]


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"head": "attentoin"}, "head = 'attentoin': did you mean 'attention'?"),
        ({"hidden": 0}, "hidden = 0 is out of range"),
        ({"layers": 0}, "layers = 0 is out of range"),
        ({"dropout": 1.0}, "dropout = 1.0 is out of range"),
    ],
)
def test_values_out_of_range_are_errors(fields, message):
    with pytest.raises(ConfigError, match=re.escape(message)):
        ModelConfig(**fields)


# What can be learnt: eight clips of four frames, every picture once in a real and once in a fake.

SMALL = Recipe(crop_size=32)
LABELS = torch.tensor([0.0] * 4 + [1.0] * 4)


def textures(count):
    generator = torch.Generator().manual_seed(5)
    coarse = torch.randint(60, 180, (count, 3, 4, 4), generator=generator).float()
    smooth = interpolate(coarse, size=32, mode="bilinear").permute(0, 2, 3, 1)
    return smooth[:, None].expand(count, 4, 32, 32, 3)


def squares():
    """A fake has a bright square in one of its frames, another in every fake."""
    real = textures(4)
    fake = real.clone()
    for k in range(4):
        fake[k, k, 8:16, 8:16] = 255
    return torch.cat([real, fake]).byte()


def flicker():
    """A real is bright or dark, a fake is both by turns: no single frame tells them apart."""
    shifts = torch.tensor([[1, 1, 1, 1], [-1, -1, -1, -1], [1, -1, 1, -1], [-1, 1, -1, 1]])
    return torch.cat([textures(2) + 40 * s.view(1, 4, 1, 1, 1) for s in shifts]).byte()


def overfit(head, crops, steps):
    """Train on all clips at once; return what the network says of them in the end."""
    model = build(head, SMALL, hidden=32, layers=1)
    optimizer = torch.optim.AdamW(model.parameters(), lr=5e-3)
    valid = ones(crops)
    for _ in range(steps):
        logit, _ = model.forward_train(crops, valid)
        optimizer.zero_grad()
        binary_cross_entropy_with_logits(logit, LABELS).backward()
        optimizer.step()
    return judge(model.eval(), crops)


@pytest.mark.parametrize("head", HEADS)
def test_overfits_a_square_in_one_frame_and_says_in_which(head):
    logit, frame_logit, _ = overfit(head, squares(), 60)
    assert torch.equal(logit > 0, LABELS > 0)
    assert frame_logit[4:].argmax(dim=1).tolist() == [0, 1, 2, 3]


@pytest.mark.parametrize("head", ["gru", "dfdcnet"])
def test_overfits_flicker_where_frames_are_seen_together(head):
    logit, _, _ = overfit(head, flicker(), 70)
    assert torch.equal(logit > 0, LABELS > 0)


def test_the_mean_cannot_learn_flicker():
    logit, _, _ = overfit("mean", flicker(), 30)
    assert not torch.equal(logit > 0, LABELS > 0)
