# From the saved predictions of a method's runs to its results.


rule evaluate_baseline:
    """Test metrics of a teacher or student alone, over all seeds."""
    input:
        lambda wildcards: runs_of(wildcards.study, wildcards.network),
        code("evaluate_baseline"),
    output:
        "results/baselines/{study}/{network}.json",
    log:
        "logs/evaluate/{study}/{network}.log",
    conda:
        "../envs/classroom.yaml"
    shell:
        "classroom evaluate {wildcards.study} {wildcards.network} 2> {log}"


rule evaluate:
    """Test metrics of a variant's networks and of the students' ensemble, over all seeds."""
    input:
        lambda wildcards: runs_of(wildcards.study, wildcards.variant),
        code("evaluate"),
    output:
        "results/variants/{study}/{variant}.json",
    log:
        "logs/evaluate/{study}/{variant}.log",
    conda:
        "../envs/classroom.yaml"
    shell:
        "classroom evaluate {wildcards.study} {wildcards.variant} 2> {log}"
