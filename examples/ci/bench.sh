#!/bin/sh
# Times engines against their baselines, for any CI system or by hand: bench.sh ENGINE... [OPTIONS OF halp-trt bench]
#
# Settings come from the environment:
#   BASELINE   file of baselines             bench/baseline.json
#   LIMIT      largest accepted slowdown     3%
#   RESULTS    folder of the reports         bench-results
#
# Exit codes are those of halp-trt bench: 0 passed, 1 slower, 2 not judged, 3 cannot tell. The option
# --cannot-tell pass (or fail) makes 0 (or 1) of 3.
set -eu

baseline=${BASELINE:-bench/baseline.json}
limit=${LIMIT:-3%}
results=${RESULTS:-bench-results}

code=0
halp-trt bench "$@" \
    --baseline "$baseline" --max-regression "$limit" \
    --junit "$results/bench.xml" --markdown "$results/bench.md" --history "$results/history.jsonl" || code=$?

case $code in
0)
    echo "passed: the figures are in $results/bench.md"
    ;;
1)
    echo "failed: the figures are in $results/bench.md; if it is meant, run again with --accept 'the reason'" >&2
    ;;
2)
    echo "not judged, or not all could be written: the error stands above" >&2
    [ -e "$baseline" ] || echo "a first baseline is made by: halp-trt bench $* --save $baseline" >&2
    ;;
3)
    echo "cannot tell: the machine is noisy, or was busy; the figures are in $results/bench.md" >&2
    ;;
*)
    echo "halp-trt ended with $code: it was stopped, or is not installed" >&2
    ;;
esac
exit "$code"
