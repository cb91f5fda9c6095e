# shellcheck shell=bash
# Steps: load while containers come and go, monitoring, backups.

# Sends predictions through the proxy until load_end.
load_begin() {
    LOAD_FILE=/data/tmp/$RUN-$SECONDS
    local before until=$((SECONDS + 60))
    before=$(load_rows)
    compose run --rm --no-deps -T --label "vigia-check=$RUN" web python -m docker.load send http://proxy:8080 "$LOAD_FILE.json" \
        --rate "${CHECK_RATE:-30}" --seconds 900 --until "$LOAD_FILE.stop" >"$WORK/load" 2>&1 &
    LOAD=$!
    until [ "$(load_rows)" -gt "$before" ]; do
        [ $SECONDS -lt $until ] && kill -0 $LOAD 2>/dev/null || fail "the load does not begin: $(cat "$WORK/load")"
        sleep 0.5
    done
}

load_rows() { sql "SELECT count(*) FROM predictions_prediction WHERE starts_with(request_id, 'load-')"; }

# Ends the load: all answers were 200, and each is in the log exactly once.
load_end() {
    compose exec -T housekeeping touch "$LOAD_FILE.stop"
    wait $LOAD || fail "requests failed: $(cat "$WORK/load")"
    note "$(grep -m 1 requests "$WORK/load")"
    local compared
    compared=$(compose run --rm --no-deps -T web python -m docker.load compare "$LOAD_FILE.json") || fail "log and answers differ: $compared"
    note "$compared"
}

number_of() { containers --filter "label=com.docker.compose.service=$1" | grep -c . || true; }

scale() {  # WEB WORKER
    quietly compose up --detach --wait --wait-timeout 180 --scale "web=$1" --scale "worker=$2"
    [ "$(number_of web) $(number_of worker)" = "$1 $2" ] || fail "scaled to $1 web and $2 worker; running: $(number_of web) and $(number_of worker)"
}

step_scale() {
    CONCERNED=(web proxy worker)
    load_begin
    scale 3 4
    sleep 3
    scale 1 1
    sleep 3
    load_end
}

step_monitoring() {
    CONCERNED=(prometheus alertmanager grafana monitoring-proxy)
    local password='' scales=(--scale web=2 --scale worker=2)
    if [ "${GRAFANA_IMAGE:-}" = none ]; then
        skip 'Grafana: this engine has no image of it'
        # Compose asks for the image even of a service without containers.
        local -x GRAFANA_IMAGE=$VIGIA_IMAGE
        scales+=(--scale grafana=0)
    else
        password=$(docker run --rm --label "vigia-check=$RUN" --network none --user 0 --volume "${COMPOSE_PROJECT_NAME}_secrets:/secrets:ro" \
            --entrypoint cat "$VIGIA_IMAGE" /secrets/stored/grafana_password)
    fi
    quietly compose --profile monitoring up --detach --wait --wait-timeout 180 "${scales[@]}"
    # Two of web, two of worker, housekeeping, Prometheus, Alertmanager.
    NOTE=$(PASSWORD=$password client monitoring "http://$PROMETHEUS_PUBLISH" "http://$ALERTMANAGER_PUBLISH" "http://$GRAFANA_PUBLISH" 7)
    STEP='monitoring, ports' step_ports
    STEP='monitoring, rights' step_rights
    STEP='monitoring, networks' step_networks
    CONCERNED=()
    quietly compose --profile monitoring rm --force --stop prometheus alertmanager grafana monitoring-proxy
    scale 1 1
}

# Runs a command in another compose project with a clone of its own.
other_project() {  # NAME PORT
    OTHER=$RUN-$1
    PROJECTS+=("$OTHER")
    OTHER_FOLDER=$WORK/$1
    OTHER_ADDRESS=http://127.0.0.1:$2
    [ -d "$OTHER_FOLDER" ] || git clone --quiet "$FOLDER" "$OTHER_FOLDER"
}
in_other() { (export COMPOSE_PROJECT_NAME=$OTHER VIGIA_PUBLISH=${OTHER_ADDRESS#http://}; cd "$OTHER_FOLDER" && "$@"); }

step_backup() {
    CONCERNED=(backup postgres)
    local file name
    # Nothing may write between the backup and the digest.
    quietly compose stop web worker housekeeping beat events backup
    (cd "$FOLDER" && ./backup --compose "$WORK/backups") >"$LOG" 2>&1 || fail "./backup: $(cat "$LOG")"
    file=$(tail -n 1 "$LOG")
    [ -s "$file" ] || fail "./backup names no file: $(cat "$LOG")"
    compose run --rm -T --no-deps backup python -m backups.digest >"$WORK/digest"
    [ "$(wc -l <"$WORK/digest")" -gt 20 ] || fail "few tables: $(cat "$WORK/digest")"
    local before
    before=$(log_digest)
    quietly compose up --detach --wait --wait-timeout 180
    # Into an empty place, with the artifact key alone.
    other_project restored 18001
    docker run --rm --label "vigia-check=$RUN" --network none --user 0 --volume "${COMPOSE_PROJECT_NAME}_secrets:/secrets:ro" \
        --entrypoint cat "$VIGIA_IMAGE" /secrets/stored/artifact_key >"$OTHER_FOLDER/secrets/artifact_key"
    in_other ./restore --compose "$file" >"$LOG" 2>&1 || fail "./restore: $(tail -n 40 "$LOG")"
    local key
    key=$(in_other docker compose exec -T web cat /data/client-key)
    (KEY=$key ADDRESS=$OTHER_ADDRESS client predict >/dev/null)
    # Row by row, with nothing running that writes.
    quietly in_other docker compose stop web worker housekeeping beat events backup
    name=${file##*/}
    quietly in_other docker compose run --rm -T --no-deps backup python -m backups restore "$name" --replace --no-safety-copy
    in_other docker compose run --rm -T --no-deps backup sh -c 'cat >/tmp/before && exec python -m backups.digest --compare /tmp/before \
        --without training_heartbeat --without django_session' <"$WORK/digest" >"$LOG" 2>&1 || fail "the restored rows differ: $(cat "$LOG")"
    note "$(wc -l <"$WORK/digest") tables and sequences, ${before%%|*} predictions"
    quietly in_other docker compose down --volumes --timeout 5
}
