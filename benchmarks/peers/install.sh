#!/bin/sh
# Installs the peers into an environment of their own, beside this script; git ignores it.
# facenet-pytorch asks for an old torch; its MTCNN works with new ones, so it comes without them.
set -eu
here=$(dirname "$0")
env="$here/.venv-peers"
test -x "$env/bin/python" || "${PYTHON:-python3}" -m venv "$env"
"$env/bin/pip" install --quiet torch==2.14.1 torchvision==0.29.1 timm opencv-python-headless requests tqdm
"$env/bin/pip" install --quiet --no-deps facenet-pytorch==2.6.0
"$env/bin/python" "$here/worker.py" student --check
"$env/bin/python" "$here/worker.py" winner --check
