# Tables and pictures, from results alone.


rule variants_table:
    """A study's twelve variants beside the paper's."""
    input:
        lambda wildcards: results_of(study_of("variants", wildcards.table)),
        lambda wildcards: baseline_results_of(study_of("variants", wildcards.table), ["student"]),
        code("variants_table"),
    output:
        "reports/{table}.md",
        report(
            "reports/{table}.csv",
            caption="../report/variants.rst",
            category="Tables",
            labels=lambda wildcards: labels(study_of("variants", wildcards.table), "twelve variants"),
        ),
        "reports/{table}.tex",
        "reports/pages/{table}.json",
        "reports/{table}.json",
    log:
        "logs/table/{table}.log",
    wildcard_constraints:
        table=names(report_names("variants")),
    params:
        study=lambda wildcards: study_of("variants", wildcards.table),
    shell:
        "classroom table {params.study} variants 2> {log}"


rule fidelity_table:
    """The students compared with their own teacher."""
    input:
        lambda wildcards: results_of(study_of("fidelity", wildcards.table)),
        code("fidelity_table"),
    output:
        "reports/{table}.md",
        report(
            "reports/{table}.csv",
            caption="../report/fidelity.rst",
            category="Tables",
            labels=lambda wildcards: labels(study_of("fidelity", wildcards.table), "fidelity"),
        ),
        "reports/{table}.tex",
        "reports/pages/{table}.json",
    log:
        "logs/table/{table}.log",
    wildcard_constraints:
        table=names(report_names("fidelity")),
    params:
        study=lambda wildcards: study_of("fidelity", wildcards.table),
    shell:
        "classroom table {params.study} fidelity 2> {log}"


rule architecture_table:
    """Layers, output shapes and parameters of a study's networks."""
    input:
        code("architecture_table"),
    output:
        "reports/{table}.md",
        report(
            "reports/{table}.csv",
            caption="../report/architecture.rst",
            category="Tables",
            labels=lambda wildcards: labels(study_of("architecture", wildcards.table), "layers and sizes"),
        ),
        "reports/{table}.tex",
        "reports/pages/{table}.json",
    log:
        "logs/table/{table}.log",
    wildcard_constraints:
        table=names(report_names("architecture")),
    params:
        study=lambda wildcards: study_of("architecture", wildcards.table),
    shell:
        "classroom table {params.study} architecture 2> {log}"


rule baselines_table:
    """Teachers and students trained alone."""
    input:
        lambda wildcards: [
            path
            for study in params.studies
            if params.study[study].reports.baselines == wildcards.table
            for path in baseline_results_of(study, ["teacher", "student"])
        ],
        code("baselines_table"),
    output:
        "reports/{table}.md",
        report(
            "reports/{table}.csv",
            caption="../report/baselines.rst",
            category="Tables",
            labels={"table": "{table}", "shows": "networks alone"},
        ),
        "reports/{table}.tex",
        "reports/pages/{table}.json",
    log:
        "logs/table/{table}.log",
    wildcard_constraints:
        table=names(PLAN["baselines"]),
    shell:
        "classroom baselines {wildcards.table} 2> {log}"


rule resplit_table:
    """A study and the one that repeats it with another split."""
    input:
        lambda wildcards: [path for study in resplit_pair(wildcards.table) for path in results_of(study)],
        code("resplit_table"),
    output:
        "reports/{table}.md",
        report(
            "reports/{table}.csv",
            caption="../report/resplit.rst",
            category="Tables",
            labels=lambda wildcards: labels(resplit_pair(wildcards.table)[0], "two splits"),
        ),
        "reports/{table}.tex",
        "reports/pages/{table}.json",
    log:
        "logs/table/{table}.log",
    wildcard_constraints:
        table=names(RESPLITS),
    params:
        study=lambda wildcards: RESPLITS[wildcards.table],
    shell:
        "classroom resplit-table {params.study} 2> {log}"


rule comparison_table:
    """Table 10: published methods beside ours."""
    input:
        lambda wildcards: expand(
            ["results/comparison/{table}/{study}.json", "results/costs/comparison/{table}/{study}.json"],
            table=wildcards.table,
            study=compared_in(wildcards.table),
        ),
        code("comparison_table"),
    output:
        "reports/{table}.md",
        report(
            "reports/{table}.csv",
            caption="../report/comparison.rst",
            category="Tables",
            labels={"table": "{table}", "shows": "published methods beside ours"},
        ),
        "reports/{table}.tex",
        "reports/pages/{table}.json",
    log:
        "logs/table/{table}.log",
    wildcard_constraints:
        table=names(PLAN["comparison"]["tables"]),
    shell:
        "classroom comparison {wildcards.table} 2> {log}"


rule exchange_tables:
    """Tables 1 and 5: what each variant shares."""
    input:
        code("exchange_tables"),
    output:
        multiext("reports/table1", ".md", ".csv", ".tex"),
        multiext("reports/table5", ".md", ".csv", ".tex"),
        multiext("reports/pages/table", "1.json", "5.json"),
    log:
        "logs/table/exchange.log",
    shell:
        "classroom exchange 2> {log}"


rule cost_table:
    """What all trainings took, by table and technique."""
    input:
        all_costs(),
        code("cost_table"),
    output:
        "reports/cost.md",
        report(
            "reports/cost.csv",
            caption="../report/cost.rst",
            category="Diagnostics",
            labels={"shows": "time, memory, disk"},
        ),
        "reports/pages/cost.json",
    log:
        "logs/table/cost.log",
    shell:
        "classroom cost 2> {log}"


rule picture:
    """Figures 4, 5, 7 and 9: what the variants make of the hardest test images."""
    input:
        lambda wildcards: all_runs_of(PLAN["pictures"][wildcards.picture]),
        lambda wildcards: multiext(
            "data/prepared/" + PLAN["pictures"][wildcards.picture] + "/", "images.npy", "index.parquet"
        ),
        code("pictures"),
    output:
        report(
            "reports/{picture}.png",
            caption="../report/picture.rst",
            category="Figures",
            labels=lambda wildcards: labels(PLAN["pictures"][wildcards.picture], "hard test images"),
        ),
        "reports/pages/{picture}.json",
    log:
        "logs/pictures/{picture}.log",
    wildcard_constraints:
        picture=names(PLAN["pictures"]),
    params:
        study=lambda wildcards: PLAN["pictures"][wildcards.picture],
    shell:
        "classroom picture {params.study} {wildcards.picture} 2> {log}"


rule cka_figure:
    """Figures 6, 10 and 11: similarity of layers."""
    input:
        lambda wildcards: similarities_of(PLAN["cka"]["figures"][wildcards.figure]),
        code("cka_figures"),
    output:
        report(
            "reports/{figure}.png",
            caption="../report/cka.rst",
            category="Figures",
            labels=lambda wildcards: labels(PLAN["cka"]["figures"][wildcards.figure], "similarity of layers"),
        ),
        "reports/{figure}.svg",
        "reports/pages/{figure}.json",
    log:
        "logs/cka/{figure}.log",
    wildcard_constraints:
        figure=names(PLAN["cka"]["figures"]),
    params:
        study=lambda wildcards: PLAN["cka"]["figures"][wildcards.figure],
    shell:
        "classroom cka-figure {params.study} {wildcards.figure} 2> {log}"


rule cka_table:
    """How alike the last stages of teacher and students are."""
    input:
        lambda wildcards: similarities_of(wildcards.study),
        code("cka_table"),
    output:
        "reports/cka-{study}.md",
        report(
            "reports/cka-{study}.csv",
            caption="../report/cka.rst",
            category="Diagnostics",
            labels=lambda wildcards: labels(wildcards.study, "similarity of last stages"),
        ),
        "reports/pages/cka-{study}.json",
    log:
        "logs/cka/{study}.log",
    wildcard_constraints:
        study=names(PLAN["cka"]["studies"]),
    shell:
        "classroom cka-table {wildcards.study} 2> {log}"


rule curves:
    """How a study's trainings went, and how far its students agree with their teacher."""
    input:
        lambda wildcards: all_runs_of(wildcards.study),
        lambda wildcards: results_of(wildcards.study),
        code("curves"),
    output:
        report(
            "reports/curves-{study}.png",
            caption="../report/curves.rst",
            category="Diagnostics",
            labels=lambda wildcards: labels(wildcards.study, "training curves"),
        ),
        report(
            "reports/agreement-{study}.png",
            caption="../report/agreement.rst",
            category="Figures",
            labels=lambda wildcards: labels(wildcards.study, "agreement with the teacher"),
        ),
        "reports/curves-{study}.csv",
        "reports/pages/curves-{study}.json",
        "reports/pages/agreement-{study}.json",
    log:
        "logs/curves/{study}.log",
    shell:
        "classroom curves {wildcards.study} 2> {log}"


rule samples:
    """Test images with truth and predictions."""
    input:
        lambda wildcards: multiext(
            f"runs/{wildcards.study}/{params.ours}/seed-{params.seeds[0]}/",
            "predictions.parquet",
            "metrics.json",
        ),
        "data/prepared/{study}/images.npy",
        "data/prepared/{study}/index.parquet",
        code("samples"),
    output:
        report(
            "reports/samples-{study}.png",
            caption="../report/samples.rst",
            category="Figures",
            labels=lambda wildcards: labels(wildcards.study, "test images", params.ours),
        ),
        "reports/pages/samples-{study}.json",
    log:
        "logs/samples/{study}.log",
    wildcard_constraints:
        study=names(PLAN["samples"]),
    params:
        run=lambda wildcards: f"{params.ours} --seed {params.seeds[0]}",
    shell:
        "classroom samples {wildcards.study} {params.run} 2> {log}"


rule site:
    """Every report on one page, which needs no more than a browser."""
    input:
        expand("reports/pages/{name}.json", name=[*all_tables(), *all_figures()]),
        all_costs(),
        expand("workflow/report/{kind}.rst", kind=["agreement", "cka", "curves", "grid", "picture", "samples"]),
        code("site"),
    output:
        "reports/index.html",
    log:
        "logs/site.log",
    shell:
        "classroom site 2> {log}"
