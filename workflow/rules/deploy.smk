# Trained networks as files for use outside, and what they cost there.


rule export:
    """A run's network, or both students in one graph, as ONNX with its card."""
    input:
        "runs/{study}/{exported}/seed-{seed}",
        "data/prepared/{study}",
        "data/splits/{study}.parquet",
        code("export"),
    output:
        "exports/{study}/{exported}/seed-{seed}/{part}/model.onnx",
        "exports/{study}/{exported}/seed-{seed}/{part}/README.md",
    log:
        "logs/export/{study}/{exported}/seed-{seed}/{part}.log",
    wildcard_constraints:
        study=names(PLAN["deploy"]),
        exported=names({"teacher", params.ours}),
        part="T|S1|ensemble",
    shell:
        "classroom export {wildcards.study} {wildcards.exported} --seed {wildcards.seed} --network {wildcards.part} > {log} 2>&1"


rule measure:
    """What a study's teacher, one student and the ensemble take on a CPU, side by side."""
    input:
        lambda wildcards: [
            places.export_of(params, wildcards.study, "teacher", "T"),
            *(places.export_of(params, wildcards.study, params.ours, part) for part in ("S1", "ensemble")),
        ],
        code("measure"),
    output:
        "results/deploy/{study}.json",
    log:
        "logs/measure/{study}.log",
    wildcard_constraints:
        study=names(PLAN["deploy"]),
    threads: workflow.resource_settings.cores or 1  # all, as jobs that run at the same time would be measured too
    params:
        run=f"{params.ours} --seed {params.seeds[0]}",
    shell:
        "classroom measure {wildcards.study} {params.run} > {log} 2>&1"
