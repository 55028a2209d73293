# The runs of a paper as a DAG, for many cores or a cluster; the notebook afterwards only reads and draws.
#
#   pip install -e .[cluster]
#   snakemake --cores 8 --config paper=vse profile=small seeds=0,1,2
#   snakemake --executor slurm --jobs 50 --config paper=vse profile=paper dataset=flickr8k data_dir=~/flickr8k seeds=0,1,2
#
# A run lives in the run cache, runs/, under a key of all that decides it; a finished one costs nothing, and a killed
# one continues. The files here only mark what was asked for.
import json
from pathlib import Path

from lib import experiment

PAPER = config.get("paper", "vse")
SEEDS = [int(seed) for seed in str(config.get("seeds", 0)).split(",")]
SETTINGS = {name: value for name, value in config.items() if name not in ("paper", "seeds")}
MODULE = experiment.paper_module(PAPER)
VARIANTS = experiment.distinct(PAPER, list(MODULE.VARIANTS), SETTINGS)
CODE = experiment.code_fingerprint(PAPER)
MARKS = f"runs/marks/{PAPER}/{experiment.fingerprint({**SETTINGS, 'code': CODE})}"


rule all:
    input:
        expand(MARKS + "/{variant}-{seed}.json", variant=VARIANTS, seed=SEEDS),


# Pretrained encoders run once, here; every run then finds their features in the cache.
rule features:
    output:
        touch(MARKS + "/features"),
    threads: 2
    run:
        for variant in VARIANTS:
            MODULE.prepare(MODULE.load(experiment.resolve(PAPER, variant, SETTINGS)))


rule run:
    input:
        MARKS + "/features",
    output:
        MARKS + "/{variant}-{seed}.json",
    threads: 2
    resources:
        mem_mb=8000,
    run:
        import torch

        torch.set_num_threads(threads)
        result = experiment.run(PAPER, wildcards.variant, int(wildcards.seed), SETTINGS)
        Path(output[0]).write_text(json.dumps({"folder": str(result.folder), "scores": result.scores}))
