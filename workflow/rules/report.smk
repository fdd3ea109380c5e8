# Tables and pictures, from results alone: a rule for each kind of report, from its module in classroom.reporting.

REPORTS = {kind: registry.report(kind) for kind in registry.KINDS}

for kind, of_kind in REPORTS.items():

    rule:
        name:
            kind
        input:
            lambda wildcards, kind=kind: REPORTS[kind].inputs(params, PLAN["reports"][kind][wildcards.report]),
            lambda wildcards, kind=kind: report_code(kind, PLAN["reports"][kind][wildcards.report]),
        output:
            shown(kind, of_kind),
        log:
            f"logs/{kind}/{{report}}.log",
        wildcard_constraints:
            report=names(PLAN["reports"][kind]),
        localrule: True
        params:
            study=lambda wildcards, kind=kind: PLAN["reports"][kind][wildcards.report].get("study", ""),
        shell:
            "classroom report {wildcards.report} > {log} 2>&1"


rule site:
    """Every report on one HTML page."""
    input:
        [f"reports/pages/{name}.json" for of_kind in PLAN["reports"].values() for name in of_kind],
        places.all_costs(params),
        "workflow/report",
        code("site"),
    output:
        "reports/index.html",
    log:
        "logs/site.log",
    shell:
        "classroom report index > {log} 2>&1"
