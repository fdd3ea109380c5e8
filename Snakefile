# Every table and figure of the paper: `snakemake --cores 8 reports/table4.md`, `snakemake --cores all reports/all`.
# The same graph as dvc.yaml; settings are in params.yaml, rules in workflow/rules/.
include: "workflow/rules/common.smk"


configfile: "params.yaml"  # only now that it is checked: Snakemake runs code that a file with __use_yte__ holds


include: "workflow/rules/data.smk"
include: "workflow/rules/train.smk"
include: "workflow/rules/evaluate.smk"
include: "workflow/rules/deploy.smk"
include: "workflow/rules/report.smk"


rule all:
    """Every report that params.yaml asks for."""
    default_target: True
    input:
        [registry.report(kind).outputs(name)[0] for kind, of in PLAN["reports"].items() for name in of],
        "reports/index.html",
    output:
        touch("reports/all"),


rule tune:
    """The searches of published methods' weights that params.yaml asks for."""
    input:
        [f"reports/{name}.md" for name in PLAN["reports"]["method_search"]],


# Seconds each, so on a cluster they stay with Snakemake, where a job would wait longer than it works; fetch does as
# compute nodes often have no internet. Trainings, preparing images, CKA, exports and their measuring are submitted.
localrules:
    all,
    tune,
    fetch,
    split,
    evaluate_baseline,
    evaluate,
    evaluate_methods,
    site,


onstart:
    check_profile()
    check_writable()
    check_queue()


onsuccess:
    reconcile_at_the_end()


onerror:
    reconcile_at_the_end()
