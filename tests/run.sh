#!/usr/bin/env bash
# The whole test suite from nothing: sets .venv up where it is missing, then runs all tests. Arguments go to pytest.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
bash denoise_code/install.sh
exec .venv/bin/python -m pytest -q "${@:-tests}"
