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
        table=names(params.baseline_tables),
    conda:
        "../envs/classroom.yaml"
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
    conda:
        "../envs/classroom.yaml"
    shell:
        "classroom evaluate {wildcards.study} {wildcards.variant} 2> {log}"


rule choose:
    """The point of a grid search that is best on validation."""
    input:
        lambda wildcards: grid_runs_of(wildcards.study),
        code("choose"),
    output:
        multiext("reports/grid-{study}", ".md", ".csv", ".png", ".yaml"),
    log:
        "logs/choose/{study}.log",
    wildcard_constraints:
        study=names(params.grid.studies),
    conda:
        "../envs/classroom.yaml"
    shell:
        "classroom choose {wildcards.study} 2> {log}"
