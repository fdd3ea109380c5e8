# Trained networks as files for use outside, and what they cost there.


rule export:
    """A run's network, or both students in one graph, as ONNX with its card."""
    input:
        multiext(
            "runs/{study}/{exported}/seed-{seed}/",
            "weights.safetensors",
            "predictions.parquet",
            "metrics.json",
            "manifest.json",
        ),
        prepared_files("{study}"),
        "data/splits/{study}.parquet",
        code("export"),
    output:
        "exports/{study}/{exported}/seed-{seed}/{part}/model.onnx",
        "exports/{study}/{exported}/seed-{seed}/{part}/README.md",
    log:
        "logs/export/{study}/{exported}/seed-{seed}/{part}.log",
    wildcard_constraints:
        study=names(params.deploy.studies),
        exported=names({"teacher", params.deploy.method}),
        part="T|S1|ensemble",
    shell:
        "classroom export {wildcards.study} {wildcards.exported} --seed {wildcards.seed} --network {wildcards.part} 2> {log}"


rule measure:
    """What a study's teacher, one student and the ensemble take on a CPU, side by side."""
    input:
        lambda wildcards: [
            export_of(wildcards.study, "teacher", "T"),
            *(export_of(wildcards.study, params.deploy.method, part) for part in ("S1", "ensemble")),
        ],
        code("measure"),
    output:
        "results/deploy/{study}.json",
    log:
        "logs/measure/{study}.log",
    wildcard_constraints:
        study=names(params.deploy.studies),
    threads: workflow.resource_settings.cores or 1  # all: what ran beside it would be measured too
    params:
        run=f"{params.deploy.method} --seed {params.seeds[0]}",
    shell:
        "classroom measure {wildcards.study} {params.run} 2> {log}"


rule deploy_table:
    """Size, work, time and memory of teacher, student and ensemble."""
    input:
        expand("results/deploy/{study}.json", study=params.deploy.studies),
        code("deploy_table"),
    output:
        "reports/{table}.md",
        report(
            "reports/{table}.csv",
            caption="../report/deploy.rst",
            category="Tables",
            labels={"table": "{table}", "shows": "what deploying costs"},
        ),
        "reports/{table}.tex",
        "reports/pages/{table}.json",
    log:
        "logs/table/{table}.log",
    wildcard_constraints:
        table=names(params.deploy.tables),
    shell:
        "classroom deploy-table {wildcards.table} 2> {log}"
