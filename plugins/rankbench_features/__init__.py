"""First-party features: one file each."""

import rankbench


@rankbench.hookimpl
def rankbench_features():
    return {
        "hog": "rankbench_features.hog:Hog",
        "gist": "rankbench_features.gist:Gist",
        "color-histogram": "rankbench_features.color_histogram:ColorHistogram",
        "cell-statistics": "rankbench_features.cell_statistics:CellStatistics",
        "lbp": "rankbench_features.lbp:Lbp",
        "hog2x2": "rankbench_features.hog2x2:Hog2x2",
        "gradient": "rankbench_features.hog2x2:Gradient",
        "color-patches": "rankbench_features.color_patches:ColorPatches",
        "network": "rankbench_features.network:Network",
        "category-network": "rankbench_features.category_network:CategoryNetwork",
        "given": "rankbench_features.given:Given",
        "precomputed": "rankbench_features.precomputed:Precomputed",
    }
