# From the saved predictions of a method's runs to its results.


rule evaluate_baseline:
    """Test metrics of a teacher or student alone, over all seeds."""
    input:
        lambda wildcards: places.runs_of(params, wildcards.study, wildcards.network),
        code("evaluate_teacher"),
    output:
        "results/baselines/{table}/{study}/{network}.json",
        "results/costs/baselines/{table}/{study}/{network}.json",
    log:
        "logs/evaluate/{table}/{study}/{network}.log",
    wildcard_constraints:
        table=names(of["baselines"] for of in PLAN["studies"].values()),
    shell:
        "classroom evaluate {wildcards.study} {wildcards.network} > {log} 2>&1"


rule evaluate:
    """Test metrics and fidelity of a variant's networks and of the students' ensemble, over all seeds."""
    input:
        lambda wildcards: places.runs_of(params, wildcards.study, wildcards.variant),
        code("evaluate"),
    output:
        "results/variants/{study}/{variant}.json",
        "results/costs/variants/{study}/{variant}.json",
    log:
        "logs/evaluate/{study}/{variant}.log",
    shell:
        "classroom evaluate {wildcards.study} {wildcards.variant} > {log} 2>&1"


rule evaluate_methods:
    """Test metrics of a study's published methods, of the student alone and of ours, over all seeds."""
    input:
        lambda wildcards: places.compared_runs_of(params, wildcards.study),
        code("evaluate_methods_classification"),
    output:
        "results/comparison/{table}/{study}.json",
        "results/costs/comparison/{table}/{study}.json",
    log:
        "logs/evaluate/{table}/{study}.log",
    wildcard_constraints:
        study=names(params.compared_studies()),
        table=names(PLAN["reports"]["comparison"]),
    shell:
        "classroom evaluate {wildcards.study} published > {log} 2>&1"


rule cka:
    """Similarity (CKA) of the layers of a run's teacher and students."""
    input:
        "runs/{study}/{variant}/seed-{seed}",
        "runs/{study}/teacher/seed-{seed}",
        "data/prepared/{study}",
        "data/splits/{study}.parquet",
        code("cka"),
    output:
        "results/cka/{study}/{variant}/seed-{seed}.parquet",
    log:
        "logs/cka/{study}/{variant}/seed-{seed}.log",
    wildcard_constraints:
        study=names(PLAN["cka"]),
    threads: params.training.threads
    shell:
        "classroom cka {wildcards.study} {wildcards.variant} --seed {wildcards.seed} > {log} 2>&1"
