# Runs on every worker of a slice, by ssh: the command of the run, as one process of many.
stop() {{stop}}
if [ -e "$HOME/.vitax.pid" ]; then stop TERM {{grace}}; fi   # left by a connection that broke
attribute() { curl -sf -H 'Metadata-Flavor: Google' "http://metadata.google.internal/computeMetadata/v1/instance/attributes/$1"; }
if [ {{hosts}} -gt 1 ]; then
  export JAX_NUM_PROCESSES={{hosts}}
  JAX_PROCESS_ID=$(attribute agent-worker-number); export JAX_PROCESS_ID
  JAX_COORDINATOR_ADDRESS=$(attribute worker-network-endpoints | cut -d, -f1 | cut -d: -f3):{{port}}; export JAX_COORDINATOR_ADDRESS
fi
{{exports}}
{{command}} &
echo $! > "$HOME/.vitax.pid"
wait $!
code=$?
rm -f "$HOME/.vitax.pid"
echo "vitax: exit code $code"
exit $code
