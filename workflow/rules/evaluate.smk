# From the saved predictions of a method's runs to its results, and from a grid's runs to the best of them.


rule evaluate_baseline:
    """Test metrics of a teacher or student alone, over all seeds."""
    input:
        lambda wildcards: runs_of(wildcards.study, wildcards.network),
        code("evaluate_teacher"),
    output:
        "results/baselines/{table}/{study}/{network}.json",
        "results/costs/baselines/{table}/{study}/{network}.json",
    log:
        "logs/evaluate/{table}/{study}/{network}.log",
    wildcard_constraints:
        table=names(PLAN["baselines"]),
    shell:
        "classroom evaluate {wildcards.study} {wildcards.network} 2> {log}"


rule evaluate:
    """Test metrics and fidelity of a variant's networks and of the students' ensemble, over all seeds."""
    input:
        lambda wildcards: runs_of(wildcards.study, wildcards.variant),
        code("evaluate"),
    output:
        "results/variants/{study}/{variant}.json",
        "results/costs/variants/{study}/{variant}.json",
    log:
        "logs/evaluate/{study}/{variant}.log",
    shell:
        "classroom evaluate {wildcards.study} {wildcards.variant} 2> {log}"


rule compare:
    """Test metrics of a study's published methods, of the student alone and of ours, over all seeds."""
    input:
        lambda wildcards: compared_runs_of(wildcards.study),
        code("compare_classes"),
    output:
        "results/comparison/{table}/{study}.json",
        "results/costs/comparison/{table}/{study}.json",
    log:
        "logs/compare/{table}/{study}.log",
    wildcard_constraints:
        study=names(params.compared_studies()),
        table=names(PLAN["comparison"]["tables"]),
    shell:
        "classroom compare {wildcards.study} 2> {log}"


rule tuned:
    """The factor of a published method's weights that is best on validation."""
    input:
        lambda wildcards: tuned_runs_of(wildcards.study),
        code("tuned_classes"),
    output:
        "reports/tune-{study}.md",
        report(
            "reports/tune-{study}.csv",
            caption="../report/tune.rst",
            category="Diagnostics",
            labels=lambda wildcards: labels(wildcards.study, "search of published methods' weights"),
        ),
        "reports/tune-{study}.yaml",
        "reports/pages/tune-{study}.json",
    log:
        "logs/tuned/{study}.log",
    wildcard_constraints:
        study=names(tuned_studies()),
    shell:
        "classroom tune {wildcards.study} 2> {log}"


rule cka:
    """How alike the layers of a run's teacher and students are."""
    input:
        multiext("runs/{study}/{variant}/seed-{seed}/", "weights.safetensors", "metrics.json"),
        multiext("runs/{study}/teacher/seed-{seed}/", "weights.safetensors", "metrics.json"),
        prepared_files("{study}"),
        "data/splits/{study}.parquet",
        code("cka"),
    output:
        "results/cka/{study}/{variant}/seed-{seed}.parquet",
    log:
        "logs/cka/{study}/{variant}/seed-{seed}.log",
    wildcard_constraints:
        study=names(PLAN["cka"]["studies"]),
    threads: params.training.threads
    shell:
        "classroom cka {wildcards.study} {wildcards.variant} --seed {wildcards.seed} 2> {log}"


rule choose:
    """The point of a grid search that is best on validation."""
    input:
        lambda wildcards: grid_runs_of(wildcards.study),
        code("choose"),
    output:
        "reports/grid-{study}.md",
        "reports/grid-{study}.csv",
        report(
            "reports/grid-{study}.png",
            caption="../report/grid.rst",
            category="Diagnostics",
            labels=lambda wildcards: labels(wildcards.study, "search of weights"),
        ),
        "reports/grid-{study}.yaml",
        "reports/pages/grid-{study}.json",
    log:
        "logs/choose/{study}.log",
    wildcard_constraints:
        study=names(PLAN["grid"]),
    shell:
        "classroom choose {wildcards.study} 2> {log}"
