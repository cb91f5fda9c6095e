# shellcheck shell=bash
# Functions that the steps of docker/check.sh share.

# Functions, so that commands that Vigía prints can be run verbatim with another client. `command` skips functions.
docker() { command $DOCKER "$@"; }
curl() { command $CURL "$@"; }

compose() { (cd "$FOLDER" && docker compose "$@"); }

# Runs a command whose output is only of interest if it fails.
quietly() { "$@" >"$LOG" 2>&1 || { local code=$?; tail -n 60 "$LOG" >&2; fail "exit code $code of: $*"; }; }

fail() {
    printf 'FAIL  %s: %s\n' "$STEP" "$*" >&2
    exit 1
}

note() { NOTE="${NOTE:+$NOTE; }$*"; }

skip() { printf 'NOT CHECKED  %s: %s\n' "$STEP" "$*"; }

# Prints a failed command once, not again in every surrounding shell.
trouble() { [ "$BASH_SUBSHELL" -gt 0 ] || printf 'FAIL  %s, %s: %s\n' "$STEP" "$1" "$2" >&2; }

# Containers of the project: `containers` for the running ones, `containers --all`.
containers() {
    docker ps --quiet --no-trunc "$@" --filter "label=com.docker.compose.project=$COMPOSE_PROJECT_NAME" \
        --filter label=com.docker.compose.oneoff=False
}

# The running containers; a step that looks at each of them must not look at none.
some_containers() {
    local found
    found=$(containers)
    [ "$(wc -l <<<"$found")" -ge "${LEAST_CONTAINERS:-8}" ] || fail "few containers run: $found"
    echo "$found"
}

service_of() { docker inspect --format '{{index .Config.Labels "com.docker.compose.service"}}' "$1"; }

# The only container of a service.
container() {
    local found
    found=$(containers --all --filter "label=com.docker.compose.service=$1")
    [ -n "$found" ] && [ "$(wc -l <<<"$found")" = 1 ] || fail "service $1 has the containers: ${found:-none}"
    echo "$found"
}

# Python of the image, in the engine's own network, where the published ports are; the program comes on standard
# input, so that the engine needs to see no file.
in_network_of_host() {
    docker run --rm --interactive --label "vigia-check=$RUN" --network host --read-only \
        --env KEY="${KEY:-}" --env PASSWORD="${PASSWORD:-}" --entrypoint python "$VIGIA_IMAGE" - "$@"
}

client() { in_network_of_host "$ADDRESS" "$@" <"$ROOT/docker/check/client.py"; }

credentials() {
    KEY=$(compose exec -T web cat /data/client-key)
    PASSWORD=$(compose exec -T web cat /data/admin-password)
    [ -n "$KEY" ] && [ -n "$PASSWORD" ] || fail "the start left no client key or no admin password"
}

sql() { compose exec -T postgres psql --username=postgres --dbname=vigia --no-psqlrc --tuples-only --no-align --command="$1"; }

# Number and digest of the logged predictions.
log_digest() { sql "SELECT count(*), md5(string_agg(p::text, '' ORDER BY id)) FROM predictions_prediction p"; }

state_of() {
    docker inspect "$1" --format '{{index .Config.Labels "com.docker.compose.service"}} {{.State.Status}} {{.State.ExitCode}} {{if .State.Health}}{{.State.Health.Status}}{{end}}'
}

# All containers of the project run and are healthy, one-shots have ended with 0.
all_well() {
    local id state ids wrong=''
    ids=$(containers --all)
    [ -n "$ids" ] || { echo 'no containers'; return 1; }
    for id in $ids; do
        state=$(state_of "$id")
        case $state in
            *' running 0 healthy' | 'secrets exited 0 ' | 'migrate exited 0 ') ;;
            *) wrong+="$state"$'\n' ;;
        esac
    done
    [ -z "$wrong" ] || { printf '%s' "$wrong"; return 1; }
}

# Waits until all_well holds.
wait_well() {
    local until=$((SECONDS + $1)) wrong
    until wrong=$(all_well); do
        [ $SECONDS -lt $until ] || fail "after $1 s: $wrong"
        sleep 0.5
    done
}

show_logs() {
    local id name
    while read -r id; do
        name=$(service_of "$id")
        if [ ${#CONCERNED[@]} -gt 0 ] && ! [[ " ${CONCERNED[*]} " == *" $name "* ]]; then continue; fi
        printf -- '----- %s\n' "$(state_of "$id")"
        docker logs --tail "${CHECK_LOG_LINES:-25}" "$id" 2>&1 || true
    done < <(containers --all)
}

remove() {
    local project ids
    ids=$(docker ps --all --quiet --filter "label=vigia-check=$RUN")
    [ -z "$ids" ] || docker rm --force --volumes $ids >/dev/null
    for project in "${PROJECTS[@]}"; do
        ids=$(docker ps --all --quiet --filter "label=com.docker.compose.project=$project")
        [ -z "$ids" ] || docker rm --force --volumes $ids >/dev/null
        ids=$(docker network ls --quiet --filter "label=com.docker.compose.project=$project")
        [ -z "$ids" ] || docker network rm $ids >/dev/null
        ids=$(docker volume ls --quiet --filter "label=com.docker.compose.project=$project")
        [ -z "$ids" ] || docker volume rm $ids >/dev/null
    done
    ids=$(docker image ls --quiet --filter "reference=$RUN" | sort -u)
    [ -z "$ids" ] || docker image rm --force $ids >/dev/null
}

finish() {
    trap - ERR EXIT
    set +e
    [ -z "${LOAD:-}" ] || kill "$LOAD" 2>/dev/null
    if [ "$1" != 0 ]; then
        printf 'FAIL  in step %s; the last lines of the containers:\n' "$STEP" >&2
        show_logs >&2
    fi
    if [ -n "$keep" ]; then
        echo "kept: --on $RUN; to remove it: docker compose --project-name $RUN --profile '*' down --volumes; rm -r $WORK"
    else
        remove
        rm -rf "$WORK"
    fi
    exit "$1"
}
