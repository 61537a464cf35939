"""Plugins of another author: one of each kind, and every part of the contract used once."""

import rankbench


@rankbench.hookimpl
def rankbench_datasets():
    return {
        "market": "rankbench_thirdparty.datasets:Market",
        "market-sizes": "rankbench_thirdparty.datasets:Sizes",
        "market-categories": "rankbench_thirdparty.datasets:Categories",
    }


@rankbench.hookimpl
def rankbench_rankers():
    return {
        "pair-gap": "rankbench_thirdparty.rankers:PairGap",
        "workbench": "rankbench_thirdparty.rankers:Workbench",
        "timed-gpu": "rankbench_thirdparty.rankers:TimedGpu",
        "votes": "rankbench_thirdparty.rankers:Votes",
        "given-weights": "rankbench_thirdparty.rankers:GivenWeights",
        "never": "rankbench_thirdparty.rankers:Never",
    }


@rankbench.hookimpl
def rankbench_features():
    return {
        "palette": "rankbench_thirdparty.features:Palette",
        "released": "rankbench_thirdparty.features:Released",
    }


@rankbench.hookimpl
def rankbench_metrics():
    return {"swap-rate": "rankbench_thirdparty.metrics:SwapRate"}
