# Read by ./backup and ./restore, after `cd` to the project: sets $stack to "local" (make run) or "compose", and
# $place to the first argument that is no option. All other arguments stay, without --local and --compose.
# Options with a value are known here, because a path follows them.

stack=
place=
previous=
left=$#
while [ "$left" -gt 0 ]; do
    argument=$1
    shift
    left=$((left - 1))
    case $previous in
        --encrypt-to | --keep | --identity | --safety-to)
            previous=
            set -- "$@" "$argument"
            continue
            ;;
    esac
    previous=$argument
    case $argument in
        --local) stack=local ;;
        --compose) stack=compose ;;
        -*) set -- "$@" "$argument" ;;
        *)
            if [ -n "$place" ]; then
                echo "one place at a time: $place and $argument were named" >&2
                exit 2
            fi
            place=$argument
            ;;
    esac
done

DOCKER=${DOCKER:-docker}
compose() { # DOCKER may be several words
    # shellcheck disable=SC2086
    $DOCKER compose "$@"
}
run() { compose run --rm -T --no-deps backup python -m backups "$@"; }

python=${VENV:-.venv}/bin/python
if [ -z "$stack" ]; then
    if [ -f "${VIGIA_VAR:-var}/stack.json" ]; then
        stack=local
    elif compose version >/dev/null 2>&1; then
        stack=compose
    elif [ -x "$python" ]; then
        stack=local
    else
        echo "neither a stack of make run (${VIGIA_VAR:-var}/stack.json) nor Docker was found" >&2
        exit 1
    fi
fi
if [ "$stack" = local ] && [ ! -x "$python" ]; then
    echo "$python is missing: run make install first" >&2
    exit 1
fi

sha256() { # of standard input
    if command -v sha256sum >/dev/null; then
        sha256sum | cut -d ' ' -f 1
    else
        shasum -a 256 | cut -d ' ' -f 1
    fi
}
