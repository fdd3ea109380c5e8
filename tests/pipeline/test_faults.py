"""What a user meets after kills, full and broken disks, wrong clocks, and when two pipelines want the same tree."""

from __future__ import annotations

import contextlib
import json
import os
import re
import shutil
import signal
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest

from chaos import Chaos, Report, different
from classroom.files import content_hash
from support.project import Project, catch, start, wait_for
from support.studies import ROOT, STUDY

PREPARED = f"data/prepared/{STUDY}/images.npy"
RUN = f"runs/{STUDY}/ml-v3/seed-0"
YEAR = 365 * 24 * 3600


# Kills ----------------------------------------------------------------------------------------------------------


def test_killed_at_random_moments_it_ends_in_the_same_files(
    pristine: Project, finished_once: Project, tmp_path: Path
) -> None:
    """SIGKILLs of Snakemake, of jobs and of everything: nothing lost, nothing done twice."""
    target, report = f"results/variants/{STUDY}/ml-v3.json", Report()
    while report.kills.total() < 3:  # one of each kind; a run may be through before
        project = pristine.copy(tmp_path / f"project-{report.runs}")
        Chaos(project, target, seed=report.runs, pause=(0, 0.6)).run(5, finished_once.root, report)
    print(report)
    assert report.compared > 10
    assert (report.different, report.twice, report.left_over, report.to_do) == ([], {}, [], 0)


def test_jobs_of_a_killed_snakemake_are_waited_for(finished: Project) -> None:
    """They go on by themselves; the next start needs no --unlock, and does not train next to them."""
    finished.train_long()
    command = ("snakemake", "--cores", "1", f"runs/{STUDY}/student/seed-0")
    killed = start(finished, *command)
    training = catch(finished)
    killed.kill()
    killed.wait()
    running = start(finished, *command)
    wait_for(lambda: f"Waiting for `classroom train {STUDY} student --seed 0` (PID" in printed(finished))
    training.resume()
    assert running.wait(timeout=120) == 0
    assert f"`{' '.join(command)}` (PID {killed.pid} on " in printed(finished)
    assert "was killed: resuming its work" in printed(finished)
    log = (finished.root / f"logs/train/{STUDY}/student/seed-0.log").read_text()
    assert log.count("best epochs") == 1, "the training was done, and only committed"


def printed(project: Project) -> str:
    """What commands that were started have printed."""
    return (project.root / "printed").read_text()


# Damaged files --------------------------------------------------------------------------------------------------


def cut(path: Path) -> None:
    os.truncate(path, path.stat().st_size // 2)


def flip(path: Path) -> None:
    """One bit in the middle, as a failing disk would: size and time stay."""
    status = path.stat()
    content = bytearray(path.read_bytes())
    content[len(content) * 2 // 3] ^= 4
    path.chmod(0o644)
    path.write_bytes(content)
    path.chmod(status.st_mode & 0o777)
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))


def test_what_is_cut_off_or_lost_comes_back(finished: Project) -> None:
    """Files that DVC's cache holds are brought back, not made again; DVC's own files are fixed."""
    results = [
        f"{RUN}/{name}" for name in ("weights.safetensors", "predictions.parquet", "metrics.json", "manifest.json")
    ]
    damaged = [*results, PREPARED, f"data/splits/{STUDY}.parquet"]
    before = {path: content_hash(finished.root / path) for path in [*damaged, f"{RUN}/history.csv", "dvc.lock"]}
    for path in damaged:
        cut(finished.root / path)
    (finished.root / RUN / "history.csv").unlink()
    cut(finished.root / "dvc.lock")
    (finished.root / ".dvc/tmp/rwlock").write_text('{"write": {"/tm')
    (finished.root / ".classroom/cache/hashes.json").write_text('{"runs')
    printed = finished.run("classroom", "reconcile")
    assert "restored from DVC's cache: " in printed
    assert "dvc.lock was half-written or damaged: the last good copy is restored" in printed
    assert ".dvc/tmp/rwlock was half-written: removed" in printed
    assert ".classroom/cache/hashes.json is damaged: its content is computed again" in printed
    assert printed.endswith("nothing to do\n")
    assert {path: content_hash(finished.root / path) for path in before} == before
    assert finished.planned() == Counter()


def test_a_flipped_bit_is_found_by_whoever_reads_the_file(finished: Project) -> None:
    """No job uses it, though size and time tell nothing; the next start restores it."""
    for path, command in (
        (PREPARED, f"train {STUDY} student --seed 0"),
        (f"{RUN}/predictions.parquet", f"evaluate {STUDY} ml-v3"),
        (f"{RUN}/weights.safetensors", f"cka {STUDY} ml-v3 --seed 0"),
    ):
        before = content_hash(finished.root / path)
        flip(finished.root / path)
        printed = finished.run("classroom", *command.split(), expect=1)
        assert printed.startswith(f"Error: {path}: damaged, edited or replaced since `classroom ")
        assert f"`dvc checkout {path.rpartition('/')[0]}`" in printed
        assert printed.count("\n") == 1
        assert "restored from DVC's cache: " in finished.run("classroom", "reconcile")
        assert content_hash(finished.root / path) == before


def test_verify_reads_everything_again(finished: Project) -> None:
    """A flipped bit in a result: it comes back; in DVC's copy: that is renewed; in both: the job is due again."""
    cache = finished.root / ".dvc/cache/files/md5"
    lock = (finished.root / "dvc.lock").read_text()

    def copy(path: str) -> Path:
        """DVC's, of a file in a run's folder."""
        folder, _, name = path.rpartition("/")
        checksum = re.search(rf"path: {re.escape(folder)}\n\s+hash: md5\n\s+md5: (\w+\.dir)", lock)[1]
        listing = json.loads((cache / checksum[:2] / checksum[2:]).read_text())
        (digest,) = (file["md5"] for file in listing if file["relpath"] == name)
        return cache / digest[:2] / digest[2:]

    finished.run("classroom", "reconcile")  # may set times; what DVC remembers of the files is of now on
    assert ": 0 damaged, 0 copies damaged" in finished.run("classroom", "verify")
    here, there, both = RUN, f"runs/{STUDY}/teacher/seed-0", f"runs/{STUDY}/student/seed-0"
    image = next((finished.root / "data/raw/lgg").rglob("*_mask.tif"))
    of_both = f"{both}/history.csv"
    for path in (finished.root / here / "weights.safetensors", image, copy(f"{there}/metrics.json")):
        flip(path)
    flip(finished.root / of_both)
    flip(copy(of_both))
    printed = finished.run("classroom", "verify", expect=1)
    for path in (here, "data/raw/lgg", both):
        assert f"{path}: damaged, or edited by hand: its checksum is not the one in dvc.lock" in printed
    assert f"restored from DVC's cache: fetch@lgg, train@{STUDY}-ml-v3-0\n" in printed
    assert f"{there}: its copy in DVC's cache was damaged, and is renewed" in printed
    assert f"{both}: its copy in DVC's cache was damaged, and is removed" in printed
    assert ": 3 damaged, 2 copies damaged" in printed
    assert content_hash(copy(f"{there}/metrics.json")) == content_hash(finished.root / there / "metrics.json")
    assert finished.planned("reports/table4.md") == Counter(baseline=1, evaluate_baseline=1, variants=1)


def test_a_folder_has_the_checksum_that_dvc_gives_it(finished_once: Project) -> None:
    lock = (finished_once.root / "dvc.lock").read_text()
    assert f"md5: {content_hash(finished_once.root / 'data/raw/lgg')}\n" in lock


# Disks ----------------------------------------------------------------------------------------------------------

COMMANDS = (  # the training last, as the time that it took is in the costs of the others
    "fetch lgg", f"prepare {STUDY}", f"split {STUDY}", f"evaluate {STUDY} ml-v3", "report table4",
    f"cka {STUDY} ml-v3 --seed 0", f"report curves-{STUDY}", "report cost", f"train {STUDY} student ml-v3 --seed 0",
)  # fmt: skip
PRIVATE = ["unshare", "--mount"] if os.geteuid() == 0 else ["unshare", "--user", "--map-root-user", "--mount"]


def can_mount() -> bool:
    try:
        probe = [*PRIVATE, "mount", "-t", "tmpfs", "tmpfs", "/mnt"]
        return subprocess.run(probe, capture_output=True, check=False).returncode == 0
    except FileNotFoundError:
        return False


def test_a_full_disk_spoils_nothing_and_once_freed_the_command_succeeds(finished_once: Project, tmp_path: Path) -> None:
    """Every command, on a disk with ever more room until it fits: one paragraph, and everything as it was.

    Where no small disk can be mounted, which takes root or user namespaces, the size of files is limited instead.
    """
    mode = "disk" if can_mount() else "file"
    script = [sys.executable, str(ROOT / "tests/support/full_disk.py"), mode, str(finished_once.root), str(tmp_path)]
    command = [*(PRIVATE if mode == "disk" else []), *script, *COMMANDS]
    done = subprocess.run(command, env=finished_once.environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    for result in json.loads(done.stdout):
        assert result["wrong"] == [], result["command"]
        assert result["failed"] >= 1, f"{result['command']} wrote nothing"
        said = {"disk": "No space left on device|disk is full", "file": "File too large"}[mode]
        assert any(re.search(said, text) for text in result["said"]), result
        if mode == "disk":
            assert "Read-only file system" in result["read-only"]


def as_a_user_without_rights(*command: str) -> list[str]:
    """Root may write anywhere; without its capabilities it may not."""
    return ["setpriv", "--bounding-set", "-all", "--inh-caps", "-all", *command] if os.geteuid() == 0 else [*command]


def test_a_read_only_cache_is_named(finished: Project) -> None:
    """Nothing is lost: the finished jobs are committed when the cache can be written again."""
    finished.weigh("ml-v3", 0.3)
    cache = finished.root / ".dvc/cache/files/md5"
    folders = [cache, *cache.iterdir()]
    for folder in folders:
        folder.chmod(0o555)
    target = f"results/variants/{STUDY}/ml-v3.json"
    printed = finished.run(*as_a_user_without_rights("snakemake", "--cores", "2", target))
    for folder in folders:
        folder.chmod(0o755)
    assert "Warning: the results are not committed to dvc.lock yet (DVC cannot commit finished jobs: " in printed
    assert "Permission denied" in printed
    assert "committed to dvc.lock: 2 finished jobs" in finished.run("classroom", "reconcile")


# Clocks ---------------------------------------------------------------------------------------------------------


def shift(folder: Path, seconds: float) -> None:
    """All file times as if they had been written under another clock."""
    for path in (folder, *folder.rglob("*")):
        if not {".git", ".dvc", ".snakemake"} & {*path.relative_to(folder).parts}:
            with contextlib.suppress(FileNotFoundError):  # what a job is writing
                moment = path.lstat().st_mtime + seconds
                os.utime(path, (moment, moment), follow_symlinks=False)


def test_a_clock_that_jumps_between_runs_changes_nothing(finished: Project) -> None:
    """Files of long ago, or from the future: exactly the jobs that the change needs, and Snakemake accepts them."""
    shift(finished.root, -YEAR)
    assert finished.planned() == Counter()
    finished.weigh("ml-v3", 0.3)
    shift(finished.root, 2 * YEAR)
    due = Counter(train=1, evaluate=1, variants=1)
    assert finished.planned("reports/table4.md") == due
    printed = finished.snakemake("reports/table4.md")
    assert "3 of 3 jobs" in printed
    assert finished.planned("reports/table4.md") == Counter()


def test_a_clock_set_back_during_a_run_fails_no_job(pristine: Project, tmp_path: Path) -> None:
    """Snakemake fails a job whose inputs are newer than what it made, and deletes that: hours of training."""
    project = pristine.copy(tmp_path / "project")
    target = f"data/splits/{STUDY}.parquet"
    running = start(project, "snakemake", "--cores", "1", target)
    for path in ("data/raw/lgg/samples.csv", PREPARED):
        wait_for((project.root / path).exists)
        for folder in ("data", "src"):
            shift(project.root / folder, YEAR)
    assert running.wait(timeout=300) == 0
    assert project.planned(target) == Counter()


# Two at once ----------------------------------------------------------------------------------------------------


@pytest.fixture
def busy(finished: Project) -> tuple[Project, subprocess.Popen]:
    """Snakemake is training in the tree, and not done before it is killed."""
    finished.train_long()
    running = start(finished, "snakemake", "--cores", "1", f"runs/{STUDY}/student/seed-0")
    training = catch(finished)
    yield finished, running
    os.killpg(running.pid, signal.SIGKILL)
    training.kill()
    running.wait()


def test_whoever_comes_second_is_told_who_is_at_work(busy: tuple[Project, subprocess.Popen]) -> None:
    """Another Snakemake, whatever its target; DVC; commands that reconcile. A dry run, and what only reads, is free."""
    project, running = busy
    holder = rf"`snakemake --cores 1 \S+` \(PID {running.pid} on \S+, since \S+ \S+\) is running in this tree\. Two"
    for command in (
        ("snakemake", "--cores", "1", "reports/table1.md"),
        ("snakemake", "--unlock", "reports/table1.md"),
        ("classroom", "reconcile"),
        ("classroom", "verify"),
    ):
        printed = project.run(*command, expect=1)
        assert re.search(f"^Error: {holder}", printed, re.MULTILINE), printed
        assert "Traceback" not in printed
    assert re.search(f"^Note: {holder}", project.snakemake("-n", "reports/table1.md"), re.MULTILINE)
    printed = project.run("dvc", "repro", "exchange@table1", expect=255)
    assert f"(PID {running.pid}): snakemake --cores 1" in printed
    project.run("dvc", "push")
    assert running.poll() is None


def test_snakemake_does_not_start_beside_dvc(finished: Project) -> None:
    finished.train_long()
    running = start(finished, "dvc", "repro", f"baseline@{STUDY}-student-0")
    training = catch(finished)
    try:
        printed = finished.snakemake("reports/table4.md", expect=1)
    finally:
        os.killpg(running.pid, signal.SIGKILL)
        training.kill()
        running.wait()
    assert re.search(rf"Error: `\S+dvc repro \S+` \(PID {running.pid}\) is running in this tree", printed), printed
    assert "Traceback" not in printed


def test_a_job_that_another_process_does_is_waited_for(finished: Project) -> None:
    """`classroom train` twice at once: the second finds it done, and says so."""
    finished.train_long()
    command = ("classroom", "train", STUDY, "student", "--seed", "0")
    first = start(finished, *command)
    training = catch(finished)
    second = start(finished, *command)
    wait_for(lambda: f"waiting for `{' '.join(command)}` (PID {first.pid} on" in printed(finished))
    training.resume()
    assert [first.wait(timeout=120), second.wait(timeout=120)] == [0, 0]
    assert "the other process has finished this job: nothing to run" in printed(finished)
    assert printed(finished).count("best epochs") == 1


def test_two_trees_share_a_cache(pristine: Project, finished_once: Project, tmp_path: Path) -> None:
    """Both run at once, and both are right."""
    trees = [pristine.copy(tmp_path / name) for name in ("first", "second")]
    for tree in trees:
        tree.run("dvc", "cache", "dir", str(tmp_path / "cache"))
    target = f"data/splits/{STUDY}.parquet"
    running = [start(tree, "snakemake", "--cores", "1", target) for tree in trees]
    assert [process.wait(timeout=300) for process in running] == [0, 0]
    for tree in trees:
        assert different(tree.root, finished_once.root) == []
        assert not (tree.root / ".dvc/cache").exists()
    assert ": 0 damaged, 0 copies damaged" in trees[0].run("classroom", "verify")
    shutil.rmtree(trees[1].root / "data")
    assert trees[1].planned(target) == Counter(), "the one tree's results bring back the other's"


def test_a_stale_process_number_does_not_keep_dvc_out(finished: Project) -> None:
    """After a kill and a restart of the machine, or of a container, the number belongs to another process."""
    entry = {"pid": os.getpid(), "cmd": "snakemake --cores 2"}
    (finished.root / ".dvc/tmp/rwlock").write_text(json.dumps({"write": {str(finished.root): entry}, "read": {}}))
    assert finished.planned() == Counter()
    assert finished.status() == "Data and pipelines are up to date."


def test_no_job_takes_gits_lock(finished: Project) -> None:
    """Killed in that moment it would stay behind, and `git commit` would refuse."""
    finished.edit("src/classroom/slurm.py", "import subprocess\n", "import subprocess\n\n")
    index = (finished.root / ".git/index").stat().st_mtime_ns
    os.utime(finished.root / "dvc.yaml")
    finished.run("classroom", "report", "table1")
    assert (finished.root / ".git/index").stat().st_mtime_ns == index
    manifest = json.loads((finished.root / ".classroom/manifests/exchange@table1.json").read_text())
    assert manifest["code_version"].endswith("-dirty")
