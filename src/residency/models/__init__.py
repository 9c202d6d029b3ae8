"""Models: bases, methods, predictors."""
