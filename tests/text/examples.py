"""Texts to learn a small vocabulary from."""

TEXTS = ["a red apple", "a green apple, noto style", "the pear tree", "don't eat 42 pears", "apples and pears"] * 3
