"""Teacher and students: built by name, tapped by module path, normalising their own input."""
