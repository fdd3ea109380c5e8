# Every table and figure of the paper: `snakemake --cores 8 reports/table4.md`, `snakemake --cores all all`.
# The same graph as dvc.yaml; settings are in params.yaml, rules in workflow/rules/.
configfile: "params.yaml"


include: "workflow/rules/common.smk"
include: "workflow/rules/data.smk"
include: "workflow/rules/train.smk"
include: "workflow/rules/evaluate.smk"
include: "workflow/rules/report.smk"


rule all:
    """Every report that params.yaml asks for."""
    default_target: True
    input:
        "reports/table2.md",
        expand("reports/{table}.md", table=params.tables),
        expand("reports/samples-{study}.png", study=params.samples),
    localrule: True


onsuccess:
    reconcile_at_the_end()


onerror:
    reconcile_at_the_end()
