"""The settings as a user handles them: presets, active studies, checks before any job."""
