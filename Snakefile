# Which notebook × dataset × backbone × recipe × seed: profiles/<profile>.yaml says it, this file turns it into jobs.
# Start it with `python -m reproduce batch --profile smoke` (or make); it writes to runs/ only.
import math
import shlex
import sys
from pathlib import Path

from reproduce.batch import read_profile

PYTHON = shlex.quote(sys.executable)
PROFILE = read_profile(config.get("profile", "smoke"), check=False)  # the batch has, and torch is large
JOBS = {(job.paper, job.key): job for job in PROFILE.jobs}
SOURCES = sorted(str(path) for folder in ("cam_core", "training", "reproduce", "data_scripts") for path in Path(folder).rglob("*.py"))
THREADS = PROFILE.threads or workflow.cores or 1


def source(files):
    """Code counts as input where the profile watches it; elsewhere a reworded docstring must not cost hours."""
    return files if PROFILE.watch else ancient(files)


def job(wildcards):
    return JOBS[wildcards.paper, wildcards.key]


def options(parameters):
    return " ".join(f"-p {name} {shlex.quote(str(value))}" for name, value in parameters.items())


def training(wildcards):
    processes = " ".join(f"--{name} {count}" for name, count in job(wildcards).processes.items())
    return f"{options(job(wildcards).training)} {processes}"


def shards(wildcards):
    """The marks of a run's measured shards; they and the rows are gone when the run is complete."""
    count = job(wildcards).shards
    return [f"{job(wildcards).folder}.shards/{part}-of-{count}" for part in range(1, count + 1) if count > 1]


wildcard_constraints:
    paper="[a-z_]+",
    key="[^/]+",
    part="[0-9]+",
    count="[0-9]+",


rule all:
    input:
        [f"{job.folder}/{name}" for job in PROFILE.jobs for name in ("notebook.ipynb", "provenance.json")],


rule train:
    input:
        source(SOURCES),
    output:
        f"runs/models/{PROFILE.name}-{{paper}}-{{key}}.json",
    params:
        options=training,
    threads: THREADS
    resources:
        runtime=lambda wildcards: math.ceil(job(wildcards).minutes * 3),
    shell:
        "OMP_NUM_THREADS={threads} {PYTHON} -m reproduce train {wildcards.paper} {params.options} --marker {output:q}"


rule shard:
    input:
        source(SOURCES),
        notebook=source("notebooks/{paper}.ipynb"),
        model=lambda wildcards: [job(wildcards).marker] if job(wildcards).train else [],
    output:
        temp(touch(f"runs/{PROFILE.name}/{{paper}}/{{key}}.shards/{{part}}-of-{{count}}")),
    params:
        options=lambda wildcards: options(job(wildcards).parameters),
        folder=lambda wildcards: job(wildcards).folder,
    threads: THREADS
    resources:
        runtime=lambda wildcards: math.ceil(job(wildcards).minutes * 3 / int(wildcards.count)),
    shell:
        "{PYTHON} -m reproduce shard {input.notebook:q} {wildcards.part}/{wildcards.count} --out {params.folder:q} --threads {threads} "
        "{params.options}"


rule notebook:
    input:
        source(SOURCES),
        notebook=source("notebooks/{paper}.ipynb"),
        model=lambda wildcards: [job(wildcards).marker] if job(wildcards).train else [],
        shards=shards,
    output:
        f"runs/{PROFILE.name}/{{paper}}/{{key}}/notebook.ipynb",
        f"runs/{PROFILE.name}/{{paper}}/{{key}}/metrics.csv",
        f"runs/{PROFILE.name}/{{paper}}/{{key}}/provenance.json",
    params:
        options=lambda wildcards: options(job(wildcards).parameters),
        folder=lambda wildcards: job(wildcards).folder,
    threads: THREADS
    resources:
        runtime=lambda wildcards: math.ceil(job(wildcards).minutes * 3),  # minutes; what a cluster is asked for
    shell:
        "{PYTHON} -m reproduce run {input.notebook:q} --out {params.folder:q} --threads {threads} {params.options}"
