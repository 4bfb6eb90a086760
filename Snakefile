"""The pipeline: chapter -> notebook -> executed -> validated -> ledger -> site. Run it with `netatlas build`."""

from pathlib import Path

from netatlas.pipeline.sources import chapters, digest, registry_digest, sources_of, tree

PROFILE = config.get("profile", "ci")
DEVICE = config.get("device", "cpu")
SEED = int(config.get("seed", 0))
PYTHON = config.get("python", "python")
RUN = f"build/{PROFILE}"
CHAPTERS = chapters()


wildcard_constraints:
    chapter="|".join(CHAPTERS) or "none",


rule site:
    input:
        ledger="build/ledger.json",
        validated=expand(f"{RUN}/validated/{{chapter}}.json", chapter=CHAPTERS),
        prose=tree("book"),
        config=["_config.yml", "_toc.yml"],
        recorded=tree("results"),
    params:
        code=digest(tree("src")),
    output:
        "build/site.json",
    shell:
        "exec {PYTHON} -m netatlas.pipeline.site {RUN} {output}"


rule ledger:
    input:
        validated=expand(f"{RUN}/validated/{{chapter}}.json", chapter=CHAPTERS),
        recorded=tree("results"),
    params:
        papers=registry_digest(None),
    output:
        "build/ledger.json",
    shell:
        "exec {PYTHON} -m netatlas.pipeline.ledger {RUN} {output}"


rule notebook:
    input:
        "chapters/{chapter}.py",
    output:
        f"{RUN}/notebooks/{{chapter}}.ipynb",
    shell:
        "exec {PYTHON} -m jupytext --quiet --to ipynb --output {output} {input}"


rule execute:
    input:
        notebook=f"{RUN}/notebooks/{{chapter}}.ipynb",
        sources=lambda w: sources_of(w.chapter),
    params:
        sources=lambda w: digest(sources_of(w.chapter)),
        papers=lambda w: registry_digest(w.chapter),
        settings=f"{SEED} {DEVICE}",
    output:
        f"{RUN}/executed/{{chapter}}.ipynb",
    threads: 1
    resources:
        gpu=1 if DEVICE.startswith("cuda") else 0,
        mem_mb=6000,
        runtime=30,
    shell:
        "exec {PYTHON} -m netatlas.pipeline.execute {input.notebook} {output}"
        " --profile {PROFILE} --device {DEVICE} --seed {SEED} --sources {params.sources}"


rule validate:
    input:
        f"{RUN}/executed/{{chapter}}.ipynb",
    output:
        f"{RUN}/validated/{{chapter}}.json",
    threads: 1
    resources:
        gpu=1 if DEVICE.startswith("cuda") else 0,
        mem_mb=6000,
        runtime=30,
    shell:
        "exec {PYTHON} -m netatlas.pipeline.validate {input} {output}"
