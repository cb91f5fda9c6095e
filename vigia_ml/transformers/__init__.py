"""The preparation of features, as scikit-learn transformers. No Django here."""
