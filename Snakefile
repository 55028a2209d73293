# The runs of a paper as a DAG, for many cores or a cluster; the notebook afterwards only reads and draws.
#
#   pip install -e .[cluster]
#   snakemake --cores 8 --config paper=vse profile=small seeds=0,1,2 variants=best,lstm
#   snakemake --executor slurm --jobs 50 --config paper=vse profile=paper dataset=flickr8k data_dir=~/flickr8k seeds=0,1,2
#
# A run lives in the run cache, runs/, under a key of all that decides it; a finished one costs nothing, and a killed
# one continues. The files here only mark what was asked for. Parents run before the stages that start from them.
import shlex
import sys

from lib.run import experiment
from lib.run.fingerprint import fingerprint
from lib.run.paper import find_paper

PAPER = config.get("paper", "vse")
SEEDS = [int(seed) if seed.isdecimal() else seed for seed in str(config.get("seeds", 0)).split(",")]
SETTINGS = {name: value for name, value in config.items() if name not in ("paper", "seeds", "variants")}
NAMES = str(config["variants"]).split(",") if "variants" in config else list(find_paper(PAPER).VARIANTS)
ASKED = [experiment.plan(PAPER, name, seed, SETTINGS) for name in NAMES for seed in SEEDS]
RUNS = {f"{one.name}-{one.key}": one for one in experiment.in_order(ASKED)}
PLACE = {one.key: name for name, one in RUNS.items()}
MARKS, PYTHON = f"runs/marks/{PAPER}", sys.executable


rule all:
    input:
        expand(MARKS + "/{run}", run=[PLACE[one.key] for one in ASKED]),


# Pretrained encoders run once, here; every run that needs no other then finds their features in the cache.
rule features:
    output:
        touch(MARKS + "/features/" + fingerprint(PLACE)),
    threads: 2
    run:
        for one in RUNS.values():
            if not one.needs:
                one.task.prepare(one.data)


rule run:
    input:
        rules.features.output,
        lambda wildcards: [f"{MARKS}/{PLACE[needed.key]}" for needed in RUNS[wildcards.run].needs],
    output:
        touch(MARKS + "/{run}"),
    wildcard_constraints:
        run="[^/]+",
    threads: lambda wildcards: RUNS[wildcards.run].settings.threads
    resources:
        mem_mb=8000,
    params:
        arguments=lambda wildcards: shlex.join(experiment.command(RUNS[wildcards.run])),
    shell:
        "{PYTHON} -P -m lib.run {params.arguments}"
