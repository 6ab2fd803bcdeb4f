#!/bin/bash
# A queued resource: asked for, waited for, the same command on all workers; started again while it
# exits with 75, asked for again where it was taken away (preempted); any other code ends it.
set -uo pipefail
{{attempts}}
state() { run gcloud compute tpus queued-resources describe {{name}} --project={{project}} --zone={{zone}} --format='value(state.state)'; }
delete() { run gcloud compute tpus queued-resources delete {{name}} --project={{project}} --zone={{zone}} --force --quiet; }
create() { run gcloud compute tpus queued-resources create {{name}} --node-id={{name}} --project={{project}} --zone={{zone}} --accelerator-type={{accelerator}} --runtime-version={{runtime_version}}{{flags}}; }

queue() {  # returns when the slice is there
  local refused=0
  while [ -z "$stopping" ]; do
    case $(state) in
      ACTIVE) return 0 ;;
      '') create || { refused=$((refused + 1)); [ $refused -lt 3 ] || return 1; } ;;
      SUSPENDED | FAILED) delete || return 1; create || return 1 ;;
      *) sleep {{poll_seconds}} & wait $! ;;
    esac
  done
  return 1
}

lost=0
code=1
while true; do
  queue || { echo 'launch: the queued resource was not granted' >&2; break; }
  set_up || { echo 'launch: --setup failed' >&2; break; }
  outcome=75
  while [ "$outcome" = 75 ] && [ -z "$stopping" ]; do attempt; done
  code=$outcome
  [ -z "$stopping" ] && [ "$outcome" = lost ] || break
  # Taken away is no fault of the run; workers lost from a slice that is still there are counted.
  if [ "$(state)" = ACTIVE ]; then
    lost=$((lost + 1))
    [ $lost -le {{max_restarts}} ] || break
  fi
done
{{delete}} || delete
[ "$code" != lost ] || code=1
exit "$code"
