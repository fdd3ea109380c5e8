"""A real Slurm on this machine: a controller and two nodes with two pretended GPUs each, no system service touched.

For tests, and by hand: `python tests/support/slurm.py` starts it and stops it again on Ctrl-C.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import psutil

PLUGIN = Path(__file__).parents[2] / ".venv/slurm"
"""Outside the environment: where Slurm is half installed, the plugin slows every start of Snakemake."""

CONFIGURATION = Path("/etc/slurm")
"""Nowhere else: what the jobs run drops SLURM_CONF from the environment."""

MARK = "# Written by tests/support/slurm.py, which removes it again.\n"
PROGRAMS = ("munged", "munge", "slurmctld", "slurmd", "sbatch", "srun", "squeue", "scancel", "scontrol")
NODES = {"classroom1": 16821, "classroom2": 16822}
"""Ports by node. Each has 4 CPUs, whatever the machine has."""

SLURM_CONF = """\
ClusterName=classroom
SlurmctldHost={host}(127.0.0.1)
SlurmctldPort=16817
SlurmUser=root
SlurmdUser=root
AuthType=auth/munge
AuthInfo=socket={folder}/munge.socket
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool.%n
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd.%n.pid
SlurmctldLogFile={folder}/slurmctld.log
SlurmdLogFile={folder}/slurmd.%n.log
# no control groups needed
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
JobAcctGatherType=jobacct_gather/none
SwitchType=switch/none
MpiDefault=none
AccountingStorageType=accounting_storage/none
SelectType=select/cons_tres
SelectTypeParameters=CR_Core_Memory
SchedulerType=sched/backfill
SchedulerParameters=bf_interval=2,sched_interval=2,batch_sched_delay=0
SlurmdParameters=config_overrides
ReturnToService=2
# a dead node is noticed in seconds, a finished job remembered for minutes
SlurmdTimeout=10
SlurmctldTimeout=30
MinJobAge=300
KillWait=2
GresTypes=gpu
{nodes}
PartitionName=gpu Nodes=ALL Default=YES MaxTime=1-00:00:00 State=UP
PartitionName=cpu Nodes=ALL MaxTime=1-00:00:00 State=UP
"""
NODE = "NodeName={name} NodeHostname={host} NodeAddr=127.0.0.1 Port={port} CPUs=4 RealMemory=64000 Gres=gpu:2"
GRES_CONF = "Name=gpu File=/dev/null\nName=gpu File=/dev/zero\n"  # it asks for device files, and never opens them


class Cluster:
    """Slurm's daemons as children of this process, all of whose files lie in `folder`."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.daemons: dict[str, subprocess.Popen] = {}

    def start(self) -> None:
        for name in ("state", *(f"spool.{node}" for node in NODES)):
            (self.folder / name).mkdir(parents=True)
        host = socket.gethostname().split(".")[0]
        nodes = "\n".join(NODE.format(name=name, host=host, port=port) for name, port in NODES.items())
        CONFIGURATION.mkdir(exist_ok=True)
        configured = SLURM_CONF.format(host=host, folder=self.folder, nodes=nodes)
        (CONFIGURATION / "slurm.conf").write_text(MARK + configured)
        (CONFIGURATION / "gres.conf").write_text(MARK + GRES_CONF)
        self._start_munge()
        self.start_controller()
        for node in NODES:
            self.start_node(node)
        self._wait_until_idle()

    def start_controller(self) -> None:
        self._start("slurmctld", "slurmctld", "-D")

    def stop_controller(self) -> None:
        self._stop("slurmctld")

    def start_node(self, node: str) -> None:
        self._start(node, "slurmd", "-D", "-N", node)

    def kill_node(self, node: str) -> None:
        """As if its power failed: the daemon and everything that runs there are gone at once."""
        running = list(_processes_on(node))
        watching = {parent for process in running if (parent := process.parent()) and parent.name() == "slurmstepd"}
        daemon = self.daemons.pop(node)
        daemon.kill()
        for process in (*watching, *running):  # in this order, so that nothing reports the others' end
            with contextlib.suppress(psutil.Error):
                process.kill()
        daemon.wait()

    def stop(self) -> None:
        """Leaves nothing behind: no job, daemon or configuration. Works on a half-started or broken cluster too."""
        if "slurmctld" in self.daemons and self.daemons["slurmctld"].poll() is None:
            subprocess.run(["scancel", "--me"], capture_output=True, timeout=60, check=False)
        for name in reversed(list(self.daemons)):
            self._stop(name)
        for node in NODES:
            for process in _processes_on(node):
                with contextlib.suppress(psutil.Error):
                    process.kill()
        for name in ("slurm.conf", "gres.conf"):
            if _is_ours(CONFIGURATION / name):
                (CONFIGURATION / name).unlink()

    def _start_munge(self) -> None:
        key = self.folder / "munge.key"
        key.write_bytes(os.urandom(256))
        key.chmod(0o400)
        files = {"key-file": key} | {
            f"{name}": self.folder / f"munge.{name}" for name in ("socket", "pid-file", "log-file", "seed-file")
        }
        self._start(
            "munged", "munged", "--foreground", "--force", *(f"--{name}={path}" for name, path in files.items())
        )
        answers = ["munge", "--no-input", f"--socket={files['socket']}"]
        _wait(lambda: subprocess.run(answers, capture_output=True, check=False).returncode == 0, "munged")

    def _wait_until_idle(self) -> None:
        def states() -> set[str]:
            return set(_printed("sinfo", "--noheader", "--Node", "--format=%T").split())

        _wait(lambda: states() == {"idle"}, "the nodes")

    def _start(self, name: str, *command: str) -> None:
        with (self.folder / f"{name}.out").open("a") as out:
            self.daemons[name] = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=out,
                start_new_session=True,
                preexec_fn=_die_with_parent,
            )

    def _stop(self, name: str) -> None:
        daemon = self.daemons.pop(name)
        daemon.terminate()
        try:
            daemon.wait(timeout=10)
        except subprocess.TimeoutExpired:
            daemon.kill()
            daemon.wait()


def hindrance() -> str:
    """Why no Slurm can be started here; empty if one can."""
    if missing := [program for program in PROGRAMS if shutil.which(program) is None]:
        return f"Slurm is not installed ({', '.join(missing)}; apt-get install slurmctld slurmd slurm-client munge)"
    if os.geteuid() != 0:
        return "only root can start Slurm's daemons"
    for name in ("slurm.conf", "gres.conf"):
        path = CONFIGURATION / name
        if path.exists() and not _is_ours(path):
            return f"{path} belongs to a Slurm of this machine"
    if (CONFIGURATION / "slurm.conf").exists() and _printed("scontrol", "ping").endswith("is UP"):
        return "another test runs its Slurm here just now"
    if not PLUGIN.is_dir():
        return "Snakemake's SLURM plugin is not installed for the tests (make .venv/slurm)"
    return ""


def _processes_on(node: str) -> Iterator[psutil.Process]:
    """What the jobs of a node run."""
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error):
            if process.environ().get("SLURMD_NODENAME") == node:
                yield process


def _is_ours(path: Path) -> bool:
    return path.exists() and path.read_text().startswith(MARK)


def _printed(*command: str) -> str:
    return subprocess.run(command, capture_output=True, text=True, timeout=60, check=False).stdout.strip()


def _wait(condition, what: str, seconds: float = 30) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            raise TimeoutError(f"{what}: not ready after {seconds} s")
        time.sleep(0.05)


def _die_with_parent() -> None:
    ctypes.CDLL(None).prctl(1, signal.SIGTERM)  # PR_SET_PDEATHSIG: tests that are killed leave no daemon


@contextlib.contextmanager
def running(folder: Path) -> Iterator[Cluster]:
    cluster = Cluster(folder)
    try:
        cluster.start()
        yield cluster
    finally:
        cluster.stop()


if __name__ == "__main__":
    if reason := hindrance():
        raise SystemExit(f"Error: {reason}.")
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    with tempfile.TemporaryDirectory(prefix="classroom-slurm-") as place, running(Path(place)):
        print(_printed("sinfo"), f"\nFiles in {place}. Ctrl-C stops it.", flush=True)
        with contextlib.suppress(KeyboardInterrupt):
            signal.pause()
