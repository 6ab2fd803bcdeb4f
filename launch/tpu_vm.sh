#!/bin/bash
# A Cloud TPU VM slice: made where there is none; the same command on all workers; started again
# while it exits with 75 (saved, wants to be started again); any other code ends it.
set -uo pipefail
{{attempts}}
state() { run gcloud compute tpus tpu-vm describe {{name}} --project={{project}} --zone={{zone}} --format='value(state)'; }
delete() { run gcloud compute tpus tpu-vm delete {{name}} --project={{project}} --zone={{zone}} --quiet; }

state || run gcloud compute tpus tpu-vm create {{name}} --project={{project}} --zone={{zone}} --accelerator-type={{accelerator}} --version={{runtime_version}}{{flags}} || exit 1
set_up || { echo 'launch: --setup failed' >&2; exit 1; }

lost=0
while true; do
  attempt
  [ -z "$stopping" ] || break
  case $outcome in
    75) continue ;;
    lost)
      lost=$((lost + 1))
      [ "$(state)" = READY ] && [ $lost -le {{max_restarts}} ] && continue
      echo 'launch: the slice is gone, or workers were lost too often; vitax launch queued makes a new one' >&2 ;;
  esac
  break
done
{{delete}} || delete
[ "$outcome" != lost ] || outcome=1
exit "$outcome"
