"""Evaluations asked for in one line: every word goes to the part of the question that it belongs to."""

from dataclasses import fields

from chexpert_hier import evaluate

JOINING = {field.name for field in fields(evaluate.Joining)}


def joined(predictions, truth, labels=None, *, meta=None, **words):
    """Join with fields of Joining."""
    return evaluate.join(predictions, truth, evaluate.Joining(labels, **words), meta)


def judged(predictions, truth, labels=None, *, fit=None, conditional=None, **words):
    """Evaluate with fields of Joining and Judging."""
    joining = evaluate.Joining(labels, **{name: words.pop(name) for name in JOINING & set(words)})
    return evaluate.evaluate(predictions, truth, joining, evaluate.Judging(**words), fit=fit, conditional=conditional)
