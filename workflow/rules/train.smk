# One run = study × method × seed. A retry of a failed or killed run resumes from its checkpoint.


rule baseline:
    """Train a study's teacher or student alone."""
    input:
        "data/prepared/{study}",
        "data/splits/{study}.parquet",
        code("baseline"),
    output:
        directory("runs/{study}/{network}/seed-{seed}"),
    log:
        "logs/train/{study}/{network}/seed-{seed}.log",
    priority: 1  # others wait for the teacher
    threads: params.training.threads
    resources:
        gpu=1,
    shell:
        "classroom train {wildcards.study} {wildcards.network} --seed {wildcards.seed} > {log} 2>&1"


rule train:
    """Train a variant in which every network learns together."""
    input:
        "data/prepared/{study}",
        "data/splits/{study}.parquet",
        code("train"),
    output:
        directory("runs/{study}/{joint}/seed-{seed}"),
    log:
        "logs/train/{study}/{joint}/seed-{seed}.log",
    threads: params.training.threads
    resources:
        gpu=1,
    shell:
        "classroom train {wildcards.study} {wildcards.joint} --seed {wildcards.seed} > {log} 2>&1"


rule train_offline:
    """Train a variant that learns from the study's trained teacher."""
    input:
        "runs/{study}/teacher/seed-{seed}",
        "data/prepared/{study}",
        "data/splits/{study}.parquet",
        code("train_offline"),
    output:
        directory("runs/{study}/{offline}/seed-{seed}"),
    log:
        "logs/train/{study}/{offline}/seed-{seed}.log",
    threads: params.training.threads
    resources:
        gpu=1,
    shell:
        "classroom train {wildcards.study} {wildcards.offline} --seed {wildcards.seed} > {log} 2>&1"


# Several runs of a study and seed in one process, where that is done sooner. A rule without wildcards goes before those
# above.
for number, group in enumerate(GROUPS, 1):

    rule:
        name:
            f"together_{number}"
        input:
            [f"runs/{group.study}/teacher/seed-{group.seed}"] if waits_for_teacher(group.methods[0]) else [],
            f"data/prepared/{group.study}",
            f"data/splits/{group.study}.parquet",
            sorted({path for method in group.methods for path in code(training_stage(method))}),
        output:
            [directory(f"runs/{group.study}/{method}/seed-{group.seed}") for method in group.methods],
        log:
            f"logs/train/{group.study}/together/seed-{group.seed}-{number}.log",
        priority: int("teacher" in group.methods)
        threads: params.training.threads
        resources:
            gpu=1,
        params:  # Snakemake formats commands later, when the loop is over
            f"{group.study} {' '.join(group.methods)} --seed {group.seed}",
        shell:
            "classroom train {params} 2> {log}"


rule grid:
    """Train a variant with the weights of one point of the grid search."""
    input:
        "data/prepared/{study}",
        "data/splits/{study}.parquet",
        code("grid"),
    output:
        directory("grid/{study}/{joint}/{alpha_1}-{alpha_2}-{share}/seed-{seed}"),
    log:
        "logs/grid/{study}/{joint}/{alpha_1}-{alpha_2}-{share}/seed-{seed}.log",
    threads: params.training.threads
    resources:
        gpu=1,
    shell:
        "classroom train {wildcards.study} {wildcards.joint} --seed {wildcards.seed} --point {wildcards.alpha_1},{wildcards.alpha_2},{wildcards.share} > {log} 2>&1"


rule grid_offline:
    """As grid, after the study's teacher."""
    input:
        "runs/{study}/teacher/seed-{seed}",
        "data/prepared/{study}",
        "data/splits/{study}.parquet",
        code("grid_offline"),
    output:
        directory("grid/{study}/{offline}/{alpha_1}-{alpha_2}-{share}/seed-{seed}"),
    log:
        "logs/grid/{study}/{offline}/{alpha_1}-{alpha_2}-{share}/seed-{seed}.log",
    threads: params.training.threads
    resources:
        gpu=1,
    shell:
        "classroom train {wildcards.study} {wildcards.offline} --seed {wildcards.seed} --point {wildcards.alpha_1},{wildcards.alpha_2},{wildcards.share} > {log} 2>&1"


rule method:
    """Train a published method of Table 10, after the study's teacher."""
    input:
        "runs/{study}/teacher/seed-{seed}",
        "data/prepared/{study}",
        "data/splits/{study}.parquet",
        lambda wildcards: method_code(wildcards.study, wildcards.method),
    output:
        directory("compared/{study}/{method}/seed-{seed}"),
    log:
        "logs/compared/{study}/{method}/seed-{seed}.log",
    threads: params.training.threads
    resources:
        gpu=1,
    shell:
        "classroom train {wildcards.study} {wildcards.method} --seed {wildcards.seed} > {log} 2>&1"


rule tune_method:
    """As method, with a factor times the reference weights."""
    input:
        "runs/{study}/teacher/seed-{seed}",
        "data/prepared/{study}",
        "data/splits/{study}.parquet",
        lambda wildcards: method_code(wildcards.study, wildcards.method),
    output:
        directory("tune/{study}/{method}/{factor}/seed-{seed}"),
    log:
        "logs/tune/{study}/{method}/{factor}/seed-{seed}.log",
    threads: params.training.threads
    resources:
        gpu=1,
    shell:
        "classroom train {wildcards.study} {wildcards.method} --seed {wildcards.seed} --point {wildcards.factor} > {log} 2>&1"
