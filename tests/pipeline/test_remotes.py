"""Results travel: a fresh clone that pulls has nothing to do, whatever kind of remote they lie on. Real servers."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from getpass import getuser
from pathlib import Path

import pytest
import requests

from classroom.files import content_hash
from support.project import Project
from support.studies import STUDY


@dataclass(frozen=True)
class Remote:
    """Where results are pushed to, and what `dvc remote modify` and the environment have to say besides."""

    url: str
    options: dict[str, str] = field(default_factory=dict)
    secrets: dict[str, str] = field(default_factory=dict)
    """Options that are not committed (`--local`): every clone needs its own."""
    environment: dict[str, str] = field(default_factory=dict)

    def add(self, project: Project) -> None:
        project.run("dvc", "remote", "add", "--quiet", "--force", "--default", "store", self.url)
        for name, value in self.options.items():
            project.run("dvc", "remote", "modify", "store", name, value)
        self.enter(project)

    def enter(self, project: Project) -> None:
        """What someone who has cloned does before they pull."""
        project.environment |= self.environment
        for name, value in self.secrets.items():
            project.run("dvc", "remote", "modify", "--local", "store", name, value)


@pytest.fixture(scope="module")
def sshd(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Remote]:
    """OpenSSH's server on a free port of 127.0.0.1, for the keys of this test alone.

    Where there is none the test is skipped, unless CLASSROOM_REQUIRE_SSHD is set.
    """
    binary = shutil.which("sshd", path=f"{os.environ['PATH']}:/usr/sbin:/usr/local/sbin")
    if not binary:
        message = "sshd not found, so no remote is tried over SSH (apt install openssh-server)"
        pytest.fail(message) if os.environ.get("CLASSROOM_REQUIRE_SSHD") else pytest.skip(message)
    folder = tmp_path_factory.mktemp("sshd")
    for name in ("host", "user", "stranger"):
        generate = ["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(folder / name)]
        subprocess.run(generate, check=True)
    if os.geteuid() == 0:
        Path("/run/sshd").mkdir(exist_ok=True)  # where root's sshd wants an empty folder
    port = free_port()
    (folder / "config").write_text(
        f"Port {port}\nListenAddress 127.0.0.1\nHostKey {folder}/host\nAuthorizedKeysFile {folder}/user.pub\n"
        "StrictModes no\nUsePAM no\nPasswordAuthentication no\nKbdInteractiveAuthentication no\nPidFile none\n"
        "Subsystem sftp internal-sftp\n"
    )
    known = folder / ".ssh" / "known_hosts"
    known.parent.mkdir()
    known.write_text(f"[127.0.0.1]:{port} {(folder / 'host.pub').read_text()}")
    with (folder / "log").open("w") as log:
        server = subprocess.Popen([binary, "-D", "-e", "-f", str(folder / "config")], stderr=log)
    wait_for_port(port)
    yield Remote(
        f"ssh://{getuser()}@127.0.0.1:{port}{folder}/store",
        secrets={"keyfile": str(folder / "user")},
        environment={"HOME": str(folder)},
    )
    server.terminate()
    server.wait(timeout=30)


@pytest.fixture(scope="module")
def s3(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Remote]:
    """moto's server, which speaks S3 over HTTP, on a free port of 127.0.0.1."""
    from moto.server import ThreadedMotoServer

    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    address = "http://{}:{}".format(*server.get_host_and_port())
    requests.put(f"{address}/classroom", timeout=30).raise_for_status()
    yield Remote(
        "s3://classroom/store",
        options={"endpointurl": address, "region": "us-east-1"},
        environment={"AWS_ACCESS_KEY_ID": "someone", "AWS_SECRET_ACCESS_KEY": "secret", "AWS_MAX_ATTEMPTS": "1",
                     "HOME": str(tmp_path_factory.mktemp("home"))},
    )  # fmt: skip
    server.stop()


def test_results_travel_through_a_folder(finished: Project, tmp_path: Path) -> None:
    travel(Remote(str(tmp_path / "elsewhere" / "store")), finished, tmp_path)
    interrupted(finished, tmp_path / "elsewhere/store/files/md5")
    shutil.rmtree(tmp_path / "elsewhere")
    (tmp_path / "elsewhere").write_text("no folder")
    refused(finished)


def test_results_travel_over_ssh(sshd: Remote, finished: Project, tmp_path: Path) -> None:
    travel(sshd, finished, tmp_path)
    stranger = sshd.secrets["keyfile"].replace("user", "stranger")
    finished.run("dvc", "remote", "modify", "--local", "store", "keyfile", stranger)
    refused(finished)


def test_results_travel_through_s3(s3: Remote, finished: Project, tmp_path: Path) -> None:
    travel(s3, finished, tmp_path)
    requests.post(f"{s3.options['endpointurl']}/moto-api/reset-auth", data=b"0", timeout=30).raise_for_status()
    refused(finished)  # now it knows no one
    finished.run("dvc", "remote", "modify", "store", "endpointurl", f"http://127.0.0.1:{free_port()}")
    refused(finished)


def travel(remote: Remote, project: Project, folder: Path) -> None:
    """Push, clone, pull: the clone agrees, and has the run-cache."""
    remote.add(project)
    project.commit("remote")
    project.run("dvc", "push", "--quiet", "--run-cache")
    assert ": 0 incomplete\n" in project.run("classroom", "verify", "--remote")
    clone = project.clone(folder / "clone", enter=remote.enter)
    assert clone.planned() == Counter()
    assert clone.status() == "Data and pipelines are up to date."
    saved = [len(list((tree.root / ".dvc/cache/runs").rglob("*"))) for tree in (project, clone)]
    assert saved[0] == saved[1] > 0


def interrupted(project: Project, store: Path) -> None:
    """A killed push sent the list of a run's files but not the files: DVC never sends them, and a pull fails."""
    run = f"runs/{STUDY}/ml-v3/seed-0"
    digest = content_hash(project.root / run / "metrics.json")
    (store / digest[:2] / digest[2:]).unlink()
    assert project.run("dvc", "push") == "Everything is up to date.\n"
    for code, said in ((1, f"{run}: the remote lacked 1 of 5 files, 1 sent\n"), (0, ": 0 incomplete\n")):
        assert said in project.run("classroom", "verify", "--remote", expect=code)
    assert content_hash(store / digest[:2] / digest[2:]) == digest


def refused(project: Project) -> None:
    """DVC says so, without harm: both engines still hold everything for done."""
    (project.root / "more.txt").write_text(str(time.time()))  # something to push
    project.run("dvc", "add", "--quiet", "more.txt")
    printed = project.run("dvc", "push", expect=255)
    assert "ERROR: " in printed
    assert "Traceback" not in printed
    assert project.planned() == Counter()
    assert project.status() == "Data and pipelines are up to date."


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def wait_for_port(port: int, seconds: float = 60) -> None:
    deadline = time.monotonic() + seconds
    while True:
        try:
            socket.create_connection(("127.0.0.1", port), timeout=1).close()
            return
        except OSError:
            assert time.monotonic() < deadline, f"nothing listens on port {port}"
            time.sleep(0.05)
