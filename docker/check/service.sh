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

# A batch through the API, and its end delivered to a receiver on an address that EVENTS_ALLOW_INTERNAL allows.
step_events_and_batches() {
    CONCERNED=(events worker web)
    NOTE=$(client batch_and_event "$OUTSIDE" 18998)
}

step_login() {
    CONCERNED=(web proxy)
    client login >/dev/null
}
