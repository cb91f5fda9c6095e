# shellcheck shell=bash
# Steps: what containers must not be able to do.

# Only the proxies are reached from outside.
step_ports() {
    local id service ports
    while read -r id; do
        service=$(service_of "$id")
        # Asked for, and there: a container of internal networks alone gets no port.
        ports=$(docker inspect --format '{{range .HostConfig.PortBindings}}{{range .}}{{.HostIp}}:{{.HostPort}} {{end}}{{end}}
{{range .NetworkSettings.Ports}}{{range .}}{{.HostIp}}:{{.HostPort}} {{end}}{{end}}' "$id" | sort -u | tr -d '\n')
        case $service in
            proxy) [ "$ports" = "$VIGIA_PUBLISH " ] || fail "the proxy publishes: $ports" ;;
            monitoring-proxy) [[ $ports =~ ^(127\.0\.0\.1:[0-9]+\ )+$ ]] || fail "monitoring is published on: $ports" ;;
            *) [ -z "$ports" ] || fail "$service publishes $ports" ;;
        esac
        [ "$(docker inspect --format '{{.HostConfig.NetworkMode}}' "$id")" != host ] || fail "$service is in the network of the host"
    done < <(containers)
}

# No secret in what the engine shows of containers and image, in a command line or in a log.
step_secrets() {
    local shown=$WORK/shown secrets=$WORK/secrets name found id
    docker run --rm --label "vigia-check=$RUN" --network none --user 0 --volume "${COMPOSE_PROJECT_NAME}_secrets:/secrets:ro" \
        --entrypoint python "$VIGIA_IMAGE" -c '
import pathlib
for path in pathlib.Path("/secrets").rglob("*"):
    if path.is_file() and path.read_text().strip():
        print(path.read_text().strip())' >"$secrets"
    printf '%s\n' "$KEY" "$PASSWORD" >>"$secrets"
    sort -u -o "$secrets" "$secrets"
    [ "$(awk 'length($0) >= 12' "$secrets" | wc -l)" -ge 9 ] || fail "too few secrets found to look for: $(wc -l <"$secrets")"
    {
        docker inspect $(containers --all)
        docker image inspect "$VIGIA_IMAGE"
        docker history --no-trunc "$VIGIA_IMAGE"
        for id in $(containers); do docker top "$id" -eo pid,args; done
        compose logs --no-color
    } >"$shown" 2>&1
    grep -q '"Env"' "$shown" || fail "docker inspect shows no environment: the search is blind"
    found=$(grep -cFf "$secrets" "$shown") || true
    [ "$found" = 0 ] || fail "$found lines of docker inspect, history, top or logs hold a secret, such as: $(grep -Ff "$secrets" "$shown" | head -n 3)"
    # A secret that a user sets would be in such a variable.
    name=$(docker inspect --format '{{range .Config.Env}}{{println .}}{{end}}' $(containers --all) |
        grep -E '^[A-Z_]*(PASSWORD|SECRET|TOKEN|KEY|_URL|REDISCLI_AUTH)=.' | grep -vE '^GPG_KEY=' || true)
    [ -z "$name" ] || fail "environment of a container: $name"
    # A reader's directory opens for the reader alone.
    found=$(compose exec -T web sh -c 'ls /run/secrets; cat /run/secrets/postgres_password 2>/dev/null' | grep -xE '(postgres|grafana)_password|.*stored' || true)
    [ -z "$found" ] || fail "web sees $found"
}

# Read-only root, an unprivileged user, no capabilities; as configured, and as the kernel says.
step_rights() {
    local id service config status uid caps allowed
    while read -r id; do
        service=$(service_of "$id")
        CONCERNED=("$service")
        case $service in
            proxy | monitoring-proxy) allowed='[CAP_NET_BIND_SERVICE]' ;;
            *) allowed='[]' ;;
        esac
        config=$(docker inspect --format '{{.HostConfig.ReadonlyRootfs}} {{.HostConfig.Privileged}} {{.HostConfig.CapDrop}} {{.HostConfig.CapAdd}} {{.HostConfig.SecurityOpt}}' "$id")
        [ "$config" = "true false [ALL] $allowed [no-new-privileges:true]" ] ||
            fail "$service: read-only, privileged, dropped, added, security options are: $config"
        [[ $(docker inspect --format '{{.HostConfig.Memory}} {{.HostConfig.PidsLimit}}' "$id") =~ ^[1-9][0-9]*\ [1-9][0-9]*$ ]] ||
            fail "$service has no limit of memory or processes"
        status=$(docker exec "$id" cat /proc/1/status)
        uid=$(awk '/^Uid:/ {print $2, $3, $4, $5}' <<<"$status")
        caps=$(awk '/^Cap(Prm|Eff|Bnd|Amb):/ {print $2}' <<<"$status" | sort -u | tr '\n' ' ')
        [[ " $uid " != *' 0 '* ]] || fail "$service runs as root: uids $uid"
        [ "$(awk '/^NoNewPrivs:/ {print $2}' <<<"$status")" = 1 ] || fail "$service may get new privileges"
        # NET_BIND_SERVICE is bit 10.
        if [ "$allowed" = '[]' ]; then
            [ "$caps" = '0000000000000000 ' ] || fail "$service has capabilities $caps"
        else
            [[ $caps =~ ^(0000000000000000 )?(0000000000000400 )?$ ]] || fail "$service has capabilities $caps"
        fi
        ! docker exec --user 0 "$id" sh -c 'echo x >/check-of-root' 2>"$LOG" || fail "$service can write to its root"
        grep -qi 'read-only' "$LOG" || fail "$service: writing to the root fails with $(cat "$LOG")"
    done < <(containers)
}

# Connects from the network of a container; prints open, or the error.
reach() {  # CONTAINER HOST PORT
    docker run --rm --label "vigia-check=$RUN" --network "container:$1" --entrypoint python "$VIGIA_IMAGE" -c '
import socket, sys
try:
    socket.create_connection((sys.argv[1], int(sys.argv[2])), timeout=3).close()
    print("open")
except OSError as error:
    print(type(error).__name__, error)' "$2" "$3"
}

# Services without need have no way out; nobody reaches past the neighbours.
step_networks() {
    local outside listener id service way ways_out=0
    # A listener that is outside of the project's networks: on the address of the engine's default bridge.
    outside=$(docker network inspect --format '{{(index .IPAM.Config 0).Gateway}}' bridge)
    [ -n "$outside" ] || outside=172.17.0.1
    listener=$(docker run --detach --label "vigia-check=$RUN" --network host --entrypoint python "$VIGIA_IMAGE" -c '
import socket
server = socket.create_server(("0.0.0.0", 18999))
while True: server.accept()[0].close()')
    while read -r id; do
        service=$(service_of "$id")
        CONCERNED=("$service")
        way=$(reach "$id" "$outside" 18999)
        case $service in
            proxy | monitoring-proxy | backup | alertmanager)
                [ "$way" != open ] || ways_out=$((ways_out + 1)) ;;
            *)
                [ "$way" != open ] || fail "$service has a way out" ;;
        esac
    done < <(containers)
    # Without it, the failures above prove nothing.
    [ "$(reach "$(container proxy)" "$outside" 18999)" = open ] || fail "not even the proxy reaches a listener outside: the check is blind"
    docker rm --force "$listener" >/dev/null
    local database broker web
    database=$(address_of postgres) broker=$(address_of redis) web=$(address_of web)
    [ "$(reach "$(container web)" "$database" 5432)" = open ] || fail "web does not reach PostgreSQL at $database"
    [ "$(reach "$(container worker)" "$broker" 6379)" = open ] || fail "worker does not reach Valkey at $broker"
    for way in "$database 5432" "$broker 6379"; do
        [ "$(reach "$(container proxy)" $way)" != open ] || fail "the proxy reaches $way"
    done
    note "$ways_out services with a way out"
}

address_of() {
    docker inspect --format "{{(index .NetworkSettings.Networks \"${COMPOSE_PROJECT_NAME}_back\").IPAddress}}" "$(container "$1")"
}
