# shellcheck shell=bash
# Steps: ports, secrets, rights and networks: what containers must not be able to do.

# Only the proxies are reached from outside.
step_ports() {
    local ids service mode ports
    ids=$(some_containers)
    # Configured ports and published ones: a container of internal networks alone publishes none.
    docker inspect $ids --format '{{index .Config.Labels "com.docker.compose.service"}} {{.HostConfig.NetworkMode}} {{range .HostConfig.PortBindings}}{{range .}}{{.HostIp}}:{{.HostPort}} {{end}}{{end}}{{range .NetworkSettings.Ports}}{{range .}}{{.HostIp}}:{{.HostPort}} {{end}}{{end}}' >"$WORK/ports"
    while read -r service mode ports; do
        [ "$mode" != host ] || fail "$service is in the network of the host"
        ports=$(tr ' ' '\n' <<<"$ports" | sort -u | xargs)
        case $service in
            proxy) [ "$ports" = "$VIGIA_PUBLISH" ] || fail "the proxy publishes: $ports" ;;
            monitoring-proxy) ! grep -qv '^127\.0\.0\.1:' <<<"${ports// /$'\n'}" || fail "monitoring is published on: $ports" ;;
            *) [ -z "$ports" ] || fail "$service publishes $ports" ;;
        esac
    done <"$WORK/ports"
}

# No secret in what the engine shows of containers and image, in a command line or in a log.
step_secrets() {
    local shown=$WORK/shown secrets=$WORK/secrets name found id ids all
    docker run --rm --label "vigia-check=$RUN" --network none --user 0 --volume "${COMPOSE_PROJECT_NAME}_secrets:/secrets:ro" \
        --entrypoint python "$VIGIA_IMAGE" -c '
import pathlib
for path in pathlib.Path("/secrets").rglob("*"):
    if path.is_file() and path.read_text().strip():
        print(path.read_text().strip())' >"$secrets"
    printf '%s\n' "$KEY" "$PASSWORD" >>"$secrets"
    sort -u -o "$secrets" "$secrets"
    [ "$(awk 'length($0) >= 12' "$secrets" | wc -l)" -ge 9 ] || fail "too few secrets found to look for: $(wc -l <"$secrets")"
    # In variables: the exit code of `$(…)` among arguments is lost.
    ids=$(some_containers)
    all=$(containers --all)
    {
        docker inspect $all
        docker image inspect "$VIGIA_IMAGE"
        docker history --no-trunc "$VIGIA_IMAGE"
        for id in $ids; do docker top "$id" -eo pid,args; done
        compose logs --no-color
    } >"$shown" 2>&1
    grep -q '"Env"' "$shown" || fail "docker inspect shows no environment: the search is blind"
    found=$(grep -cFf "$secrets" "$shown") || true
    [ "$found" = 0 ] || fail "$found lines of docker inspect, history, top or logs hold a secret, such as: $(grep -Ff "$secrets" "$shown" | head -n 3)"
    # A secret that a user sets would be in such a variable.
    name=$(docker inspect --format '{{range .Config.Env}}{{println .}}{{end}}' $all |
        grep -E '^[A-Z_]*(PASSWORD|SECRET|TOKEN|KEY|_URL|REDISCLI_AUTH)=.' | grep -vE '^GPG_KEY=' || true)
    [ -z "$name" ] || fail "environment of a container: $name"
    # A reader's directory opens for the reader alone.
    found=$(compose exec -T web ls /run/secrets)
    grep -qx secret_key <<<"$found" || fail "web sees no secret at all: $found"
    ! grep -qE 'postgres|grafana|stored' <<<"$found" || fail "web sees secrets of others: $found"
}

# Read-only root, an unprivileged user, no capabilities; as configured, and as the kernel says.
step_rights() {
    local id ids service config status uid caps allowed
    ids=$(some_containers)
    docker inspect $ids --format '{{.Id}} {{index .Config.Labels "com.docker.compose.service"}} {{.HostConfig.ReadonlyRootfs}} {{.HostConfig.Privileged}} {{json .HostConfig.CapDrop}} {{json .HostConfig.CapAdd}} {{json .HostConfig.SecurityOpt}} {{.HostConfig.Memory}} {{.HostConfig.PidsLimit}}' >"$WORK/rights"
    while read -r id service config; do
        CONCERNED=("$service")
        case $service in
            proxy | monitoring-proxy) allowed='["CAP_NET_BIND_SERVICE"]' ;;
            *) allowed=null ;;
        esac
        [[ $config == "true false [\"ALL\"] $allowed [\"no-new-privileges:true\"] "* ]] ||
            fail "$service: read-only, privileged, dropped, added, security options are: $config"
        [[ $config =~ \ [1-9][0-9]*\ [1-9][0-9]*$ ]] || fail "$service has no limit of memory or processes: $config"
        # Then, as root of the container: the root is read-only for everybody.
        status=$(docker exec --user 0 "$id" sh -c 'cat /proc/1/status; ! echo x >/check-of-root' 2>&1) || fail "$service can write to its root: $status"
        grep -qi 'read-only file system' <<<"$status" || fail "$service: writing to the root fails with $status"
        uid=$(awk '/^Uid:/ {print $2, $3, $4, $5}' <<<"$status")
        caps=$(awk '/^Cap(Prm|Eff|Bnd|Amb):/ {print $2}' <<<"$status" | sort -u | xargs)
        [[ " $uid " =~ ^(\ [1-9][0-9]*){4}\ $ ]] || fail "$service runs as root: uids $uid"
        [ "$(awk '/^NoNewPrivs:/ {print $2}' <<<"$status")" = 1 ] || fail "$service may get new privileges"
        # NET_BIND_SERVICE is bit 10.
        case "$allowed $caps" in
            *' 0000000000000000') ;;
            *NET_BIND*' 0000000000000000 0000000000000400' | *NET_BIND*' 0000000000000400') ;;
            *) fail "$service has capabilities $caps" ;;
        esac
    done <"$WORK/rights"
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

# Only services that need it have a way out; the proxy reaches neither the database nor the broker.
step_networks() {
    local listener id ids service way proxy ways_out=0 until=$((SECONDS + 60))
    listener=$(docker run --detach --label "vigia-check=$RUN" --network host --entrypoint python "$VIGIA_IMAGE" -c '
import socket
server = socket.create_server(("0.0.0.0", 18999))
while True: server.accept()[0].close()')
    # The proxy reaches it, so that the failures below prove something.
    proxy=$(container proxy)
    until way=$(reach "$proxy" "$OUTSIDE" 18999) && [ "$way" = open ]; do
        [ $SECONDS -lt $until ] || fail "not even the proxy reaches a listener outside: $way"
    done
    ids=$(some_containers)
    docker inspect $ids --format '{{.Id}} {{index .Config.Labels "com.docker.compose.service"}}' >"$WORK/networks"
    while read -r id service; do
        CONCERNED=("$service")
        way=$(reach "$id" "$OUTSIDE" 18999)
        case $service in
            proxy | monitoring-proxy | backup | events | alertmanager)
                [ "$way" != open ] || ways_out=$((ways_out + 1)) ;;
            *)
                [ "$way" != open ] || fail "$service has a way out" ;;
        esac
    done <"$WORK/networks"
    docker rm --force "$listener" >/dev/null
    local database broker
    database=$(address_of postgres)
    broker=$(address_of redis)
    [ -n "$database" ] && [ -n "$broker" ] || fail 'PostgreSQL or Valkey has no address'
    id=$(container housekeeping)
    for service in "$database 5432" "$broker 6379"; do
        way=$(reach "$id" $service)
        [ "$way" = open ] || fail "housekeeping does not reach $service: $way"
        way=$(reach "$proxy" $service)
        [ "$way" != open ] || fail "the proxy reaches $service"
    done
    note "$ways_out services with a way out"
}

address_of() {
    docker inspect --format "{{(index .NetworkSettings.Networks \"${COMPOSE_PROJECT_NAME}_back\").IPAddress}}" "$(container "$1")"
}
