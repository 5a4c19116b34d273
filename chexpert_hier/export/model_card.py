"""The model card: MODEL_CARD.md from the run's own facts, for whoever is handed the model without its run folder.

Sections as in Mitchell et al. 2019, "Model cards for model reporting".
"""


def text(about: dict) -> str:
    """The card.

    Args:
        about: export.metadata, which has all the facts.

    Returns:
        Markdown.
    """
    parts = [_head(about), _use(about), _data(about), _training(about), _results(about), _limits(about), _how(about)]
    return "\n\n".join(parts) + "\n"


def _head(about: dict) -> str:
    recipe, count = about["members"][0]["recipe"], len(about["members"])
    drawn = f"**{about['synthetic'].capitalize()}.** " if about["synthetic"] else ""
    kind = f"an ensemble of {count} networks (mean of their probabilities)" if count > 1 else "one network"
    archs = ", ".join(dict.fromkeys(member["recipe"]["arch"] for member in about["members"]))
    return (f"# Model card: chest X-ray findings, recipe {recipe['name']}, {archs}\n\n"
            f"**{about['intended_use'].capitalize()}.** {drawn}Written by chexpert_hier {about['version']} "
            f"from the run's own records.\n\n"
            f"- What it is: {kind} that gives a probability for each of {len(about['labels'])} findings on one "
            f"{about['view'].lower()} chest film.\n- Findings: {', '.join(about['labels'])}.\n"
            f"- Hierarchy of findings: {_tree(about)}.")


def _tree(about: dict) -> str:
    tree = about["members"][0]["tree"]
    return f"`{tree}`" if isinstance(tree, str) else "; ".join(
        f"{child} below {' and '.join(parents)}" for child, parents in tree.items())


def _use(about: dict) -> str:
    return ("## Intended use\n\nResearch on chest X-ray classification: comparison of methods, teaching, retrospective "
            "studies with a radiologist's judgement beside it.\n\nNot a medical device. Not for diagnosis, triage or "
            "any decision about a patient. Not for children, lateral films, CT, other body parts, photographs of "
            "films or screens, unless those are what it was trained and validated on.")


def _data(about: dict) -> str:
    lines = []
    for number, member in enumerate(about["members"], start=1):
        data = member["data"]
        which = f"Member {number}: " if len(about["members"]) > 1 else ""
        counts = "; ".join(f"{name} {part['films']:,} films of {part['patients']:,} patients"
                           for name, part in data["counts"].items() if part["films"])
        lines.append(f"- {which}{data['name']}: {counts}. Fingerprint of the table: `{data['fingerprint'][:16]}`.")
    lines.append("- Patients are never in two splits. Labels of public chest X-ray data sets are mostly read from "
                 "reports by programs and partly wrong.")
    return "## Data\n\n" + "\n".join(dict.fromkeys(lines))


def _training(about: dict) -> str:
    lines = ["## Training", ""]
    for number, member in enumerate(about["members"], start=1):
        recipe = member["recipe"]
        which = f"Member {number}: " if len(about["members"]) > 1 else ""
        stages = "; ".join(f"{stage['name']}: {stage['layers']} layers, {stage['rows']} rows, "
                           f"{stage['epochs']} epochs, batch {stage['batch_size']}, rate {stage['learning_rate']:g}"
                           for stage in recipe["stages"])
        lines.append(f"- {which}recipe `{recipe['name']}` ({recipe['source']}); policy for uncertain labels "
                     f"`{recipe['policy']}`; {recipe['arch']} at {recipe['image_size']} x {recipe['image_size']} "
                     f"pixels, start weights {recipe['weights']}, seed {recipe['seed']}. {stages}.")
        lines += [f"  - differs from its source: {note}" for note in recipe.get("notes", ())]
    versions = about["members"][0]["trained_with"]
    lines.append("- Trained with " + ", ".join(f"{name} {version}" for name, version in versions.items()) + ".")
    return "\n".join(lines)


def _results(about: dict) -> str:
    found = about["validation"]
    if not found:
        return "## Results\n\nNot known: the run has no evaluation of its validation films."
    lines = ["## Results on the validation films", "",
             f"{found['films']:,} films of {found['patients']:,} patients; intervals are 95 %, bootstrapped over "
             f"patients. Operating point: {found['rule']}; sensitivity and specificity are cross-fitted by patient.",
             "",
             "| finding | AUROC | positives | negatives | threshold | sensitivity | specificity |",
             "|---|---|---|---|---|---|---|"]
    for label, row in found["labels"].items():
        few = " (few)" if row["few_positives"] else ""
        limit = "-" if row["threshold"] is None else f"{row['threshold']:.3f}"
        lines.append(f"| {label} | {_interval(row, 'auroc', 3)} | {row['positives']:.0f}{few} | "
                     f"{row['negatives']:.0f} | {limit} | "
                     f"{_interval(row, 'sensitivity', 2)} | {_interval(row, 'specificity', 2)} |")
    lines += [f"| {found['mean']['label']} | {_interval(found['mean'], 'auroc', 3)} | | | | | |", "",
              "These films also chose the thresholds and the calibration; expect somewhat less on new films, and less "
              "again from another hospital.", ""]
    return "\n".join([*lines, *(f"- {note}" for note in found["notes"])])


def _interval(row: dict, name: str, digits: int) -> str:
    value, low, high = (row.get(f"{name}{ending}") for ending in ("", "_low", "_high"))
    if value is None:
        return "-"
    return f"{value:.{digits}f}" + (f" ({low:.{digits}f} to {high:.{digits}f})" if low is not None else "")


def _limits(about: dict) -> str:
    return ("## Limits\n\n- Probabilities are those of the training labels, not of disease; `calibrated` fits the "
            "share of positives among the validation films and drifts with any other share.\n"
            "- \"Absent\" is a number below a threshold; a film may show what none of the findings names.\n"
            "- Nothing is known here about fairness between groups of patients: see `evaluate --by` on your own "
            "films.\n"
            "- Networks of this kind are known to use devices, markers and projection (AP or PA) as shortcuts.\n"
            "- Odd films (inverted, turned, lateral, not a chest) are flagged by `predict` and by a low `match`, not "
            "refused.")


def _how(about: dict) -> str:
    signatures = ", ".join(f"`{name}`" for name in about["inputs"])
    outputs = "\n".join(f"- `{name}`: {output['meaning']}." for name, output in about["outputs"].items())
    return (f"## How to use it\n\nSignatures {signatures}; outputs, float32 with the findings in the order above "
            f"unless `metadata.json` says otherwise:\n\n{outputs}\n\n"
            "```python\nimport tensorflow as tf\nmodel = tf.saved_model.load(\"saved_model\")\n"
            "answer = model.signatures[\"serving_default\"](film=tf.constant([open(\"film.jpg\", \"rb\").read()]))\n"
            "answer[\"probabilities\"]  # (1, findings)\n```")
