"""The settings as a user handles them: presets, studies in force, checks before any job."""
