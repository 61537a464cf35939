"""First-party rankers: one file a method."""

import rankbench


@rankbench.hookimpl
def rankbench_rankers():
    return {
        "chance": "rankbench_rankers.chance:Chance",
        "ranksvm": "rankbench_rankers.ranksvm:RankSVM",
        "regression": "rankbench_rankers.regression:Regression",
        "svm-pairs": "rankbench_rankers.svm_pairs:SVMPairs",
        "svm-deep-attributes": "rankbench_rankers.deep_attributes:SVMDeepAttributes",
        "svm-deep-attributes-published": "rankbench_rankers.deep_attributes:PublishedDeepAttributes",
        "attribute-votes": "rankbench_rankers.attribute_votes:AttributeVotes",
        "reference": "rankbench_rankers.reference:Reference",
        "xiao-lee": "rankbench_rankers.xiao_lee:XiaoLee",
        "regression-cnn": "rankbench_rankers.regression_cnn:RegressionCNN",
        "siamese": "rankbench_rankers.siamese:Siamese",
        "viralnet": "rankbench_rankers.viralnet:ViralNet",
    }
