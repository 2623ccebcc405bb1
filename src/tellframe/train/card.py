"""The draft of a model card: what the bundle knows of itself, and what a person has to add."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

from tellframe.bundle import Bundle

MARK: Final = "<!-- Draft by `tellframe export`. Without this line it is never written over. -->"
TODO: Final = "**To be filled in:**"

_HEADS: Final = {
    "mean": "The mean of the logits over the frames of one person is the logit of the person.",
    "attention": "The logit of a person is a mean of the logits of the frames, weighted by gated "
    "attention (Ilse et al. 2018).",
    "gru": "A GRU in both directions adds to the logit of every frame what its neighbours tell; "
    "their mean is the logit of the person.",
    "dfdcnet": "An LSTM over the frames, followed by two layers, gives the logit of the person; "
    "the score of a frame is that of a clip of this frame alone.",
}


def write_card(bundle: Bundle, folder: Path) -> bool:
    """Write model_card.md beside a bundle; return whether it was.

    A card that a person has taken over, which is one without the first line of a draft, is kept.

    Args:
        bundle: whose `training` holds the configuration and the steps.
        folder: where.
    """
    path = folder / "model_card.md"
    if path.exists() and not path.read_text(encoding="utf-8").startswith(MARK):
        return False
    temporary = folder / "model_card.md.part"
    temporary.write_text(model_card(bundle), encoding="utf-8")
    temporary.replace(path)
    return True


def model_card(bundle: Bundle) -> str:
    """Return the draft in Markdown; it holds no figure that the bundle does not hold."""
    config = bundle.training.get("config", {})
    parts = [
        f"{MARK}\n# Model card: {bundle.name}, version {bundle.version}",
        "## What it is\n" + _what(bundle, config.get("model", {})),
        "## What it is for, and what not\n"
        "To point people who check videos to faces that deserve a closer look. It is no proof, in "
        "either\ndirection: a low score does not make a video authentic, and a high one convicts "
        "nobody. It must not\ndecide alone about anybody. It judges faces only, not voices, texts "
        "or scenes.",
        "## Training data, and its terms\n" + _data(config),
        "## How it was trained\n" + _training(bundle, config),
        "## How well it does\n" + _metrics(bundle),
        "## Known limits\n" + _limits(bundle),
        f"## Licence\n{bundle.licence or f'{TODO} the licence of the weights.'}",
    ]
    return "\n\n".join(parts) + "\n"


def _what(bundle: Bundle, model: Mapping[str, Any]) -> str:
    size = bundle.graph.stat().st_size / 1e6 if bundle.graph.is_file() else 0.0
    head = str(model.get("head", "mean"))
    start = model.get("start") or model.get("pretrained") or "random weights"
    joined = len(bundle.training.get("joined", ()))
    together = (
        f"It judges together with {joined} more, see below: the mean of their logits counts.\n"
    )
    return (
        f"The backbone `{model.get('backbone', 'unknown')}` ({size:.1f} MB as ONNX) on face crops "
        f"of {bundle.recipe.crop_size} px, of which a video gives up to "
        f"{bundle.recipe.num_frames} a person.\n{_HEADS.get(head, head)}\n"
        f"{together if joined else ''}"
        f"It started from: `{start}`. {TODO} where those weights come from, and their licence."
    )


def _data(config: Mapping[str, Any]) -> str:
    data = {k: v for k, v in config.get("data", {}).items() if v not in ("", [], (), None)}
    rows = [f"| `{key}` | `{_plain(value)}` |" for key, value in data.items()]
    table = ["| data | as configured |", "| --- | --- |", *rows] if rows else []
    if not any(key.startswith("terms") for key in data):
        table += ["", f"{TODO} what each of these holds, who gave it, and its terms of use;"]
        table += ["whether the weights may be passed on, and used commercially, depends on them."]
    return "\n".join(table).strip()


def _training(bundle: Bundle, config: Mapping[str, Any]) -> str:
    made = {
        "steps": bundle.training.get("steps"),
        "seed": config.get("optim", {}).get("seed"),
        "torch": bundle.training.get("torch"),
        "recipe digest": bundle.recipe.digest,
        "SHA-256 of the graph": bundle.sha256,
    }
    lines = [f"- {key}: {value}" for key, value in made.items() if value is not None]
    text = json.dumps(config, indent=2)
    parts = [
        "`tellframe train` with the configuration below.",
        "",
        *lines,
        "",
        f"```json\n{text}\n```",
    ]
    for other in bundle.training.get("joined", ()):
        text = json.dumps(other.get("config", {}), indent=2)
        parts += ["", f"Joined with, after {other.get('steps')} steps:", f"\n```json\n{text}\n```"]
    return "\n".join(parts)


def _metrics(bundle: Bundle) -> str:
    fitted = bundle.calibration.fitted_on
    calibrated = "It is not calibrated." if fitted == "nothing" else f"Calibrated on: {fitted}."
    if not bundle.metrics:
        measure = "`tellframe evaluate LABELS.csv --model BUNDLE`"
        return f"Not measured yet: {measure} makes the table.\n{calibrated}"
    rows = {k: v for k, v in bundle.metrics.items() if isinstance(v, Mapping)}
    names = list(dict.fromkeys(k for v in rows.values() for k, x in v.items() if _is_figure(x)))
    table = [f"| measured on | {' | '.join(names)} |", "| --- " * (len(names) + 1) + "|"]
    for key, values in rows.items():
        cells = [_plain(values.get(name)) for name in names]
        table.append(f"| {key} | {' | '.join(cells)} |")
    figures = "\n".join(table) if names else ""
    return f"{figures}\n\nAll figures are in `bundle.json`, under `metrics`.\n{calibrated}".strip()


def _is_figure(value: object) -> bool:
    """Whether a value is a number, or the two ends of an interval."""
    ends = value if isinstance(value, list | tuple) and len(value) == 2 else [value]
    return all(isinstance(end, int | float) for end in ends)


def _limits(bundle: Bundle) -> str:
    decision = bundle.decision
    return (
        "- It knows what it was trained on: other methods, cameras and compression lower its "
        "scores' worth.\n"
        "- Profile views, heavy compression and dark faces are hard for detectors of this kind; "
        "how hard\n  was not measured here.\n"
        f"- Faces below {decision.min_face_size:g} px and people seen in fewer than "
        f"{decision.min_frames} frames are INCONCLUSIVE.\n"
        f"- So are people whose pictures the model takes for badly degraded, with a P above "
        f"{decision.max_degraded:g} where it tells.\n"
        f"- FAKE from {decision.fake_from:g}, REAL to {decision.real_to:g} of the probability, "
        "INCONCLUSIVE in between.\n"
        f"- {TODO} what is known of differences between groups of people, and of attacks."
    )


def _plain(value: object) -> str:
    if isinstance(value, list | tuple):
        return ", ".join(map(str, value))
    return "-" if value is None else str(value)
