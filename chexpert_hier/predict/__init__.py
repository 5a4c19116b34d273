"""Probabilities of any films: crops, test-time views, chain rule, ensemble mean."""

from ..faces import lazily

PUBLIC = {
    "predicting": ("predict_films",),
}
__getattr__, __dir__ = lazily(__name__, PUBLIC)
