"""Probabilities of any films: crops, test-time views, chain rule, ensemble mean."""

from ..faces import lazily

PUBLIC = {
    "engine": ("Answers", "Engine"),
    "predicting": ("LeftOut", "Portion", "answer_files", "predict_films"),
    "reading": ("Caution", "Read", "open_film"),
}
__getattr__, __dir__ = lazily(__name__, PUBLIC)
