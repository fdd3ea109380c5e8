# Tables and pictures, from results alone.


rule baselines_table:
    """Table 2: every study's teacher and student trained alone."""
    input:
        expand(
            "results/baselines/{study}/{network}.json",
            study=params.baseline_studies,
            network=["teacher", "student"],
        ),
        code("baselines_table"),
    output:
        multiext("reports/table2", ".md", ".csv", ".tex"),
    log:
        "logs/table/table2.log",
    conda:
        "../envs/classroom.yaml"
    shell:
        "classroom table table2 2> {log}"


rule variants_table:
    """A study's twelve variants beside the paper's."""
    input:
        lambda wildcards: expand(
            "results/variants/{study}/{variant}.json",
            study=params.tables[wildcards.table],
            variant=(*params.variants.joint, *params.variants.offline),
        ),
        code("variants_table"),
    output:
        multiext("reports/{table}", ".md", ".csv", ".tex", ".json"),
    log:
        "logs/table/{table}.log",
    wildcard_constraints:
        table="|".join(params.tables) or "none",
    conda:
        "../envs/classroom.yaml"
    shell:
        "classroom table {wildcards.table} 2> {log}"


rule samples:
    """Test images with truth and predictions."""
    input:
        lambda wildcards: multiext(
            f"runs/{wildcards.study}/{params.samples[wildcards.study]}/seed-{params.seeds[0]}/",
            "predictions.parquet",
            "metrics.json",
        ),
        "data/prepared/{study}/images.npy",
        "data/prepared/{study}/index.parquet",
        code("samples"),
    output:
        "reports/samples-{study}.png",
    log:
        "logs/samples/{study}.log",
    wildcard_constraints:
        study="|".join(params.samples) or "none",
    conda:
        "../envs/classroom.yaml"
    params:
        run=lambda wildcards: f"{params.samples[wildcards.study]} --seed {params.seeds[0]}",
    shell:
        "classroom samples {wildcards.study} {params.run} 2> {log}"
