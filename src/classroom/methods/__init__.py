"""Everything that trains, behind one interface: see `classroom.core.method.Method`."""
