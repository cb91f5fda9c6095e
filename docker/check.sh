#!/usr/bin/env bash
# Proves the containers on a real Docker Engine: builds the image, starts the compose file from a clone without .env,
# uses it, looks at its walls, kills it, scales, saves, restores and upgrades it. Anything unexpected is exit code 1,
# with the last logs.
#
#   docker/check.sh [--long] [--only STEP]… [--keep] [--list]
#
#   --long       also the steps that take minutes each
#   --only STEP  this step, after build and up; may be repeated
#   --keep       leave the containers for a look; prints how to remove them
#   --list       the steps
#
#   DOCKER   client, may be several words; default docker
#   CURL     curl in the engine's network, may be several words; default curl
#   CHECK_FOLDER   folder for the clones; the client must see it under the same path; default $TMPDIR
#   CADDY_IMAGE, GRAFANA_IMAGE, …   the compose file's variables, for other images than the published ones; with
#                  GRAFANA_IMAGE=none Grafana is left out, and a line says so
#
# It needs bash, git and curl. It checks the committed HEAD, and removes what it made: all of it has the name of this
# run's compose project. Only ports above 18000 of loopback are published.
set -Eeuo pipefail
ROOT=$(cd "$(dirname "$0")/.." && pwd -P)
export DOCKER=${DOCKER:-docker} CURL=${CURL:-curl}
RUN=vigia-check-$$
WORK=$(mktemp -d "${CHECK_FOLDER:-${TMPDIR:-/tmp}}/vigia-check.XXXXXX")
FOLDER=$WORK/clone
LOG=$WORK/log
export COMPOSE_PROJECT_NAME=$RUN COMPOSE_PROGRESS=plain COMPOSE_ANSI=never
export VIGIA_IMAGE=$RUN:now
export VIGIA_PUBLISH=${VIGIA_PUBLISH:-127.0.0.1:18000}
export PROMETHEUS_PUBLISH=${PROMETHEUS_PUBLISH:-127.0.0.1:18090} GRAFANA_PUBLISH=${GRAFANA_PUBLISH:-127.0.0.1:18030}
export ALERTMANAGER_PUBLISH=${ALERTMANAGER_PUBLISH:-127.0.0.1:18093}
LARGEST_IMAGE=${LARGEST_IMAGE:-800000000}
ADDRESS=http://$VIGIA_PUBLISH
PROJECTS=("$RUN")
STEP=start CONCERNED=()
for part in tools stack service walls upkeep; do . "$ROOT/docker/check/$part.sh"; done

QUICK=(build up welcome predict retrain login ports secrets rights networks scale monitoring again kill restart
    unmigrated backup upgrade)
LONG=(upgrade_from_before slim make_run)

keep='' only=() steps=("${QUICK[@]}")
while [ $# -gt 0 ]; do
    case $1 in
        --long) steps=("${QUICK[@]}" "${LONG[@]}") ;;
        --quick) steps=("${QUICK[@]}") ;;
        --keep) keep=yes ;;
        --only) only+=("${2:?--only needs a step}"); shift ;;
        --list) printf '%s\n' "${QUICK[@]}" "${LONG[@]/%/ (--long)}"; exit ;;
        *) sed -n '2,22s/^# \{0,1\}//p' "$0"; exit 2 ;;
    esac
    shift
done
for step in "${only[@]}"; do
    declare -F "step_$step" >/dev/null || { echo "no step $step; the steps: ${QUICK[*]} ${LONG[*]}" >&2; exit 2; }
done
[ ${#only[@]} = 0 ] || steps=(build up "${only[@]}")

trap 'trouble $LINENO "$BASH_COMMAND"' ERR
trap 'finish $?' EXIT
trap 'exit 130' INT TERM
begun=$SECONDS
declare -A passed=()
for step in "${steps[@]}"; do
    [ -z "${passed[$step]:-}" ] || continue
    STEP=$step CONCERNED=() started=$SECONDS NOTE=''
    # Not within a condition: `set -e` holds in the step.
    "step_$step"
    passed[$step]=yes
    printf 'ok    %-20s %4d s  %s\n' "$step" $((SECONDS - started)) "$NOTE"
done
printf 'ok    %d steps in %d s\n' "${#passed[@]}" $((SECONDS - begun))
