#!/usr/bin/env bash
# Every row of bad_input.tsv: exit code, the one line on stderr, nothing left behind.
set -euo pipefail
exec python3 "$(dirname "$0")/run_bad_input.py" --perft "${PERFT_BINARY:?the program}"
