"""A Slurm of one node, this machine: munged, slurmctld and slurmd in a folder, on ports of their own, with two GPUs that are files.

As a script it runs a command inside: `python tests/cluster/one_node.py -- squeue`.
"""

import os
import secrets
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path

COMMANDS = ("sbatch", "srun", "squeue", "scancel", "scontrol", "sinfo")
PROGRAMS = ("munged", "slurmctld", "slurmd", *COMMANDS)
CONF = """\
ClusterName=test
SlurmctldHost={host}(127.0.0.1)
SlurmUser={user}
SlurmdUser={user}
SlurmctldPort={ctld_port}
SlurmdPort={slurmd_port}
AuthType=auth/munge
AuthInfo=socket={folder}/munge.socket
CredType=cred/munge
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd.pid
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
MpiDefault=none
SelectType=select/cons_tres
SelectTypeParameters=CR_Core_Memory
SchedulerParameters=sched_interval=2,batch_sched_delay=0,bf_interval=2
GresTypes=gpu
MinJobAge=300
KillWait=20
OverTimeLimit=0
SlurmdParameters=config_overrides
NodeName={host} NodeAddr=127.0.0.1 CPUs={cpus} RealMemory={memory} Gres=gpu:2 State=UNKNOWN
PartitionName=short Nodes=ALL Default=YES MaxTime=60 State=UP
"""


def missing() -> str:
    """The programs of Slurm that this machine lacks, as a text; "" if all are there."""
    return ", ".join(name for name in PROGRAMS if not shutil.which(name))


def _free_ports(count: int) -> list[int]:
    with ExitStack() as held:
        sockets = [held.enter_context(socket.socket()) for _ in range(count)]
        for one in sockets:
            one.bind(("127.0.0.1", 0))
        return [one.getsockname()[1] for one in sockets]


@contextmanager
def one_node(folder: Path) -> Iterator[Mapping[str, str]]:
    """Start it in the new ``folder``; the environment in which Slurm's commands reach it. RuntimeError if it does not come up."""
    folder.mkdir(mode=0o755)
    (folder / "state").mkdir()
    (folder / "spool").mkdir()
    key = folder / "munge.key"
    key.write_bytes(secrets.token_bytes(128))
    key.chmod(0o400)
    ports, memory = _free_ports(2), os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") // 2**20
    host = socket.gethostname().partition(".")[0]
    conf = CONF.format(
        folder=folder,
        host=host,
        user=os.environ.get("USER", "root"),
        cpus=2 * (os.cpu_count() or 1),  # jobs mostly load their modules, or wait
        memory=memory,
        ctld_port=ports[0],
        slurmd_port=ports[1],
    )
    (folder / "slurm.conf").write_text(conf)
    for number in range(2):
        (folder / f"gpu{number}").touch()
    (folder / "gres.conf").write_text(f"Name=gpu File={folder}/gpu[0-1]\n")
    (folder / "cgroup.conf").write_text("CgroupPlugin=cgroup/v1\n")
    env = {**os.environ, "SLURM_CONF": str(folder / "slurm.conf"), "PATH": f"{folder}/bin:{os.environ['PATH']}"}
    _wrapped(folder)
    files = [f"--{what}-file={folder}/munge.{what}" for what in ("key", "log", "pid", "seed")]
    with ExitStack() as stack:
        for command in (
            ["munged", "--foreground", "--force", f"--socket={folder}/munge.socket", *files],
            ["slurmctld", "-D", "-c"],
            ["slurmd", "-D", "-N", host],
        ):
            stack.enter_context(_daemon(command, folder / f"{command[0]}.out", env))
        _await_idle(folder, env)
        try:
            yield env
        finally:  # no job outlives its Slurm
            subprocess.run([folder / "bin/scancel", "--quiet", f"--user={os.getuid()}"], check=False)
            until = time.monotonic() + 20
            left = [folder / "bin/squeue", "--noheader"]
            while subprocess.run(left, capture_output=True, text=True, check=False).stdout.strip() and time.monotonic() < until:
                time.sleep(0.2)


def _wrapped(folder: Path) -> None:
    """Commands that find this Slurm also where a job is stripped of SLURM_CONF, as within the executor plugin's job steps."""
    (folder / "bin").mkdir()
    for name in COMMANDS:
        script = folder / "bin" / name
        script.write_text(f'#!/bin/sh\nSLURM_CONF={folder}/slurm.conf exec {shutil.which(name)} "$@"\n')
        script.chmod(0o755)


@contextmanager
def _daemon(command: list[str], log: Path, env: Mapping[str, str]) -> Iterator[None]:
    with log.open("w") as out:
        bound = ["setpriv", "--pdeathsig", "TERM", *command]  # ends with this process, even if that is killed
        process = subprocess.Popen(bound, env=env, stdout=out, stderr=subprocess.STDOUT, stdin=subprocess.DEVNULL)
    try:
        yield
    finally:
        process.terminate()
        try:
            process.wait(10)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def _await_idle(folder: Path, env: Mapping[str, str], seconds: float = 30) -> None:
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        told = subprocess.run(["sinfo", "-h", "-o", "%T"], env=env, capture_output=True, text=True, check=False)
        if told.stdout.strip() == "idle":
            return
        time.sleep(0.2)
    logs = "\n".join(f"{log.name}: {log.read_text(errors='replace')[-800:]}" for log in sorted(folder.glob("*.out")))
    raise RuntimeError(f"Slurm did not come up within {seconds:g} s: {told.stdout}{told.stderr}\n{logs}")


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as place, one_node(Path(place) / "slurm") as inside:
        sys.exit(subprocess.run(sys.argv[2:], env=inside, check=False).returncode)
