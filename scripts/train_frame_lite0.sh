#!/bin/sh
# Trains, exports and calibrates the shipped model: five runs and two averages of weights, then five
# runs and an average of a network that judges parts of the face beside it, numbered as in
# docs/experiments.md. About nine hours on two CPU cores.
set -eu

config=configs/frame_lite0.toml
parts=configs/frame_lite0_patches.toml

train() { # number of the run, start, settings
    number=$1 start=$2
    shift 2
    tellframe train "$config" -o "runs/$number" --set "model.start=$start" --set quality.crops=0 "$@"
}

average() { # number of the result, settings, runs
    number=$1 settings=$2
    shift 2
    python scripts/average_runs.py --set "$settings" "$config" "runs/$number" "$@"
}

tellframe train configs/frame_lite0_stage1.toml -o runs/1
train 2 runs/1
train 3 runs/1 --set batch.video_pairs=6 --set batch.favour=2.0 --set batch.self_blends=4 \
    --set optim.seed=2 --set optim.steps=2400 --set optim.lr=2e-4 --set optim.weight_decay=0.1 \
    --set optim.ema=0.999 --set model.dropout=0.4
average 4 quality.crops=0 runs/2 runs/3
train 5 runs/4 --set batch.video_pairs=6 --set batch.favour=2.5 --set batch.self_blends=4 \
    --set augment.h264=0.15 --set optim.seed=3 --set optim.lr=3e-4 --set optim.weight_decay=0.05
train 6 runs/4 --set batch.video_pairs=5 --set batch.favour=2.0 --set batch.still_pairs=7 \
    --set augment.h264=0.15 --set optim.seed=4 --set optim.steps=1300 --set optim.lr=3e-4 \
    --set optim.weight_decay=0.05 --set optim.label_smoothing=0.1 --set recipe.margin=0.0 \
    --set model.dropout=0.3 --set model.frozen_stages=3
average 7 quality.crops=2000 runs/4 runs/5 runs/6

patches() { # number of the run, start, seed, steps, settings
    number=$1 start=$2 seed=$3 steps=$4
    shift 4
    tellframe train "$parts" -o "runs/$number" --set "model.start=$start" --set "optim.seed=$seed" \
        --set "optim.steps=$steps" --set optim.precision=fp32 "$@"
}

patches 38 runs/7 71 1500
patches 40 runs/38 72 3000
patches 41 runs/40 73 2200
patches 44 runs/41 74 7000
patches 51 runs/44 77 4000 --set optim.lr=1e-3 --set batch.crop_size=256 \
    --set optim.precision=bf16
python scripts/average_runs.py "$parts" runs/52 runs/44 runs/51
tellframe export runs/7 runs/52 -o bundles/frame_lite0 --name frame_lite0 --version 0.5.0
tellframe calibrate ../shared/data/labels.csv --stills ../shared/data/dev/dfdc_faces.zip \
    --model bundles/frame_lite0 --error-rate 0.02 --miss-rate 0.1
