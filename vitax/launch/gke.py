"""GKE: one JobSet manifest, shown or applied."""

import json
import subprocess

from vitax.core.errors import EXIT_DONE, EXIT_FAILED, UserError
from vitax.launch import accelerators, check, files
from vitax.launch.accelerators import Accelerator
from vitax.launch.settings import Settings
from vitax.parallel.hosts import COORDINATOR_PORT


def launch(settings: Settings) -> int:
    """Applies the manifest; the cluster does the rest."""
    settings.need("accelerator", "image")
    accelerator = accelerators.parse(settings.accelerator, settings.slices)
    if accelerator.family.gke is None:
        raise UserError(f"--accelerator {accelerator.name}: GKE has no such nodes; use launch tpu-vm or queued.")
    if settings.spot and settings.reservation:
        raise UserError("--spot and --reservation exclude each other.")
    check.check(settings, topology=accelerator.topology)
    manifest = render(settings, accelerator)
    path = files.logs(settings) / "jobset.yaml"
    command = ["kubectl", "apply", "-f", str(path)]
    watch = ["kubectl", "logs", "-f", f"job/{settings.name}-slice-0", "--namespace", settings.namespace]
    if settings.dry_run:
        print(manifest, end="")
        print(f"# + {files.words(command)}")
        return EXIT_DONE
    files.need("kubectl")
    files.write(path, manifest)
    files.echo(files.words(command))
    done = subprocess.run(command, check=False).returncode
    if done == 0:
        print(f"To follow it: {files.words(watch)}")
    return EXIT_DONE if done == 0 else EXIT_FAILED


def render(settings: Settings, accelerator: Accelerator) -> str:
    """The manifest."""
    selector = {
        "cloud.google.com/gke-tpu-accelerator": accelerator.family.gke,
        "cloud.google.com/gke-tpu-topology": accelerator.shape,
    }
    tolerations = [{"key": "google.com/tpu", "operator": "Exists", "effect": "NoSchedule"}]
    if settings.spot:
        selector["cloud.google.com/gke-spot"] = "true"
        tolerations.append({"key": "cloud.google.com/gke-spot", "operator": "Exists", "effect": "NoSchedule"})
    if settings.reservation:
        selector["cloud.google.com/reservation-name"] = settings.reservation
    values = {
        **{n: settings.values[n] for n in ("name", "namespace", "max_restarts", "slices", "service_account", "grace")},
        "node_selector": selector,
        "tolerations": tolerations,
        "image": settings.image,
        "command": settings.command,
        "env": [{"name": k, "value": v} for k, v in settings.environment.items()],
        "hosts": accelerator.hosts,
        "port": COORDINATOR_PORT,
        "chips_per_host": accelerator.chips_per_host,
    }
    # JSON is YAML, and quotes what needs it.
    return files.render("jobset.yaml", {k: v if k == "name" else json.dumps(v) for k, v in values.items()})
