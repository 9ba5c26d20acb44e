# Which notebook × dataset × backbone × recipe × seed: profiles/<profile>.yaml says it, this file turns it into jobs.
# Start it with `python -m reproduce batch --profile smoke` (or make); it writes to runs/ only.
import shlex
import sys
from pathlib import Path

from reproduce import content, costs, shard
from reproduce.batch import read_profile

PYTHON = shlex.quote(sys.executable)
PROFILE = read_profile(config.get("profile", "smoke"), check=False)  # the batch has, and torch is large
JOBS = {(job.paper, job.key): job for job in PROFILE.jobs}
THREADS = PROFILE.threads or workflow.cores or 1


def depends(wildcards, notebook=None):
    """What runs a job again when it changes, where the profile watches it; elsewhere `status` tells."""
    of = job(wildcards)
    return content.of(notebook and Path(notebook), of.dataset, of.extra.get("data_root")) if PROFILE.watch else {}


def job(wildcards):
    return JOBS[wildcards.paper, wildcards.key]


def options(parameters):
    return " ".join(f"-p {shlex.quote(name)} {shlex.quote(str(value))}" for name, value in parameters.items())


def training(wildcards):
    processes = " ".join(f"--{name} {count}" for name, count in job(wildcards).processes.items())
    return f"{options(job(wildcards).training)} {processes}"


def shards(wildcards):
    """The marks of a run's measured shards; they and the rows are gone when the run is complete."""
    of = job(wildcards)
    return [shard.mark(of.folder, number, of.shards) for number in range(1, of.shards + 1) if of.shards > 1]


def cost(name, stage):
    """A resource of `costs.ask`, as a function of the wildcards."""
    return lambda wildcards, threads: costs.ask(job(wildcards), stage, threads, PROFILE.hours)[name]


def retries(stage):
    """How often the batch starts a job again; the Snakemake inside a job of a cluster does not."""
    return costs.retries(PROFILE, stage, THREADS) if workflow.is_main_process else 0


def remaining(stage):
    """Minutes of what is left of a run when the stage begins: the longest goes first, or a core waits at the end for it alone."""
    return lambda wildcards: job(wildcards).minutes - (stage != "train") * job(wildcards).train_minutes


START = (
    "{PYTHON} -m reproduce.start --tasks {resources.tasks} --nodes {resources.nodes} --threads {threads} --gpus {resources.gpu} "
    "{PYTHON} -m reproduce "
)


wildcard_constraints:
    paper="[a-z_]+",
    key="[^/]+",
    part="[0-9]+",
    parts="[0-9]+",  # "count" is a name of Snakemake


rule all:
    input:
        [f"{job.folder}/{name}" for job in PROFILE.jobs for name in ("notebook.ipynb", "provenance.json")],


rule train:
    output:
        f"runs/models/{PROFILE.name}-{{paper}}-{{key}}.json",
    params:
        options=training,
        depends=lambda wildcards: {**depends(wildcards), "threads": THREADS} if PROFILE.watch else {},
    threads: THREADS
    priority: remaining("train")
    retries: retries("train")  # a training goes on from its last checkpoint
    resources:
        attempt=lambda wildcards, attempt: attempt,
        **{name: cost(name, "train") for name in costs.ASKED},
    shell:
        "OMP_NUM_THREADS={threads} " + START + "train {wildcards.paper} {params.options} --marker {output:q} --attempt {resources.attempt}"


rule shard:
    input:
        notebook=ancient("notebooks/{paper}.ipynb"),
        model=lambda wildcards: [job(wildcards).marker] if job(wildcards).train else [],
    output:
        temp(str(shard.mark(f"runs/{PROFILE.name}/{{paper}}/{{key}}", "{part}", "{parts}"))),
    params:
        options=lambda wildcards: options(job(wildcards).parameters),
        folder=lambda wildcards: job(wildcards).folder,
        depends=lambda wildcards: depends(wildcards, f"notebooks/{wildcards.paper}.ipynb"),
    threads: THREADS
    priority: remaining("shard")
    retries: retries("shard")
    resources:
        **{name: cost(name, "shard") for name in costs.ASKED},
    shell:
        START + "shard {input.notebook:q} {wildcards.part}/{wildcards.parts} --out {params.folder:q} --threads {threads} "
        "{params.options}"


rule notebook:
    input:
        notebook=ancient("notebooks/{paper}.ipynb"),  # what counts of it is in `depends`
        model=lambda wildcards: [job(wildcards).marker] if job(wildcards).train else [],
        shards=shards,
    output:
        f"runs/{PROFILE.name}/{{paper}}/{{key}}/notebook.ipynb",
        f"runs/{PROFILE.name}/{{paper}}/{{key}}/metrics.csv",
        f"runs/{PROFILE.name}/{{paper}}/{{key}}/provenance.json",
    params:
        options=lambda wildcards: options(job(wildcards).parameters),
        folder=lambda wildcards: job(wildcards).folder,
        depends=lambda wildcards: depends(wildcards, f"notebooks/{wildcards.paper}.ipynb"),
    threads: THREADS
    priority: remaining("notebook")
    retries: retries("notebook")  # what it has measured is kept
    resources:
        **{name: cost(name, "notebook") for name in costs.ASKED},
    shell:
        START + "run {input.notebook:q} --out {params.folder:q} --threads {threads} {params.options}"
