# shellcheck shell=bash
# Steps: what clients and people do.

step_predict() {
    CONCERNED=(web proxy)
    note "$(client predict)"
}

step_retrain() {
    CONCERNED=(worker web)
    note "$(client retrain cars)" "$(client retrain movies)"
}

step_login() {
    CONCERNED=(web proxy)
    client login >/dev/null
}
