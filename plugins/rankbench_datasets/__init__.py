"""First-party datasets: one file each, with its file format, protocol and citation."""

import rankbench


@rankbench.hookimpl
def rankbench_datasets():
    return {
        "elpv": "rankbench_datasets.elpv:Elpv",
        "osr": "rankbench_datasets.osr:Osr",
        "pubfig": "rankbench_datasets.pubfig:PubFig",
        "lfw10": "rankbench_datasets.lfw10:Lfw10",
        "ut-zap50k": "rankbench_datasets.ut_zap50k:UtZap50k",
        "popularity": "rankbench_datasets.popularity:Popularity",
        "virality": "rankbench_datasets.virality:Virality",
        "viral-categories": "rankbench_datasets.viral_categories:ViralCategories",
        "shapes": "rankbench_datasets.shapes:Shapes",
        "manifest": "rankbench_datasets.manifest:Manifest",
    }
