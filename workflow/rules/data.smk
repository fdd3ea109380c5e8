# From a download to memory-mapped arrays and a split.


rule fetch:
    """Copy a dataset, unchanged, and validate every file of it."""
    input:
        lambda wildcards: source_code(wildcards.dataset),
    output:
        directory("data/raw/{dataset}"),
    log:
        "logs/fetch/{dataset}.log",
    shell:
        "classroom fetch {wildcards.dataset} > {log} 2>&1"


rule prepare:
    """Resize a study's images once, into memory-mapped arrays and an index."""
    input:
        lambda wildcards: f"data/raw/{params.study[wildcards.study].dataset}",
        code("prepare"),
    output:
        directory("data/prepared/{study}"),
    log:
        "logs/prepare/{study}.log",
    shell:
        "classroom prepare {wildcards.study} > {log} 2>&1"


rule split:
    """Split a study's images, or patients, into training, validation and test."""
    input:
        "data/prepared/{study}",
        code("split"),
    output:
        "data/splits/{study}.parquet",
    log:
        "logs/split/{study}.log",
    shell:
        "classroom split {wildcards.study} > {log} 2>&1"
