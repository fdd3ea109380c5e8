"""Which runs Snakemake trains in one process: never later than one by one, and never one that nobody asked for."""

from __future__ import annotations

import itertools
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from classroom import params
from classroom.engines import graph, together
from classroom.engines.together import Group, Run
from classroom.params import BASELINES, VARIANTS
from classroom.training.equality import keys, waits_for_teacher
from support.studies import ROOT, STUDY

RAW = params.load(ROOT / "params.yaml")
TABLE = [Run(STUDY, 0, method) for method in (*BASELINES, *VARIANTS)]


def limited(**settings: Any) -> dict[str, Any]:
    return RAW | {"together": settings}


def networks(group: Group) -> set[str]:
    return {key for method in group.methods for key in keys(method, group.study, RAW).values()}


@given(
    st.lists(st.sampled_from([run._replace(seed=seed) for run in TABLE for seed in (0, 1)]), unique=True),
    st.integers(1, 9),
    st.none() | st.integers(1, 20),
)
def test_every_run_is_in_one_group_of_its_study_and_seed(runs: list[Run], slots: int, limit: int | None) -> None:
    plan = together.choose(runs, limited(max_networks=limit), slots)
    assert sorted(runs) == sorted(Run(of.study, of.seed, method) for of in plan.groups for method in of.methods)
    for group in plan.groups:
        assert len({waits_for_teacher(method) for method in group.methods}) == 1, "its teacher is not finished"
        assert limit is None or len(group.methods) == 1 or len(networks(group)) <= limit
    alone = together.choose(runs, limited(enabled=False), slots)
    assert plan.duration <= together.NEAR * alone.duration
    assert plan.work <= alone.work


def test_on_one_gpu_every_network_of_a_table_trains_once() -> None:
    plan = together.choose(TABLE, RAW, 1)
    assert len(plan.groups) == 2, "those that wait for the teacher, and the others"
    distinct = {key for run in TABLE for key in keys(run.method, STUDY, RAW).values()}
    assert sum(len(networks(group)) for group in plan.groups) == len(distinct)


@pytest.mark.parametrize(("settings", "slots"), [({}, 100), ({"enabled": False}, 1)])
def test_where_it_would_not_pay_or_is_not_wanted_each_run_is_a_job(settings: dict[str, Any], slots: int) -> None:
    assert all(len(group.methods) == 1 for group in together.choose(TABLE, limited(**settings), slots).groups)


def test_settings_from_before_there_were_groups_do() -> None:
    before = {key: value for key, value in RAW.items() if key != "together"}
    assert together.choose(TABLE, before, 2) == together.choose(TABLE, RAW, 2)


def test_a_plan_is_no_slower_than_any_other_division_into_groups_that_follow_each_other() -> None:
    """The shortest possible, found by trying all of them for the runs that wait for nobody."""
    runs = [Run(STUDY, 0, method) for method in ("kd_on-v1", "kd_on-v3", "kd_ml-v1", "ml-v1", "ml-v2", "student")]
    names = sorted((run.method for run in runs), key=together.ORDER.index)

    def cost(methods: list[str]) -> float:
        trained = {(name, key) for method in methods for name, key in keys(method, STUDY, RAW).items()}
        return sum(together.COSTS["teacher" if name == "T" else "student"] for name, _ in trained)

    cuts = itertools.chain.from_iterable(itertools.combinations(range(1, len(names)), count) for count in range(2))
    divisions = [[names[a:b] for a, b in itertools.pairwise([0, *cut, len(names)])] for cut in cuts]
    fastest = min(max(map(cost, division)) for division in divisions)
    assert together.choose(runs, RAW, 2).duration <= together.NEAR * fastest


def test_only_what_the_targets_need_is_trained() -> None:
    stages = graph.load()

    def needed(*targets: str) -> set[str]:
        return {f"{run.study}/{run.method}" for run in together.runs_in(together.needed_for(targets, stages))}

    assert needed(f"runs/{STUDY}/kd_on-v1/seed-0/") == {f"{STUDY}/kd_on-v1"}
    assert needed("./reports/table4.md") == {f"{STUDY}/{run.method}" for run in TABLE}
    assert needed() == needed("all") == needed("reports/all") > needed("reports/table4.md")
    assert needed("no/such/file") == set()


@pytest.mark.parametrize(
    ("arguments", "visible", "expected"),
    [
        ((8, 2, None, None), "", 4),
        ((1, 4, None, None), "", 1),
        ((8, 1, 3, None), "", 3),
        ((8, 1, None, None), "0,1", 2),
        ((None, 1, None, 100), "0", 100),
        ((None, 1, 5, 100), "0", 5),
    ],
)
def test_the_trainings_at_a_time(
    arguments: tuple[Any, ...], visible: str, expected: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
    monkeypatch.delenv("CLASSROOM_DEVICE", raising=False)
    assert together.slots(*arguments) == expected


def test_jobs_on_other_nodes_know_the_groups(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert together.recorded() == []
    groups = together.choose(TABLE, RAW, 2).groups
    together.record(groups)
    assert together.recorded() == groups
