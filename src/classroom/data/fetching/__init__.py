"""From a folder, Kaggle or the web to validated original files."""
