"""The paper's twelve variants."""
