"""Every number of every paper, with its source; a letter and a number name a row of docs/deviations.md."""

from dataclasses import replace

from .. import hierarchy
from ..errors import one_of
from .recipe import Recipe, Stage

# Pham et al. 2019, section 4.4.
SIX = ("densenet121", "densenet169", "densenet201", "inceptionresnetv2", "xception", "nasnetlarge")

PHAM2019 = Recipe(
    name="pham2019",
    source="Pham, Le, Tran, Ngo, Nguyen 2019, arXiv 1911.06475",
    views="frontal",  # section 1 (deviations D3)
    policy="u-ones+ct+lsr",  # section 4.5: the best single model
    lsr_ones=(0.55, 0.85),  # section 4.3 (L1)
    lsr_zeros=(0.0, 0.3),  # section 4.3 (L2)
    lsr_draw="fixed",  # not stated (L3)
    blank="negative",  # not stated; Stanford's own loader (D2)
    ct_rows="leaves",  # section 3.2, Fig. 2: leaf labels on a partial set; the literal sentence leaves 209 films (C1)
    product="auto",  # section 3.2, eqs. 3-4: for the "+CT" rows (C10)
    crop="template",  # section 4.2 (P2)
    rescaled_size=256,  # section 4.2 (P1)
    crop_size=224,  # section 4.2 (P2)
    image_size=224,  # section 4.3 (P4)
    normalise="imagenet",  # section 4.2 (P3)
    augment=(),  # none stated (P6)
    arch="densenet121",  # section 4.3 (M1)
    weights="imagenet",  # section 4.3 (M1)
    stages=(
        Stage(
            name="stage1",
            rows="conditional",  # section 3.2
            layers="all",
            loss="bce",  # eq. 2, with its missing minus sign, as a mean (M3)
            epochs=5,  # section 4.3; "50,000 iterations" there fits neither 5 epochs nor batch 32 (M7)
            batch_size=32,  # section 4.3 (M5)
            learning_rate=1e-4,  # section 4.3, first epoch (M6)
            learning_rate_drop=10.0,  # section 4.3, after each epoch (M6)
        ),
        Stage(
            name="stage2",
            rows="all",  # section 3.2
            layers="head",  # section 3.2: all but the last fully connected layer frozen
            cells="all",  # section 3.2: "retrain it on the full dataset" (C9)
            labels="all",  # the same (C9)
            epochs=5,  # not stated; hyper-parameters "fixed" (C6, C7)
            batch_size=32,
            learning_rate=1e-4,  # restarted (C7)
            learning_rate_drop=10.0,
        ),
    ),
)

PHANTOM = replace(
    PHAM2019,
    name="phantom",
    batchnorm_momentum=0.9,
    source="the pham2019 recipe, scaled down to minutes on two cores; for the synthetic films only",
    weights="none",  # nothing is downloaded
    image_size=64,  # the 224 x 224 crops are reduced for the network
    cache=True,
    template_films=500,
    stages=(
        replace(PHAM2019.stages[0], epochs=3, batch_size=16, learning_rate=1e-3, learning_rate_drop=10.0, drop_every=2),
        # From random weights the features move far, so the Dense layer needs a rate that lets it converge.
        replace(PHAM2019.stages[1], epochs=12, learning_rate=1e-2, learning_rate_drop=10.0, drop_every=6),
    ),
    notes=("64 x 64 pixels", "random initial weights", "milder label noise",
           "batch 16 in stage 1", "rate divided by 10 after 2 epochs in stage 1, after 6 in stage 2"),
)

_RAJPURKAR = "Rajpurkar et al. 2017 (CheXNet), arXiv 1711.05225v3"

CHEXNET = Recipe(
    name="chexnet",
    source=_RAJPURKAR + ", section 4: the network of 14 findings",
    reader="chestxray14",  # section 2.2
    views="frontal",  # section 2: frontal-view films
    split="paper",  # section 4: 70/10/20 %, by patient; the official lists are --split official
    judged="test",  # Table 2
    tree="flat",  # none
    policy="u-ignore",  # labels are 1 or 0: no policy is at work
    product="off",
    crop="none",  # section 2.1: down-scaled to 224 x 224
    rescaled_size=224,
    crop_size=224,
    image_size=224,
    normalise="imagenet",  # section 2.1
    augment=("hflip",),  # section 2.1
    arch="densenet121",  # section 2.1
    weights="imagenet",  # section 2.1
    head="dense",  # sections 2.1 and 4: one sigmoid per finding
    unit="film",  # ChestX-ray14 has no studies
    stages=(
        Stage(
            name="stage1",
            layers="all",  # section 2.1: end to end
            loss="bce_sum",  # section 4: sum of unweighted binary cross-entropies
            epochs=20,  # not stated
            batch_size=16,  # section 2.1
            learning_rate=1e-3,  # section 2.1
            schedule="plateau",  # section 2.1: when the validation loss plateaus after an epoch
            learning_rate_drop=10.0,  # section 2.1
            patience=0,  # not stated; "after an epoch"
            stop_after=5,  # not stated
            keep="lowest validation loss",  # section 2.1
        ),
    ),
)

CHEXNET_PNEUMONIA = replace(
    CHEXNET,
    name="chexnet-pneumonia",
    source=_RAJPURKAR + ", section 2: the pneumonia detector",
    outputs=("Pneumonia",),  # section 2.1: one output
    stages=(replace(CHEXNET.stages[0], loss="weighted_bce"),),  # section 2.1, w+ and w- over the training set
)

CHEXPERTNET = Recipe(
    name="chexpertnet",
    source="Wei, Jethani (New York University), CheXpertNet, paper and code",
    views="both",  # all films
    tree="chexpert",  # for the report of contradictions only
    policy="u-multiclass",  # 14 x negative, positive, uncertain; No Finding never uncertain
    blank="negative",  # their weights prove it
    product="off",
    crop="none",
    rescaled_size=364,  # paper: resized to 364 x 364
    crop_size=364,
    augment=("random_crop:320", "hflip"),  # paper; their code has RandomResizedCrop(320)
    plain_view=("centre_crop:320",),  # code
    image_size=320,  # paper
    normalise="imagenet",  # paper; "dataset" is its second experiment
    arch="densenet121",  # paper
    weights="imagenet",  # paper; "none" is its last experiment
    head="three-class",  # paper; code: Linear(1024 -> 41)
    unit="patient",  # paper: AUC per patient
    study_score="confident",  # code: the film with the largest class probability
    stages=(
        Stage(
            name="stage1",
            layers="all",  # paper; the caption of its last table says "Freezing all Conv layers": stage1.layers=head
            loss="three_class",  # paper: w = (|N| + |P| + |U|) / |class|, mean over films and labels
            epochs=3,  # paper
            batch_size=16,  # paper
            learning_rate=1e-4,  # paper, fixed
            schedule="constant",  # paper
            epsilon=1e-6,  # code
        ),
    ),
)

HBCE = Recipe(
    name="hbce",
    source="Asadi, Sodoke, Gerard, Kersten-Oertel 2025, arXiv 2502.03591, and their published code",
    train_file="train_visualCheXbert.csv",  # code: VisualCheXbert's labels, binary
    views="both",  # code: all films
    judged="test",  # code: the 668 films of the test set
    outputs=hierarchy.HBCE_TREE.labels,  # code: 14 findings, Uncertain, six groups
    tree="hbce",  # code: 20 edges
    policy="u-ignore",  # the labels are 1 or 0
    blank="negative",  # code: blanks are 0
    product="off",
    crop="none",  # code: resized without keeping the ratio
    rescaled_size=320,
    crop_size=320,
    image_size=320,  # code: 320 from random weights, 224 from ImageNet's
    normalise="none",  # code: / 255
    augment=("hflip", "brightness:0.1", "contrast:0.1"),  # code, which also has vflip (a chest is never upside down)
    arch="densenet121",  # code
    weights="none",  # code, at 320
    head="hbce",  # code: Conv 3x3 512, BatchNorm, pooling, Dense 128, Dropout 0.5, Dense 21
    unit="film",  # paper: per image
    stages=(
        Stage(
            name="stage1",
            layers="all",  # code
            loss="hbce_literal+data-driven",  # code, its configuration's default; hbce_literal is the fixed 0.5
            epochs=100,  # code, at most
            batch_size=16,  # code
            learning_rate=1e-4,  # code
            schedule="plateau",  # code: ReduceLROnPlateau
            learning_rate_drop=1 / 0.9,  # code: times 0.9
            patience=0,  # code: Keras' patience 1, which is one epoch without a lower loss
            min_learning_rate=1e-8,  # code
            stop_after=10,  # code: EarlyStopping
            keep="lowest validation loss",  # code: restores the best weights
        ),
    ),
)

# AUROC on CheXpert's 202 frontal validation films, DenseNet-121: Atelectasis, Cardiomegaly, Consolidation, Edema,
# Pleural Effusion, mean. Source: Pham et al. 2019, Table 1.
PHAM2019_TABLE_1 = {
    "u-ignore": (0.768, 0.795, 0.915, 0.914, 0.925, 0.863), "u-ignore+ct": (0.780, 0.815, 0.922, 0.914, 0.928, 0.872),
    "u-zeros": (0.745, 0.813, 0.882, 0.921, 0.930, 0.858), "u-zeros+ct": (0.782, 0.835, 0.922, 0.923, 0.921, 0.877),
    "u-zeros+lsr": (0.781, 0.815, 0.920, 0.923, 0.918, 0.871),
    "u-zeros+ct+lsr": (0.806, 0.833, 0.929, 0.933, 0.921, 0.884),
    "u-ones": (0.800, 0.780, 0.882, 0.918, 0.920, 0.860), "u-ones+ct": (0.813, 0.816, 0.895, 0.923, 0.912, 0.872),
    "u-ones+lsr": (0.818, 0.834, 0.874, 0.925, 0.921, 0.874),
    "u-ones+ct+lsr": (0.825, 0.855, 0.937, 0.930, 0.923, 0.894),
}

RECIPES = {recipe.name: recipe for recipe in (PHAM2019, CHEXNET, CHEXNET_PNEUMONIA, CHEXPERTNET, HBCE, PHANTOM)}


def named(name: str) -> Recipe:
    """The recipe of that name.

    Raises:
        InputError: there is none; the message lists the names.
    """
    one_of("--recipe", name, tuple(RECIPES))
    return RECIPES[name]
