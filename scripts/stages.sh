# Sourced by scripts/test and .ci/run: named stages with a share of time each, and the table at the end.
# A stage is stopped at twice its share, with all that it started; a stage that fails ends the run.

STAGE_LOG=${STAGE_LOG:-}    # one line per finished stage: name, seconds, share in minutes, outcome

# stage NAME SHARE_IN_MINUTES COMMAND…: run it, print what it took, fail when it failed or took twice its share.
stage() {
    local name=$1 share=$2 started=$SECONDS code=0
    shift 2
    echo "── $name (share $share min)"
    # In the background, because a shell acts on a signal while it waits but not while a command stands in front.
    timeout --kill-after=20 "$((share * 120))" "$@" &
    wait "$!" || code=$?
    local took=$((SECONDS - started)) outcome=ok
    if [ "$code" -ne 0 ]; then outcome="failed ($code)"; fi
    if [ "$code" -eq 124 ] || [ "$code" -eq 137 ]; then outcome="stopped at twice its share"; fi
    if [ -n "$STAGE_LOG" ]; then printf '%s\t%s\t%s\t%s\n' "$name" "$took" "$share" "$outcome" >>"$STAGE_LOG"; fi
    echo "── $name: $(minutes "$took") min of $share, $outcome"
    return "$code"
}

# stage_table: every stage so far beside its share.
stage_table() {
    [ -s "$STAGE_LOG" ] || return 0
    printf '%-28s %8s %8s  %s\n' stage minutes share outcome
    local name took share outcome
    while IFS=$'\t' read -r name took share outcome; do
        printf '%-28s %8s %8s  %s\n' "$name" "$(minutes "$took")" "$share" "$outcome"
    done <"$STAGE_LOG"
}

minutes() { printf '%d.%02d' "$(($1 / 60))" "$(($1 % 60 * 100 / 60))"; }

# end_started NAME=VALUE: end the processes that carry this mark in their environment, which is how a run knows its own;
# first by TERM, and after 3 seconds by KILL.
end_started() {
    local mark=$1 signal=TERM round pid found
    for round in 1 2 3 4 5 6 7 8 9 10; do
        found=0
        if [ "$round" -gt 6 ]; then signal=KILL; fi
        for pid in /proc/[0-9]*; do
            pid=${pid#/proc/}
            if [ "$pid" = "$$" ] || ! carries "$pid" "$mark"; then continue; fi
            found=1
            kill -"$signal" "$pid" 2>/dev/null || true
        done
        if [ "$found" = 0 ]; then return 0; fi
        sleep 0.5
    done
}

carries() { grep -qzxF -- "$2" "/proc/$1/environ" 2>/dev/null; }

# after_end PID COMMAND…: a process of its own that runs COMMAND once PID has ended, however it ended. It carries no
# run's mark, or it would be ended with the run that it cleans up after.
after_end() {
    (
        local fd
        for fd in /proc/self/fd/*; do
            fd=${fd##*/}
            if [ "$fd" -gt 2 ]; then eval "exec $fd>&-"; fi
        done
        exec env -u WEIR_TEST_RUN -u WEIR_CI_RUN setsid bash -c 'tail --pid="$0" -f /dev/null; exec "$@"' "$@" \
            >/dev/null 2>&1 </dev/null
    ) &
}
