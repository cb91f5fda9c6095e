# shellcheck shell=bash
# Step: `make run` where there is Python and make, but no compiler, no Docker and no root.

step_make_run() {
    local image=$RUN:make
    quietly docker build --tag "$image" --build-arg "PYTHON_IMAGE=${PYTHON_IMAGE:-$(sed -n 's/^ARG PYTHON_IMAGE=//p' "$ROOT/Dockerfile")}" - <<'DOCKERFILE'
ARG PYTHON_IMAGE
FROM ${PYTHON_IMAGE}
RUN apt-get update && apt-get install --yes --no-install-recommends make \
    && useradd --create-home --uid 1000 person
USER person
WORKDIR /home/person
DOCKERFILE
    git -C "$FOLDER" archive --prefix=vigia/ HEAD | docker run --rm --interactive --init --label "vigia-check=$RUN" "$image" sh -c '
        set -eu
        test "$(id -u)" = 1000
        for each in cc gcc clang docker; do ! command -v "$each" || { echo "there is $each" >&2; exit 1; }; done
        tar -x && cd vigia
        make run >run.log 2>&1 &
        i=0
        until grep -q "Vigía is up" run.log; do
            i=$((i + 1))
            kill -0 $! && [ $i -lt 400 ] || { cat run.log >&2; exit 1; }
            sleep 1
        done
        .venv/bin/python -c "
import http.client, json, pathlib
from training import catalogue
key = pathlib.Path(\"var/client-key\").read_text().strip()
connection = http.client.HTTPConnection(\"127.0.0.1\", 8000)
headers = {\"Authorization\": f\"Token {key}\", \"Content-Type\": \"application/json\"}
row = json.dumps(catalogue.get(\"churn\").schema.example)
connection.request(\"POST\", \"/api/v1/models/churn/predictions/\", row, headers)
answer = connection.getresponse()
text = answer.read().decode()
assert answer.status == 200, text
print(text)
"
    ' >"$WORK/make-run" 2>&1 || { tail -n 40 "$WORK/make-run" >&2; fail "make run without a compiler"; }
    grep -q '"predictions"' "$WORK/make-run" || fail "make run printed: $(tail -n 5 "$WORK/make-run")"
}
