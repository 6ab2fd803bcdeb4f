# Shared by tpu_vm.sh and queued.sh: run the command on all workers, read how it ended.
run() { printf '+ %s\n' "$(printf '%q ' "$@")" >&2; "$@"; }
ssh_all() { run gcloud compute tpus tpu-vm ssh {{name}} --project={{project}} --zone={{zone}} --worker=all --quiet "$@"; }

stopping=
stop() {  # Ctrl-C and SIGTERM: the workers save and end, and this script with them
  stopping=1
  ssh_all --command={{stop_command}}
}
trap stop INT TERM

set_up() { [ -z {{setup}} ] || ssh_all --command={{setup}}; }

attempts=0
attempt() {  # leaves in $outcome: 0, 75, the code of a failure, or "lost"
  attempts=$((attempts + 1))
  logs={{logs}}/attempt-$attempts
  mkdir -p "$logs" && rm -f "$logs"/*.log
  ssh_all --output-directory="$logs" --command={{worker}} < /dev/null &   # in the background: Ctrl-C is ours to pass on
  ssh_pid=$!
  tail --pid=$ssh_pid --retry -n +1 -F "$logs/0.log" 2> /dev/null &       # worker 0 is shown
  while kill -0 $ssh_pid 2> /dev/null; do wait $ssh_pid; done
  wait
  codes=$(sed -n 's/^vitax: exit code //p' "$logs"/*.log)
  outcome=0
  for code in $codes; do
    case $code in 0) ;; 75) [ "$outcome" != 0 ] || outcome=75 ;; *) [ "$outcome" -gt 128 ] || outcome=$code ;; esac
  done
  # Killed (128 + a signal) or silent is the cause where others fail with it.
  if { [ "$outcome" -gt 128 ] && [ "$outcome" != 130 ]; } || [ "$(echo "$codes" | wc -w)" != {{hosts}} ]; then outcome=lost; fi
  echo "launch: attempt $attempts: exit codes of the workers: ${codes//$'\n'/ }; logs in $logs" >&2
}
