"""The Kubernetes job is one by Kubernetes' own schema, and has room for the jobs of its profile."""

from pathlib import Path

import pytest
import yaml

from reproduce import batch, costs

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def job():
    return yaml.safe_load((ROOT / "profiles/kubernetes/job.yaml").read_text())


def test_the_job_follows_the_schema(job):
    validator = pytest.importorskip("kubernetes_validate")
    newest = validator.latest_version()
    validator.validate(job, newest, strict=True)
    job["spec"]["template"]["spec"]["containers"][0]["comand"] = []
    with pytest.raises(validator.ValidationError, match="comand"):
        validator.validate(job, newest, strict=True)


def test_the_job_has_room_for_one_run_of_its_profile(job):
    """As many cores, as much memory and as many GPUs as the largest asks for."""
    container = job["spec"]["template"]["spec"]["containers"][0]
    words = container["command"]
    profile = batch.read_profile(words[words.index("--profile") + 1], ROOT / "profiles", check=False)
    cores = int(words[words.index("--cores") + 1])
    asked = [costs.ask(one, stage, profile.threads, profile.hours) for one in profile.jobs for stage in ("train", "notebook")]
    limits = container["resources"]["limits"]
    assert cores == int(container["resources"]["requests"]["cpu"]) >= profile.threads
    assert limits["memory"] == container["resources"]["requests"]["memory"] == f"{max(one['mem_mb'] for one in asked)}Mi"
    assert int(limits["nvidia.com/gpu"]) == max(one["gpu"] for one in asked)
