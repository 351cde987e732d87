#!/bin/sh
# Runs native test programs, as many at once as there are processors, two at least (many wait more than they compute), and
# adds up what they report.
#
#   native-tests.sh TIMEOUT_SECONDS PROGRAM...
#
# A program's last line is `N passed, N failed`, with its own `, N skipped` if it likes. One that ends without such a
# line, is killed, or fails while it claims that nothing failed, counts as one failed test. The last line here is the sum.
if [ "$1" = --one ]; then
  limit=$2 log=$3/$(basename "$4")
  "$4" >"$log" 2>&1 &
  program=$!
  # Where it hangs, if a debugger is here to tell.
  (
    trap 'kill $!; exit' TERM
    sleep "$limit" &
    wait $!
    gdb -p "$program" -batch -ex 'thread apply all backtrace' >>"$log" 2>&1
    echo "still running after $limit s" >>"$log"
    kill -KILL "$program"
  ) &
  watch=$!
  wait "$program"
  echo $? >"$log.status"
  kill "$watch" 2>/dev/null
  exit 0
fi
limit=$1
shift
folder=$(mktemp -d) || exit 1
trap 'rm -rf "$folder"' EXIT
jobs=$(nproc)
[ "$jobs" -ge 2 ] || jobs=2
printf '%s\n' "$@" | xargs -P "$jobs" -I PROGRAM sh "$0" --one "$limit" "$folder" PROGRAM
passed=0 failed=0 skipped=0
for program; do
  name=$(basename "$program")
  log=$folder/$name
  status=$(cat "$log.status")
  echo "== $name"
  last=$(tail -n 1 "$log")
  counts=$(printf '%s\n' "$last" | sed -nE 's/^([0-9]+) passed, ([0-9]+) failed(, ([0-9]+) skipped)?$/\1 \2 0\4/p')
  if [ -z "$counts" ]; then
    cat "$log"
    echo "$name: ended without its totals (exit $status)"
    counts='0 1 0'
  elif [ "$status" -ne 0 ]; then
    cat "$log"
    echo "$name: exit $status"
    case $counts in *' 0 '*) counts="${counts%% *} 1 ${counts##* }" ;; esac
  else
    echo "$last"
  fi
  set -- $counts
  more=${3#0}
  passed=$((passed + $1)) failed=$((failed + $2)) skipped=$((skipped + ${more:-0}))
done
echo "$passed passed, $failed failed, $skipped skipped"
[ "$failed" -eq 0 ]
