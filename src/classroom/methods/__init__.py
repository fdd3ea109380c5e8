"""Everything that trains, behind one interface: see `classroom.methods.base.Method`."""
