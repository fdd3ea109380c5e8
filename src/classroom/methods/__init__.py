"""Everything that trains: the paper's variants, the baselines, and one file for each published method."""
