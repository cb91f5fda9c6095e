# shellcheck shell=bash
# Steps: from the clone to running containers, and what starting again may change.

step_build() {
    git clone --quiet "$ROOT" "$FOLDER"
    [ ! -e "$FOLDER/.env" ] || fail "the clone has a .env"
    quietly compose build
    local size
    size=$(docker image inspect --format '{{.Size}}' "$VIGIA_IMAGE")
    note "$((size / 1000000)) MB"
    [ "$size" -lt "$LARGEST_IMAGE" ] || fail "the image has $size bytes; $LARGEST_IMAGE are allowed"
}

step_up() {
    quietly compose up --detach --wait --wait-timeout 300
    local service wrong
    for service in $(compose config --services); do
        container "$service" >/dev/null
    done
    wrong=$(all_well) || fail "up --wait has returned, and: $wrong"
    credentials
}

# The lines that the start prints, followed to the letter.
step_welcome() {
    CONCERNED=(migrate proxy web)
    local log command answer
    log=$(compose logs --no-log-prefix proxy)
    grep -qF "$ADDRESS/" <<<"$log" || fail "the proxy's log does not name $ADDRESS"
    command=$(grep -m 1 '^ *curl ' <<<"$log") || fail "the proxy's log has no curl"
    answer=$(cd "$FOLDER" && eval "$command")
    [[ $answer == *'"predictions"'*'"id"'* ]] || fail "the printed curl gets: $answer"
    command=$(grep -om 1 'docker compose exec web cat /data/admin-password' <<<"$log") || fail "no place of the admin's password"
    [ "$(cd "$FOLDER" && ${command/exec/exec -T})" = "$PASSWORD" ] || fail "$command does not show the password"
}

# Ids and starts of all containers; one-shots run again in the same container.
identities() {
    local ids
    ids=$(containers --all) && [ -n "$ids" ] || fail 'no containers'
    docker inspect --format '{{.Name}} {{.Id}} {{if eq .State.Status "running"}}{{.State.StartedAt}}{{end}}' $ids | sort
}

step_again() {
    local before after
    before=$(identities)
    quietly compose up --detach --wait --wait-timeout 120
    after=$(identities)
    [ "$before" = "$after" ] || fail "a second up has replaced containers:
$(diff <(echo "$before") <(echo "$after"))"
    quietly compose up --detach --build --wait --wait-timeout 120
    after=$(identities)
    [ "$before" = "$after" ] || fail "up --build without a change has replaced containers:
$(diff <(echo "$before") <(echo "$after"))"
}

# kill -9 of a container's main process. Not `docker kill`, after which the restart policy does not hold.
kill_main_processes() {
    local pids
    pids=$(docker inspect --format '{{.State.Pid}}' "$@")
    docker run --rm --label "vigia-check=$RUN" --pid host --user 0 --entrypoint python "$VIGIA_IMAGE" -c \
        'import os, signal, sys
for pid in map(int, sys.argv[1:]): os.kill(pid, signal.SIGKILL)' $pids
}

# Kills the services' main processes and waits for them to be back.
kill_services() {  # SECONDS SERVICE…
    local seconds=$1 service id ids=() before=()
    shift
    CONCERNED=("$@")
    for service; do
        id=$(container "$service")
        ids+=("$id") before+=("$(docker inspect --format '{{.RestartCount}}' "$id")")
    done
    kill_main_processes "${ids[@]}"
    local i until=$((SECONDS + 30))
    for i in "${!ids[@]}"; do
        until [ "$(docker inspect --format '{{.RestartCount}}' "${ids[i]}")" -gt "${before[i]}" ]; do
            [ $SECONDS -lt $until ] || fail "$(service_of "${ids[i]}") was killed and is not started again"
            sleep 0.2
        done
    done
    wait_well "$seconds"
}

step_kill() {
    local services service result
    services=$(compose config --services | grep -vxE 'secrets|migrate|web|postgres|proxy')
    # Predictions need none of these.
    client probe 25 >"$WORK/probe" &
    local probe=$!
    sleep 1
    kill_services 120 $services
    wait $probe
    result=$(cat "$WORK/probe")
    [[ $result == *' 0 failures' && $result != '0 '* ]] || fail "while $(echo $services) were killed: $result"
    local tries
    for service in web postgres proxy; do
        kill_services 120 "$service"
        tries=0
        until client predict >"$LOG" 2>&1; do
            [ $((tries += 1)) -lt 10 ] || fail "$service was killed; afterwards: $(cat "$LOG")"
            sleep 1
        done
    done
    client retrain houses >/dev/null
    note "$(echo $services) web postgres proxy"
}

step_restart() {
    local before after
    before=$(log_digest)
    quietly compose down --timeout 60
    [ -z "$(containers --all)" ] || fail "down leaves containers: $(containers --all)"
    quietly compose up --detach --wait --wait-timeout 300
    after=$(log_digest)
    [ "$before" = "$after" ] || fail "the log had (rows|digest) $before before down and up, and has $after"
    [ "${before%%|*}" -gt 0 ] || fail "the log was empty"
    client predict >/dev/null
    note "${before%%|*} rows"
}

# Code of an image must not run on a database that is not migrated for it.
step_unmigrated() {
    CONCERNED=(migrate)
    # By name: a squashed migration is recorded after those that follow it.
    local last="(SELECT id FROM django_migrations WHERE app = 'predictions' ORDER BY name DESC LIMIT 1)" output
    sql "UPDATE django_migrations SET name = name || '.hidden' WHERE id = $last" >/dev/null
    output=$(compose run --rm --no-deps -T worker python -c 'print("it ran")' 2>&1) && fail "compose run on an unmigrated database: $output"
    [[ $output == *REFUSED*'not migrated'* ]] || fail "compose run on an unmigrated database fails otherwise: $output"
    sql "UPDATE django_migrations SET name = replace(name, '.hidden', '') WHERE id = $last" >/dev/null
    output=$(compose run --rm --no-deps -T worker python -c 'print("it ran")' 2>&1)
    [[ $output == *'it ran'* ]] || fail "compose run on the migrated database: $output"
}
