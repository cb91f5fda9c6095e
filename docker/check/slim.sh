# shellcheck shell=bash
# Step: web from the slim image.

slim() { compose --file docker-compose.yml --file docker/compose.slim.yml "$@"; }

step_slim() {
    CONCERNED=(web migrate)
    export VIGIA_SLIM_IMAGE=$RUN:slim
    quietly slim build web
    local size modules answer
    size=$(docker image inspect --format '{{.Size}}' "$VIGIA_SLIM_IMAGE")
    note "$((size / 1000000)) MB"
    [ "$size" -lt "${LARGEST_SLIM_IMAGE:-450000000}" ] || fail "the image has $size bytes"
    quietly slim up --detach --wait --wait-timeout 300
    [ "$(docker inspect --format '{{.Config.Image}}' "$(container web)")" = "$VIGIA_SLIM_IMAGE" ] || fail "web runs another image"
    modules=$(slim exec -T web python -c 'from importlib.util import find_spec as find
print(*filter(find, "pandas sklearn scipy pyarrow joblib onnx skl2onnx numba".split()))')
    [ -z "$modules" ] || fail "the slim image has $modules"
    client predict >/dev/null
    client login >/dev/null
    # Rows for training need pyarrow.
    answer=$(slim exec -T web python - <<'PROGRAM'
import http.client, pathlib
key = pathlib.Path("/data/client-key").read_text().strip()
connection = http.client.HTTPConnection("127.0.0.1", 8000)
headers = {"Authorization": f"Token {key}", "Content-Type": "application/json"}
connection.request("POST", "/api/v1/models/churn/training-runs/", '{"instances": [{"tenure": 1}]}', headers)
answer = connection.getresponse()
print(answer.status, answer.read().decode())
PROGRAM
)
    [[ $answer == 501*'"needs_full_image"'* ]] || fail "an upload of training rows gets: $answer"
    # Training on stored rows is the worker's.
    client retrain churn >/dev/null
    quietly compose up --detach --wait --wait-timeout 300
    client predict >/dev/null
}
