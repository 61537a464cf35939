"""First-party datasets: one file each, with its file format, protocol and citation."""

import rankbench


@rankbench.hookimpl
def rankbench_datasets():
    return {
        "elpv": "rankbench_datasets.elpv:Elpv",
        "osr": "rankbench_datasets.osr:Osr",
        "virality": "rankbench_datasets.virality:Virality",
        "viral-categories": "rankbench_datasets.viral_categories:ViralCategories",
        "shapes": "rankbench_datasets.shapes:Shapes",
        "manifest": "rankbench_datasets.manifest:Manifest",
    }
