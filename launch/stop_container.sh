{  # stop SIGNAL SECONDS: ends the run on this worker, and waits for it
  sudo docker stop --time="$2" vitax
}
