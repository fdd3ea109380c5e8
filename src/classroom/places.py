"""Paths of the jobs' files, from the project's root."""

from __future__ import annotations

from itertools import product

from classroom.methods.registry import run_folder
from classroom.params import BASELINES, Params


def runs_of(params: Params, study: str, method: str) -> list[str]:
    """The folders of all of a method's runs."""
    return [run_folder(study, method, seed).as_posix() for seed in params.seeds]


def all_runs_of(params: Params, study: str) -> list[str]:
    """The folders of all runs of a study, baselines and variants."""
    return [path for method in (*BASELINES, *params.trained_variants) for path in runs_of(params, study, method)]


def grid_runs_of(params: Params, study: str) -> list[str]:
    """The folders of all runs of a study's grid search."""
    grid = params.grid
    points = product((*grid.joint, *grid.offline), grid.alpha_1, grid.alpha_2, grid.teacher_share, params.seeds)
    return [
        f"grid/{study}/{variant}/{alpha_1}-{alpha_2}-{share}/seed-{seed}"
        for variant, alpha_1, alpha_2, share, seed in points
    ]


def tuned_runs_of(params: Params, study: str) -> list[str]:
    """The folders of all runs of a study's search of published methods' weights."""
    methods = getattr(params.tune, params.study[study].task).methods
    return [
        f"tune/{study}/{method}/{factor}/seed-{seed}"
        for method, factor, seed in product(methods, params.tune.factors, params.seeds)
    ]


def compared_runs_of(params: Params, study: str) -> list[str]:
    """The folders of all runs that a study's comparison with published methods shows."""
    methods = (*getattr(params.comparison, params.study[study].task), "student", params.ours)
    return [path for method in methods for path in runs_of(params, study, method)]


def results_of(params: Params, study: str) -> list[str]:
    """The results of a study's variants."""
    return [f"results/variants/{study}/{variant}.json" for variant in params.trained_variants]


def baseline_results_of(params: Params, study: str) -> list[str]:
    """The results of a study's teacher and student alone."""
    return [f"results/baselines/{params.study[study].reports.baselines}/{study}/{role}.json" for role in BASELINES]


def comparison_of(params: Params, study: str) -> str:
    """The results of a study's published methods."""
    return f"results/comparison/{params.study[study].reports.comparison}/{study}.json"


def costs_of(result: str) -> str:
    """The costs of the runs behind a result."""
    return result.replace("results/", "results/costs/", 1)


def all_costs(params: Params) -> list[str]:
    """The costs of the runs behind all results."""
    results = [path for study in params.study for path in baseline_results_of(params, study)]
    results += [path for study in params.study for path in results_of(params, study)]
    results += [comparison_of(params, study) for study in params.compared_studies()]
    return [costs_of(path) for path in results]


def similarities_of(params: Params, study: str) -> list[str]:
    """CKA of all of a study's variants and seeds."""
    return [
        f"results/cka/{study}/{variant}/seed-{seed}.parquet"
        for variant, seed in product(params.trained_variants, params.seeds)
    ]


def export_of(params: Params, study: str, method: str, network: str) -> str:
    """The exported model of the first seed's run."""
    return f"exports/{study}/{method}/seed-{params.seeds[0]}/{network}/model.onnx"
