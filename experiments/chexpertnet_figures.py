"""CheXpertNet's figures and per-label tables, from the raw outputs of experiments/chexpertnet.py.

Figure 1 of the paper: activation maps of three films that are classified correctly. Figure 2: learning curves and ROC.
Tables 1 to 4: AUC of 13 labels per patient (Fracture has no positives among the 200 validation studies).
"""

import numpy as np
import pandas as pd

from chexpert_hier.evaluate.ranking import roc_curve
from chexpert_hier.labels import CHEXPERT_LABELS

# Wei and Jethani, tables 1 to 4, in the order of CheXpert's columns without Fracture; table 1 from their notebook.
LABELS = tuple(label for label in CHEXPERT_LABELS if label != "Fracture")
PAPER = {
    "both views": (.9151, .6347, .8111, .9070, .4020, .9042, .8943, .7383, .8115, .8978, .9287, .9799, .8828),
    "frontal only, as many films": (.936, .562, .856, .894, .302, .920, .900, .767, .783, .892, .933, .879, .874),
    "own statistics": (.925, .560, .832, .902, .688, .917, .899, .733, .784, .838, .932, .985, .900),
    "backbone frozen": (.897, .558, .796, .862, .206, .851, .880, .782, .796, .753, .897, .965, .737),
}


def mapped(network, source) -> dict[str, np.ndarray]:
    """Maps of three frontal validation films, each of another finding that is there and the network's surest of it.

    Returns:
        "maps" float32 (3, h, w), not rectified; "mapped films" uint8 (3, s, s), what the network saw; "mapped words".
    """
    from chexpert_hier.films.augment import plain_window
    from chexpert_hier.heatmaps.maps import heatmaps
    from chexpert_hier.training.stages import outputs_of

    valid = source.films("valid")
    p, frontal = outputs_of(network, valid, 256), (valid.dataset.films["view"] == "Frontal").to_numpy()
    right = np.where((valid.raw == 1) & (p >= 0.5) & frontal[:, None], p, -1.0)
    right[:, [valid.labels.index(label) for label in ("No Finding", "Support Devices")]] = -1.0  # no place to point at
    columns = np.argsort(-right.max(axis=0), kind="stable")[:3]
    places = right[:, columns].argmax(axis=0)
    inputs = np.concatenate([np.asarray(batch) for batch in valid.batches(places, batch_size=3)])
    maps = np.asarray(heatmaps(network, inputs))
    offset, side = plain_window(valid.plain_view, valid.pixels.side)
    films = valid.pixels(places)[:, offset:offset + side, offset:offset + side]
    words = [f"{valid.labels[column]}, present; p = {p[place, column]:.2f}" for place, column in zip(places, columns)]
    return {"maps": maps[np.arange(3), :, :, columns], "mapped films": films, "mapped words": np.array(words)}


def validation_loss(p: np.ndarray, truth: np.ndarray) -> np.ndarray:
    """The loss of two classes, the uncertain one masked (section 4.3): mean over certain cells.

    Args:
        p: (epochs, films, labels), p(positive) against negative alone.
        truth: (films, labels), 1, 0, -1 (uncertain).
    """
    p = np.clip(p.astype(np.float64), 1e-4, 1 - 1e-4)  # kept as float16
    cells = -np.where(truth == 1, np.log(p), np.log1p(-p))
    return cells[:, truth != -1].mean(axis=1)


def per_label(names: list[str], last: dict[str, np.ndarray], best: dict[str, np.ndarray]) -> pd.DataFrame:
    """AUROC per patient of every label beside the paper's: one row per label.

    Args:
        names: of the columns.
        last: run -> (labels,), last epoch, mean over seeds.
        best: run -> (labels,), per-class maximum over epochs, which is what the paper prints.
    """
    rows = []
    for label in LABELS:
        row = {"label": label}
        for number, (run, values) in enumerate(PAPER.items(), 1):
            row |= {f"table {number}, paper": values[LABELS.index(label)],
                    f"table {number}, maximum over epochs": best[run][names.index(label)],
                    f"table {number}, last epoch": last[run][names.index(label)]}
        rows.append(row)
    return pd.DataFrame(rows)


def figure1(raw, path) -> None:
    """The three films with their maps laid over them, in the colours and opacity of all the package's maps."""
    import cv2
    from matplotlib.figure import Figure

    from chexpert_hier.heatmaps.overlays import overlay

    figure = Figure(figsize=(9.6, 3.5), layout="constrained")
    for axis, heat, film, words in zip(figure.subplots(1, 3), raw["maps"], raw["mapped films"], raw["mapped words"]):
        film = cv2.resize(film, (256, 256), interpolation=cv2.INTER_CUBIC)
        drawn = overlay(film, cv2.resize(heat.astype(np.float32), film.shape))
        axis.imshow(cv2.cvtColor(drawn, cv2.COLOR_BGR2RGB))
        axis.set_title(str(words), fontsize=9)
        axis.set_axis_off()
    figure.savefig(path, dpi=110, format="png")


def figure2(curves: dict, scores: np.ndarray, truth: np.ndarray, names: list[str], path) -> None:
    """Learning curves (losses, AUROC) and the ROC curves of the last epoch.

    Args:
        curves: "training loss" (epochs,) or None, "validation loss" and "AUROC" (seeds, epochs), AUROC the mean over
            labels.
        scores, truth: (patients, labels).
        names: of the columns.
        path: where the PNG goes.
    """
    from matplotlib.figure import Figure

    figure = Figure(figsize=(15, 4.2), layout="constrained")
    losses, areas, roc = figure.subplots(1, 3)
    epochs = np.arange(1, curves["AUROC"].shape[1] + 1)
    for axis, name, colour in ((losses, "validation loss", "#0072B2"), (areas, "AUROC", "#009E73")):
        axis.plot(epochs, curves[name].T, color=colour, alpha=0.3, linewidth=1)
        axis.plot(epochs, curves[name].mean(axis=0), color=colour, label=f"{name}, mean over seeds")
        axis.set_xlabel("epoch")
    losses.set_ylabel("loss, two classes over certain cells")
    areas.set_ylabel("AUROC per patient, mean over labels")
    if curves["training loss"] is not None:
        twin = losses.twinx()
        twin.plot(epochs, curves["training loss"], color="#D55E00", linestyle="--", label="training loss, seed 0")
        twin.set_ylabel("training loss, three weighted classes")
        twin.legend(fontsize=8, loc="lower left")
    losses.legend(fontsize=8, loc="upper right")
    areas.legend(fontsize=8)
    colours = [f"C{k % 10}" for k in range(len(names))]
    for k, name in enumerate(names):
        if 0 < truth[:, k].sum() < len(truth):
            x, y, _ = roc_curve(scores[:, k], truth[:, k])
            roc.plot(x, y, color=colours[k], linestyle="-" if k < 10 else "--", linewidth=1, label=name)
    roc.plot([0, 1], [0, 1], color="#999999", linewidth=0.8)
    roc.set(xlabel="1 - specificity", ylabel="sensitivity", aspect="equal", title="last epoch, seed 0")
    figure.legend(*roc.get_legend_handles_labels(), fontsize=7, loc="outside right center")
    figure.savefig(path, dpi=110, format="png")
