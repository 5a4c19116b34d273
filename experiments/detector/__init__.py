"""The small detector of odd films: the views it learns from (`views`), and how its weights are made (`train`)."""
