# shellcheck shell=bash
# Steps: what clients and people do.

step_predict() {
    CONCERNED=(web proxy)
    # Not `note "$(…)"`, which hides the exit code.
    NOTE=$(client predict)
}

step_retrain() {
    CONCERNED=(worker web)
    local cars movies
    cars=$(client retrain cars)
    movies=$(client retrain movies)
    note "$cars; $movies"
}

step_login() {
    CONCERNED=(web proxy)
    client login >/dev/null
}
