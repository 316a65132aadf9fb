#!/usr/bin/env bash
# The whole test suite from nothing: sets .venv up where it is missing, then runs all tests, one a core. Arguments go to pytest.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
bash denoise_code/install.sh
export OMP_NUM_THREADS=1
exec .venv/bin/python -m pytest -q --numprocesses auto --dist worksteal "${@:-tests}"
