"""What experiments/fuzz.py is made of: damages, the cases of each class, and the processes that go through them."""
