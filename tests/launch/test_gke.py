"""The JobSet manifest, held against the published schemas."""

import copy
import json
from pathlib import Path

import jsonschema
import pytest
import yaml

from vitax.__main__ import main

SCHEMA = json.loads((Path(__file__).parent / "jobset_v1alpha2.json").read_text())
RUN = ["launch", "gke", "--config", "vit_i1k:B/16", "--workdir", "gs://bucket/i1k", "--image", "r/vitax"]


def manifest(capfd, *flags):
    assert main([*RUN, *flags, "--dry-run"]) == 0
    text = capfd.readouterr().out
    assert text.splitlines()[-1].startswith("# + kubectl apply -f ")
    return yaml.safe_load(text)


def validate(found):
    jsonschema.validate(found, SCHEMA, cls=jsonschema.Draft202012Validator)


@pytest.mark.parametrize(
    ("accelerator", "label", "shape", "hosts", "chips", "slices"),
    [
        ("v5litepod-16", "tpu-v5-lite-podslice", "4x4", 4, 4, 1),
        ("v5p-32", "tpu-v5p-slice", "2x2x4", 4, 4, 2),
        ("v6e-8", "tpu-v6e-slice", "2x4", 1, 8, 1),
        ("v4:2x2x2", "tpu-v4-podslice", "2x2x2", 2, 4, 1),
    ],
)
def test_the_manifest_is_valid_and_asks_for_the_slice(capfd, accelerator, label, shape, hosts, chips, slices):
    got = manifest(capfd, "--accelerator", accelerator, "--slices", str(slices), "--no-plan")
    validate(got)
    (job,) = got["spec"]["replicatedJobs"]
    assert job["replicas"] == slices
    spec = job["template"]["spec"]
    assert spec["parallelism"] == spec["completions"] == hosts
    pod = spec["template"]["spec"]
    assert pod["nodeSelector"]["cloud.google.com/gke-tpu-accelerator"] == label
    assert pod["nodeSelector"]["cloud.google.com/gke-tpu-topology"] == shape
    assert pod["containers"][0]["resources"]["limits"] == {"google.com/tpu": chips}
    assert got["spec"]["network"]["subdomain"] == got["metadata"]["name"] == "vitax-i1k"


def test_flags_reach_the_manifest(capfd):
    flags = ["--spot", "--env", 'A=it\'s "b": {c}', "--grace", "120", "--max-restarts", "0", "--namespace", "ml"]
    got = manifest(capfd, "--accelerator", "v5e:4x4", *flags, "--service-account", "me", "--config.seed=3", "--no-plan")
    validate(got)
    pod = got["spec"]["replicatedJobs"][0]["template"]["spec"]["template"]["spec"]
    container = pod["containers"][0]
    assert container["env"] == [{"name": "A", "value": 'it\'s "b": {c}'}]
    command = ["vitax", "train", "--config", "vit_i1k:B/16", "--workdir", "gs://bucket/i1k", "--config.seed=3"]
    assert container["command"] == command
    assert container["image"] == "r/vitax"
    assert pod["terminationGracePeriodSeconds"] == 120
    assert pod["serviceAccountName"] == "me"
    assert pod["nodeSelector"]["cloud.google.com/gke-spot"] == "true"
    assert got["metadata"]["namespace"] == "ml"
    assert got["spec"]["failurePolicy"]["maxRestarts"] == 0


def test_code_75_and_pods_taken_away_start_again_without_counting(capfd):
    got = manifest(capfd, "--accelerator", "v5litepod-16", "--no-plan")
    job = got["spec"]["replicatedJobs"][0]["template"]["spec"]
    codes, taken = job["podFailurePolicy"]["rules"]
    assert codes["action"] == taken["action"] == "FailJob"
    assert codes["onExitCodes"] == {"containerName": "vitax", "operator": "In", "values": [75]}
    assert taken["onPodConditions"] == [{"type": "DisruptionTarget", "status": "True"}]
    (rule,) = got["spec"]["failurePolicy"]["rules"]
    assert rule["action"] == "RestartJobSetAndIgnoreMaxRestarts"
    assert rule["onJobFailureReasons"] == ["PodFailurePolicy"]
    assert job["backoffLimit"] == 0
    assert job["template"]["spec"]["restartPolicy"] == "Never"


@pytest.mark.parametrize("path", ["spec.failurePolicy", "spec.replicatedJobs.0.template.spec.podFailurePolicy.rules.0"])
def test_the_schema_refuses_a_misspelt_field(capfd, path):
    got = manifest(capfd, "--accelerator", "v5litepod-16", "--no-plan")
    node = broken = copy.deepcopy(got)
    for part in path.split("."):
        node = node[int(part)] if part.isdigit() else node[part]
    node["maxRestart"] = 1
    with pytest.raises(jsonschema.ValidationError, match="maxRestart"):
        validate(broken)


def test_it_is_applied_and_kept(programs, capfd):
    programs.add("kubectl")
    assert main([*RUN, "--accelerator", "v5litepod-16"]) == 0
    path = programs.folder.parent / "runs/launch/vitax-i1k/jobset.yaml"
    assert programs.calls == [["kubectl", "apply", "-f", "runs/launch/vitax-i1k/jobset.yaml"]]
    validate(yaml.safe_load(path.read_text()))
    out, err = capfd.readouterr()
    assert "+ kubectl apply -f" in err
    assert "plan: v5e:4x4, 16 devices, mesh data 16" in err
    assert "kubectl logs -f job/vitax-i1k-slice-0 --namespace default" in out
    programs.answer([["apply", [["", 1, []]]]])
    assert main([*RUN, "--accelerator", "v5litepod-16", "--no-plan"]) == 1


def test_what_does_not_fit_is_refused(programs, capfd, monkeypatch):
    programs.add("kubectl")
    assert main([*RUN, "--accelerator", "v5litepod-4"]) == 2
    error = capfd.readouterr().err
    assert "does not go on v5e:2x2: by arithmetic a core needs" in error
    assert "vitax plan --search --topology v5e:2x2" in error
    assert main([*RUN, "--accelerator", "v2-32"]) == 2
    assert "GKE has no such nodes" in capfd.readouterr().err
    assert programs.calls == []
    monkeypatch.setenv("PATH", "/nowhere")
    assert main([*RUN, "--accelerator", "v5litepod-16", "--no-plan"]) == 2
    assert "gcloud components install kubectl" in capfd.readouterr().err
