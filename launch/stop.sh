{  # stop SIGNAL SECONDS: ends the run on this worker, and waits for it
  pid=$(cat "$HOME/.vitax.pid" 2>/dev/null) && grep -qs vitax "/proc/$pid/cmdline" || return 0
  kill -"$1" "$pid"
  for _ in $(seq "$2"); do kill -0 "$pid" 2>/dev/null || return 0; sleep 1; done
  kill -KILL "$pid"
}
