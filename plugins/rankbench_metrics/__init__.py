"""First-party metrics."""

import rankbench


@rankbench.hookimpl
def rankbench_metrics():
    return {
        "pairwise-accuracy": "rankbench_metrics.accuracy:PairwiseAccuracy",
        "kendall-tau": "rankbench_metrics.correlation:KendallTau",
        "pair-tau": "rankbench_metrics.correlation:PairTau",
        "spearman": "rankbench_metrics.correlation:Spearman",
        "seconds": "rankbench_metrics.cost:Seconds",
        "peak-memory": "rankbench_metrics.cost:PeakMemory",
    }
