"""The numbers that the paper prints, in percent or points, each with its table: Dong, Gong & Zhu, TPAMI 2018.

Read from a text of the paper. None is what cannot be read in it, or not with certainty; none of it is guessed. Not readable are:
of Table 3, the rows LMLE and CRL for the twenty more imbalanced attributes and some single numbers; the name of Table 7's last
group; and every value of Figs. 6, 8, 10(b), 11 and 12 that the text does not say.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

Number = float | None


class Statistics(NamedTuple):
    """A row of Table 2. per_class: the smallest and the largest class in training."""

    labels: int
    classes: str
    total: int
    training: int
    test: int
    per_class: tuple[int, int]


TABLE_2 = {
    "celeba": Statistics(40, "2", 202_599, 162_770, 19_867, (3_713, 135_779)),
    "xdomain": Statistics(9, "6 to 55", 245_467, 165_467, 80_000, (13, 132_870)),
    "cifar100": Statistics(1, "100", 60_000, 50_000, 10_000, (500, 500)),
}
"""Table 2."""

BOTTOM_20 = (
    "Attractive", "Mouth_Slightly_Open", "Smiling", "Wearing_Lipstick", "High_Cheekbones", "Male", "Heavy_Makeup", "Wavy_Hair",
    "Oval_Face", "Pointy_Nose", "Arched_Eyebrows", "Black_Hair", "Big_Lips", "Big_Nose", "Young", "Straight_Hair", "Brown_Hair",
    "Bags_Under_Eyes", "Wearing_Earrings", "No_Beard",
)  # fmt: skip
"""The less imbalanced attributes of CelebA in the order of Table 3, by their names in CelebA's list."""

TOP_20 = (
    "Bangs", "Blond_Hair", "Bushy_Eyebrows", "Wearing_Necklace", "Narrow_Eyes", "5_o_Clock_Shadow", "Receding_Hairline",
    "Wearing_Necktie", "Eyeglasses", "Rosy_Cheeks", "Goatee", "Chubby", "Sideburns", "Blurry", "Wearing_Hat", "Double_Chin",
    "Pale_Skin", "Gray_Hair", "Mustache", "Bald",
)  # fmt: skip
"""The more imbalanced ones."""

TOP_20_RATIOS = (6, 6, 6, 7, 8, 8, 11, 13, 14, 14, 15, 16, 17, 18, 19, 20, 22, 23, 24, 43)
CELEBA_RATIOS = dict(
    zip(
        BOTTOM_20 + TOP_20,
        [1, 1, 1, 1, 1, 1, 2, 2, 3, 3, 3, 3, 3, 3, 4, 4, 4, 4, 4, 5, *TOP_20_RATIOS],
        strict=True,
    )
)
"""Table 3: the larger class has so many times the samples of the smaller one."""

_ = None
_UNREADABLE = (None,) * 20
_TABLE_3: dict[str, tuple[Sequence[Number], Sequence[Number]]] = {
    "triplet_knn": (
        (83, 92, 92, 91, 86, 91, 88, 77, 61, 61, 73, 82, 55, 68, 75, 63, 76, 63, 69, 82),
        (81, 81, 68, 50, 47, 66, 60, 73, 82, 64, 73, 64, 71, 43, 84, 60, 63, 72, 57, 75),
    ),
    "panda": (
        (85, 93, 98, 97, 89, 99, 95, 78, 66, 67, 77, 84, 56, 72, 78, 66, 85, 67, 77, 87),
        (92, _, 74, 51, 51, 76, 67, 85, 88, 68, 84, 65, 81, 50, 90, 64, 69, 79, 63, 74),
    ),
    "anet": (
        (87, 96, 97, 95, 89, 99, 96, 81, 67, 69, 76, 90, 57, 78, 84, 69, 83, 70, 83, 93),
        (90, 90, 82, 59, 57, 81, 70, 79, 95, 76, 86, 70, 79, 56, 90, 68, 77, 85, 61, 73),
    ),
    "ce": (
        (78, 89, 89, 92, 84, 94, 88, 73, 63, 66, 77, 83, 62, 73, 76, 65, 79, 74, 75, 88),
        (91, 90, 78, 70, 64, 85, 81, 83, 92, 86, 90, 81, 89, 74, 90, 83, 81, 90, 88, 93),
    ),
    "over_sampling": (
        (77, 89, 90, 92, 84, 95, 87, 70, 63, 67, 79, 84, 61, 73, 75, 66, 82, 73, 76, 88),
        (90, _, 80, 71, 65, 85, 82, 79, 91, 90, 89, 83, 90, 76, _, 84, 82, 90, 90, 92),
    ),
    "down_sampling": (
        (78, 87, 90, 91, 80, 90, 89, 70, 58, 63, 70, 80, 61, 76, 80, 61, 76, 71, 70, 88),
        (_, 85, 75, 66, 61, 82, 79, 80, 85, 82, _, 78, 80, 68, 90, 80, 78, 88, 60, 79),
    ),
    "cost_sensitive": (
        (78, 89, 90, 91, 85, 93, 89, 75, 64, 65, 78, 85, 61, 74, 75, 67, 84, 74, 76, 88),
        (_, 89, _, 71, 65, 84, 81, 82, 91, 92, _, 82, 90, 76, 90, 84, 80, 90, 88, 93),
    ),
    "threshold_adjustment": (
        (69, 89, 88, 89, 83, 95, 89, 77, 72, 72, 76, 86, 66, 76, 24, 73, 81, 76, 76, 15),
        (_, 92, _, 62, 71, 82, 83, 76, 95, 82, _, 81, 89, _, 95, 83, 85, 91, 86, 93),
    ),
    "lmle": ((88, 96, 99, 99, 92, 99, 98, 83, 68, 72, 79, 92, 60, 80, 87, 73, 87, 73, 83, 96), _UNREADABLE),
    "crl": ((81, 94, 92, 95, 87, 98, 90, 79, 66, 71, 80, 88, 67, 77, 83, 72, 84, 79, 84, 93), _UNREADABLE),
}  # fmt: skip

TABLE_3: Mapping[str, Mapping[str, Number]] = {
    method: dict(zip(BOTTOM_20 + TOP_20, (*bottom, *top), strict=True)) for method, (bottom, top) in _TABLE_3.items()
}
"""Table 3 by method and attribute. "ce" is DeepID2."""

TABLE_3_MEAN: Mapping[str, Number] = {
    "triplet_knn": 72, "panda": 77, "anet": 80, "ce": 81, "over_sampling": 82, "down_sampling": 78, "cost_sensitive": 82,
    "threshold_adjustment": 79, "lmle": 84, "crl": 87,
}  # fmt: skip
"""Table 3, last column. LMLE's and CRL's are those of the text of Sec. 4.1: 6 points above DeepID2, 3 above LMLE."""

TABLE_4 = {"lmle": (7, -2), "crl": (5, 6)}
"""Table 4: gains over DeepID2 on the bottom 20 and the top 20 attributes."""

XDOMAIN = ("Category", "Colour", "Collar", "Button", "Pattern", "Shape", "Length", "Sleeve-Shape", "Sleeve-Length")
XDOMAIN_RATIOS = dict(zip(XDOMAIN, (2, 138, 210, 242, 476, 2138, 3401, 4115, 4162), strict=True))
TABLE_5 = {
    "ddan": (46.12, 31.28, 22.44, 40.21, 29.54, 23.21, 32.22, 19.53, 40.21, 31.64),
    "fashionnet": (48.45, 36.82, 25.27, 43.85, 31.60, 27.37, 38.56, 20.53, 45.16, 35.29),
    "darn": (65.63, 44.20, 31.79, 58.30, 44.98, 28.57, 45.10, 18.88, 51.74, 43.24),
    "ce": (72.51, 74.68, 70.54, 76.28, 76.34, 68.84, 77.89, 67.45, 77.21, 73.53),
    "over_sampling": (73.34, 75.12, 71.66, 77.35, 77.52, 68.98, 78.66, 67.90, 78.19, 74.30),
    "down_sampling": (49.21, 33.19, 19.67, 33.11, 22.22, 30.33, 23.27, 12.49, 13.10, 26.29),
    "cost_sensitive": (76.07, 77.71, 71.24, 79.19, 77.37, 69.08, 78.08, 67.53, 77.17, 74.49),
    "threshold_adjustment": (72.51, 75.14, 71.34, 77.91, 77.46, 70.25, 78.78, 70.78, 78.37, 74.72),
    "lmle": (75.90, 77.62, 70.84, 78.67, 77.83, 71.27, 79.14, 69.83, 80.83, 75.77),
    "crl": (77.69, 82.01, 77.01, 82.37, 81.39, 74.96, 84.81, 80.48, 83.02, 80.42),
}
"""Table 5, by method: nine attributes and their mean. "ce" is MTCT. The printed mean of cost-sensitive learning, 74.49, is not
that of its row, 74.83."""

TABLE_6 = {"lmle": (3.39, 2.10), "crl": (5.18, 7.10)}
"""Table 6: gains over MTCT on the attribute up to 1:5 and on the other eight."""

TABLE_7_GROUPS = ("Texture", "Fabric", "Shape", "Part", None)
TABLE_7_RATIOS = (733, 393, 314, 350, 149)
TABLE_7 = {"ce": (53.29, 52.86, 53.02, 51.25, 51.20, 52.20), "crl": (55.37, 55.02, 55.22, 53.90, 53.75, 54.56)}
"""Table 7: five groups of DeepFashion's attributes and their mean, by the top 5 of each image."""

TABLE_8 = {"cifarnet": (56.5, 3.6), "resnet32": (68.1, 1.2), "densenet": (74.0, 0.8)}
"""Table 8: accuracy of cross-entropy on CIFAR-100, and the gain of CRL."""

TABLE_9 = {
    "cifarnet": (38.6, 34.7, 36.7),
    "resnet32": (48.2, 42.1, 45.2),
    "densenet": (52.7, 46.3, 49.5),
    "hog_knn": (7.3, 6.5, None),
}
"""Table 9: balanced and imbalanced training data of one size (gamma 1), and imbalanced with CRL."""

TABLE_10 = {
    "celeba": {
        "instance_abs": 5.30, "instance_rel": 5.45, "instance_dis": 3.45, "class_abs": 5.08, "class_rel": 6.32, "class_dis": 4.90,
    },
    "xdomain": {
        "instance_abs": 4.90, "instance_rel": 6.46, "instance_dis": 2.87, "class_abs": 4.76, "class_rel": 6.89, "class_dis": 4.32,
    },
}  # fmt: skip
"""Table 10: gains over DeepID2 and MTCT."""

TABLE_11 = {"class_rel": 80.42, "class_rel_unmined": 78.89, "lmle": 75.77}
"""Table 11: CRL with and without mining, and LMLE."""

TABLE_12 = {"ce": (73.53, None), "class_rel": (80.42, 60.4), "class_rel_all": (81.30, 77.6)}
"""Table 12: mean accuracy and hours of training; the baseline is Table 5's."""

TABLE_13 = {"class_rel_rho_10": 77.82, "class_rel_rho_30": 79.29, "class_rel": 80.42}
"""Table 13: rho of 10, 30 and 50 %."""

GAMMAS = (0.2, 0.4, 0.6, 0.8, 1.0)
"""Fig. 10: the paper says 0.2 to 1.0; the steps between are ours."""

ETAS = (0.001, 0.003, 0.01, 0.03, 0.1)
"""Fig. 11: the paper says 0.001 to 0.1; the steps between are ours."""

ETA_MEANS = {0.01: 80.42}
"""Fig. 11: what the text says of its values: 0.01 is the best, which is Table 5's CRL."""

KAPPAS = (1, 25, 50, 75, 100, 125, 150, 175)
"""Fig. 12: from 1 to 175 with steps of 25."""

KAPPA_MEANS = {25: 80.42}
"""Fig. 12: what the text says of its values: no further improvement from 25 on, which is Table 5's CRL."""

HOURS = {("celeba", "lmle"): 264.8, ("celeba", "crl"): 27.2, ("xdomain", "lmle"): 429.9, ("xdomain", "crl"): 60.4}
"""Secs. 4.1 and 4.2: hours of training on a Tesla K40."""
