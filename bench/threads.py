"""How a machine's cores are best shared: trainings at a time × threads each, and that none takes more than it may."""

from __future__ import annotations

import os
import subprocess
import sys
import time

from bench import studies
from bench.timing import Point

STEPS = 8
JOB = """
import json, os, resource, sys, time
from bench.training import Ours
study, scale, threads, steps = sys.argv[1], sys.argv[2], int(sys.argv[3]), int(sys.argv[4])
ours = Ours(study, scale, "kd_ml-v3", steps, threads=threads)
print("ready", flush=True)
sys.stdin.readline()
started, before = time.perf_counter(), time.process_time()
ours.in_turns({})
print(json.dumps([time.perf_counter() - started, time.process_time() - before]))
"""


def measure() -> Point:
    point = Point("Threads and jobs")
    cores = len(os.sched_getaffinity(0))
    rows = []
    for scale in ("paper", "demo"):
        for study in (studies.SEGMENTATION, studies.CLASSIFICATION):
            rates = {}
            for threads in [count for count in (1, 2, 4, 8) if count <= cores]:
                rates[threads], used = _images_per_second(study, scale, cores // threads, threads)
                rows.append(
                    [f"{scale} networks, {studies.task(study)}", cores // threads, threads, rates[threads], used]
                )
            best = max(rates, key=rates.__getitem__)
            point.note(f"best threads per training on {cores} cores, {scale} networks, {studies.task(study)}", best)
    most = max(float(row[-1]) for row in rows)
    point.at_most("busiest training: cores used ÷ threads it was given", most, 1.05)
    point.tables.append(
        (("networks", "trainings at a time", "threads each", "images/s, all", "cores used ÷ threads"), rows)
    )
    return point


def _images_per_second(study: str, scale: str, jobs: int, threads: int) -> tuple[float, float]:
    """Of all jobs together; and the largest share of cores that one of them used of its threads."""
    command = [sys.executable, "-c", JOB, study, scale, str(threads), str(STEPS)]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True, "cwd": studies.ROOT}
    running = [subprocess.Popen(command, **pipes) for _ in range(jobs)]
    for process in running:
        process.stdout.readline()
    started = time.perf_counter()
    for process in running:
        process.stdin.write("go\n")
        process.stdin.flush()
    used = []
    for process in running:
        wall, busy = (float(part) for part in process.stdout.read().strip().strip("[]").split(","))
        process.wait()
        used.append(busy / wall / threads)
    return jobs * STEPS * studies.BATCH / (time.perf_counter() - started), max(used)
