# shellcheck shell=bash
# Steps: upgrades with ./upgrade.

# An upgrade to a rebuilt image, while clients send predictions.
step_upgrade() {
    CONCERNED=(web migrate proxy)
    local before id
    scale 2 1
    before=$(containers --filter label=com.docker.compose.service=web)
    # A release that differs in its version alone.
    sed -i 's/^VERSION = .*/VERSION = "0.2.99"/' "$FOLDER/core/version.py"
    sed -i '0,/^## \[/s//## [0.2.99] - unreleased\n\n### Added\n- Nothing.\n\n## [/' "$FOLDER/CHANGELOG.md"
    git -C "$FOLDER" -c user.name=check -c user.email=check@example.com commit --quiet --all --message 'Another version'
    load_begin
    (cd "$FOLDER" && ./upgrade) >"$LOG" 2>&1 || fail "./upgrade: $(tail -n 60 "$LOG")"
    has_backup
    load_end
    [ "$(number_of web)" = 2 ] || fail "two containers of web before the upgrade, $(number_of web) after it"
    for id in $(containers --filter label=com.docker.compose.service=web); do
        [[ $before != *$id* ]] || fail "a container of web was not replaced: $id"
        [ "$(docker exec "$id" python -c 'from core.version import VERSION; print(VERSION)')" = 0.2.99 ] || fail 'web has the old version'
    done
    scale 1 1
}

has_backup() { grep -qE '^/backups/vigia-[0-9TZ]+\.tar$' "$LOG" || fail "./upgrade names no backup: $(tail -n 60 "$LOG")"; }

# The last commit of version 0.1.0, which kept its secrets in .env and published web itself.
BEFORE=020bf5e

random() { head -c 32 /dev/urandom | od -An -tx1 | tr -d ' \n'; }

logged() { in_other docker compose exec -T postgres psql --username=postgres --dbname=vigia --no-psqlrc --tuples-only --no-align --command="
    SELECT count(*), md5(string_agg(concat(id, version_id, key, inputs, prediction, probability), '' ORDER BY id)) FROM predictions_prediction"; }

step_upgrade_from_before() {
    other_project before 18002
    CONCERNED=()
    git -C "$OTHER_FOLDER" cat-file -e "$BEFORE^{commit}" || fail "$BEFORE is not in this clone: fetch the whole history"
    local new before after key tag='' name
    # Not the version that the step before has made up, which may not skip 0.2.0.
    new=$(git -C "$ROOT" rev-parse HEAD)
    git -C "$OTHER_FOLDER" checkout --quiet --detach "$BEFORE"
    for name in SECRET_KEY ARTIFACT_KEY POSTGRES_PASSWORD DATABASE_PASSWORD REDIS_PASSWORD METRICS_TOKEN GRAFANA_PASSWORD; do
        echo "$name=$(random)"
    done >"$OTHER_FOLDER/.env"
    echo OMP_NUM_THREADS=1 >>"$OTHER_FOLDER/.env"
    # Its compose file names the image itself: a tag that exists is put back.
    tag=$(docker image ls --quiet vigia:0.1.0)
    [ -z "$tag" ] || docker tag "$tag" "$RUN:tag"
    quietly in_other docker compose build web
    quietly in_other docker compose up --detach --no-build --pull never --wait --wait-timeout 400
    docker tag vigia:0.1.0 "$RUN:before"
    if [ -n "$tag" ]; then docker tag "$RUN:tag" vigia:0.1.0; else docker rmi --no-prune vigia:0.1.0 >/dev/null; fi
    key=$(in_other docker compose exec -T web cat /data/client-key)
    (KEY=$key ADDRESS=$OTHER_ADDRESS client predict && KEY=$key ADDRESS=$OTHER_ADDRESS client retrain cars) >"$LOG" 2>&1 || fail "before: $(cat "$LOG")"
    before=$(logged)
    git -C "$OTHER_FOLDER" checkout --quiet --detach "$new"
    in_other ./upgrade >"$LOG" 2>&1 || fail "./upgrade: $(tail -n 60 "$LOG")"
    has_backup
    after=$(logged)
    [ "$before" = "$after" ] || fail "the log had (rows|digest) $before before the upgrade, and has $after"
    ! grep -qE '^[A-Z_]*(PASSWORD|KEY|TOKEN)=.' "$OTHER_FOLDER/.env" || fail 'a secret stayed in .env'
    (KEY=$key ADDRESS=$OTHER_ADDRESS client predict && KEY=$key ADDRESS=$OTHER_ADDRESS client retrain cars) >"$LOG" 2>&1 || fail "after: $(cat "$LOG")"
    note "${before%%|*} rows; $(tail -n 1 "$LOG")"
    quietly in_other docker compose down --volumes --timeout 5
}
