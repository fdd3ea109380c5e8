"""The paper's core: which knowledge each network receives, and the losses."""
