"""One network alone: the baselines of Tables 2 and 13."""
