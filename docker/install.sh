#!/bin/sh
# Fills /venv in the image's build. Wheels only: nothing is compiled, so the build needs Python alone.
set -eu
/venv/bin/pip install --disable-pip-version-check --no-input --no-cache-dir \
    --require-hashes --only-binary :all: --requirement /build/requirements.txt
/venv/bin/pip uninstall --disable-pip-version-check --yes --quiet pip setuptools
/venv/bin/python /build/prune.py /venv
