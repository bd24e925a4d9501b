#!/bin/sh
# What the image is made of, from the source in $1 into the virtual environment $2: pinned, hashed, compiled. The Dockerfile runs
# this, and so does a test on a machine without an engine.
set -eu
source=$1 target=$2
python3.11 -m venv "$target"
"$target/bin/python" -m pip install --quiet --disable-pip-version-check --require-hashes -r "$source/requirements/bootstrap.lock"
"$target/bin/uv" pip sync --quiet --python "$target/bin/python" --require-hashes "$source/requirements/bootstrap.lock" "$source/requirements/service.lock"
# what builds our own package, from the same pins that it is developed with
"$target/bin/uv" pip install --quiet --python "$target/bin/python" --constraint "$source/requirements/dev.lock" hatchling editables
"$target/bin/uv" pip install --quiet --python "$target/bin/python" --no-deps --no-build-isolation "$source"
# what only building needed
"$target/bin/uv" pip uninstall --quiet --python "$target/bin/python" hatchling editables pip uv || true
"$target/bin/python" -m compileall -q "$target/lib" || true
cp "$source/infra/image/ready.py" "$target/ready.py"
"$target/bin/sluice" --version
