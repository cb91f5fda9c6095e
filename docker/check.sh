#!/usr/bin/env bash
# Checks the containers on a real Docker Engine: builds the image, starts the compose file from a clone without .env,
# sends requests, checks secrets, rights and networks, kills, scales, backs up, restores and upgrades. The exit code is 1
# after anything unexpected, with the last logs.
#
#   docker/check.sh [--long] [--only STEP]… [--keep] [--on RUN] [--list]
#
#   --long       also the steps that take minutes each
#   --only STEP  this step, after build and up; may be repeated
#   --keep       leave the containers, and print the name of this run
#   --on RUN     use the containers that an earlier run has left, and leave them
#   --list       the steps
#
#   DOCKER         client, may be several words; default docker
#   CURL           curl in the engine's network, may be several words; default curl
#   CHECK_FOLDER   folder for the clones; the client must see it under the same path; default $TMPDIR
#   CHECK_SECONDS  seconds after which no further step begins; a line names each that is left out
#   CADDY_IMAGE, GRAFANA_IMAGE, …   the compose file's variables, for other images than the published ones; with
#                  GRAFANA_IMAGE=none Grafana is left out, and a line says so
#
# It needs bash, git and curl. It checks the committed HEAD, and removes what it made: all of it has the name of this
# run's compose project. It publishes ports from 18000 on, on loopback.
set -Eeuo pipefail
ROOT=$(cd "$(dirname "$0")/.." && pwd -P)
QUICK=(build up welcome predict retrain events_and_batches login ports secrets rights networks scale monitoring again kill
    restart unmigrated backup upgrade)
LONG=(upgrade_from_before slim make_run)

RUN='' keep='' only=() steps=("${QUICK[@]}")
while [ $# -gt 0 ]; do
    case $1 in
        --long) steps=("${QUICK[@]}" "${LONG[@]}") ;;
        --keep) keep=yes ;;
        --on) RUN=${2:?--on needs the name of a run}; keep=yes; shift ;;
        --only) only+=("${2:?--only needs a step}"); shift ;;
        --list) printf '%s\n' "${QUICK[@]}" "${LONG[@]/%/ (--long)}"; exit ;;
        *) sed -n '2,24s/^# \{0,1\}//p' "$0"; exit 2 ;;
    esac
    shift
done
# shellcheck source=/dev/null
for part in "$ROOT"/docker/check/*.sh; do . "$part"; done
for step in "${only[@]}"; do
    declare -F "step_$step" >/dev/null || { echo "no step $step; the steps: ${QUICK[*]} ${LONG[*]}" >&2; exit 2; }
done

export DOCKER=${DOCKER:-docker} CURL=${CURL:-curl}
fresh=yes
[ -z "$RUN" ] || fresh=''
RUN=${RUN:-vigia-check-$$}
WORK=${CHECK_FOLDER:-${TMPDIR:-/tmp}}/$RUN
FOLDER=$WORK/clone
LOG=$WORK/log
if [ -n "$fresh" ]; then mkdir -p "${WORK%/*}" && mkdir -m 0700 "$WORK"; else cd "$FOLDER"; fi
export COMPOSE_PROJECT_NAME=$RUN COMPOSE_PROGRESS=plain COMPOSE_ANSI=never
export VIGIA_IMAGE=$RUN:now VIGIA_BACKUP_IMAGE=$RUN:backup
export VIGIA_PUBLISH=127.0.0.1:18000 PROMETHEUS_PUBLISH=127.0.0.1:18090 GRAFANA_PUBLISH=127.0.0.1:18030
export ALERTMANAGER_PUBLISH=127.0.0.1:18093
LARGEST_IMAGE=${LARGEST_IMAGE:-800000000}
ADDRESS=http://$VIGIA_PUBLISH
# An address outside of the project's networks: of the engine's default bridge. Only it may get events.
OUTSIDE=$(docker network inspect --format '{{(index .IPAM.Config 0).Gateway}}' bridge)
OUTSIDE=${OUTSIDE:-172.17.0.1}
export EVENTS_ALLOW_INTERNAL=$OUTSIDE/32
PROJECTS=("$RUN")

trap 'trouble "${BASH_SOURCE[0]##*/}:$LINENO" "$BASH_COMMAND"' ERR
trap 'finish $?' EXIT
trap 'exit 130' INT TERM
STEP=start CONCERNED=()
[ ${#only[@]} = 0 ] || steps=(build up "${only[@]}")
# What was left is built and up.
if [ -z "$fresh" ]; then
    steps=("${steps[@]:2}")
    credentials
fi
declare -A passed=()
for step in "${steps[@]}"; do
    [ -z "${passed[$step]:-}" ] || continue
    STEP=$step CONCERNED=() started=$SECONDS NOTE=''
    if [ "$SECONDS" -ge "${CHECK_SECONDS:-$((SECONDS + 1))}" ]; then
        skip "$CHECK_SECONDS s were over"
        continue
    fi
    # Not within a condition: `set -e` holds in the step.
    "step_$step"
    passed[$step]=yes
    printf 'ok    %-20s %4d s  %s\n' "$step" $((SECONDS - started)) "$NOTE"
done
printf 'ok    %d steps in %d s\n' "${#passed[@]}" $SECONDS
